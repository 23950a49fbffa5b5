"""Health: a probe is told what does not work, by name, and when it works again."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import text
from sqlmodel.ext.asyncio.session import AsyncSession

from reactive_rpc import define_reactive_function
from reactive_rpc.health import Part

from .rooms import ROOMS, InRoom, Note, Server, error_of, serving
from .test_outage import gone

pytestmark = pytest.mark.anyio

DEADLINE_SECONDS = 20.0


async def asked(server: Server, question: str = "") -> httpx.Response:
    """Ask as a probe does; a call within the process alone would never give way to the server's tasks."""
    await asyncio.sleep(0)
    return await server.client.get(f"/rpc/health{question}")


async def status_becomes(server: Server, question: str, status: int) -> bool:
    """Wait for an answer; tell whether it came."""
    give_up = time.monotonic() + DEADLINE_SECONDS
    while (await asked(server, question)).status_code != status:
        if time.monotonic() > give_up:
            return False
    return True


async def test_a_server_that_runs_is_live_and_ready(server: Server) -> None:
    """It names its parts, and all of them work."""
    for question in ("", "/live", "/ready"):
        answer = await asked(server, question)
        assert answer.status_code == 200
        report: dict[str, Any] = answer.json()
        assert report["live"] is report["ready"] is True
        assert {"log", "tail", "prune"} <= report["parts"].keys()
        assert all(part == {"ok": True} for part in report["parts"].values())
        assert answer.headers["cache-control"] == "no-store"


async def test_an_outage_is_told_and_does_not_ask_for_a_restart(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its database a worker is live, and not ready: the log says since when, and nobody's address."""
    monkeypatch.setattr("reactive_rpc.changes.follower.LOG_STALLED_SECONDS", 0.0)
    async with serving(file) as server:
        assert await status_becomes(server, "/ready", 200)
        with gone(file):
            assert await status_becomes(server, "/ready", 503)
            report = (await asked(server)).json()
            assert report["parts"]["log"]["ok"] is False
            assert report["parts"]["log"]["detail"].startswith("the log was last read")
            assert str(file) not in str(report)
            assert (await asked(server, "/live")).status_code == 200
        assert await status_becomes(server, "/ready", 200)


@define_reactive_function.mutation
async def swell(db: AsyncSession, input: InRoom) -> str:
    """Write more than the pages that the file may have by then."""
    connection = await db.connection()
    pages = (await connection.execute(text("PRAGMA page_count"))).scalar_one()
    await connection.execute(text(f"PRAGMA max_page_count = {pages + 4}"))
    db.add(Note(room=input.room, text="x" * 1_000_000))
    await db.flush()
    return "written"


@define_reactive_function.mutation
async def protect(db: AsyncSession, input: InRoom) -> str:
    """Write over a connection that may not, as of a file system that was mounted anew."""
    connection = await db.connection()
    await connection.execute(text("PRAGMA query_only = ON"))
    db.add(Note(room=input.room, text="x"))
    await db.flush()
    return "written"


@define_reactive_function.mutation
async def mend(db: AsyncSession) -> str:
    """Make room."""
    connection = await db.connection()
    await connection.execute(text("PRAGMA max_page_count = 1073741823"))
    return "mended"


@pytest.mark.parametrize(
    ("name", "words"), [("swell", "the database's disk is full: nothing was written"), ("protect", "is read-only")]
)
async def test_a_disk_that_is_full_is_told(file: Path, name: str, words: str) -> None:
    """By its name and not as a lock, and the worker is not ready, until a write succeeds or a while has passed."""
    functions = {**ROOMS, "disk": {"swell": swell, "protect": protect, "mend": mend}}
    async with serving(file, functions) as server:
        assert await status_becomes(server, "/ready", 200)
        answer = await server.call(f"disk.{name}", {"room": "a"})
        assert (answer.status_code, error_of(answer)["code"]) == (503, "SERVICE_UNAVAILABLE")
        assert words in error_of(answer)["message"]
        report = (await asked(server)).json()
        assert (report["live"], report["ready"], report["parts"]["database"]["ok"]) == (True, False, False)
        assert words in report["parts"]["database"]["detail"]
        assert (await server.call("notes.in_room", {"room": "a"})).json() == []
        if name == "protect":
            await server.rpc._database._async_writer.dispose()
        assert (await server.call("disk.mend")).json() == "mended"
        assert (await asked(server)).json()["parts"]["database"] == {"ok": True}
        await server.call(f"disk.{name}", {"room": "a"})
        server.rpc._database._error = (server.rpc._database._error[0], 0.0)  # its time is over
        assert await status_becomes(server, "/ready", 200)


async def test_a_task_that_died_asks_for_a_restart(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    """What comes back by a restart alone is named by `live`, and logged with its cause."""
    tail = next(task for task in asyncio.all_tasks() if task.get_name() == "reactive_rpc tail")
    tail.cancel()
    with suppress(asyncio.CancelledError):
        await tail
    answer = await asked(server, "/live")
    assert answer.status_code == 503
    assert answer.json()["parts"]["tail"] == {"ok": False, "detail": "has ended"}


async def test_a_probe_that_fails_is_a_part_that_does_not_work(server: Server) -> None:
    """Rather than an error of the endpoint."""

    def probe() -> Part:
        raise OSError("the password is hunter2")

    server.rpc.admin.health.add("broken", probe)
    answer = await asked(server)
    assert answer.status_code == 503
    assert answer.json()["parts"]["broken"] == {"ok": False, "detail": "cannot be asked: OSError"}


async def test_health_is_for_probes(server: Server) -> None:
    """HEAD has no body, other methods are refused, clients are generated without it."""
    assert (await server.client.head("/rpc/health")).content == b""
    assert (await server.client.post("/rpc/health")).status_code == 405
    assert not [path for path in server.app.openapi()["paths"] if "health" in path]
