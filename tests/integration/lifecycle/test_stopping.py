"""SIGTERM and reloads while streams are open: nothing hangs, nobody misses anything, nobody sees an error."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import threading
from collections.abc import Sequence
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

import httpx

from tests.support.waiting import until

from .running import GET, WRITE, Shown, balancing, new_client, play, running, watching

STOP_SECONDS = 60.0
"""How long a server with open streams may take to stop, and another to start, where many share the machine."""

PAUSE_SECONDS = 0.01
"""Between two writes, so that others get their turn."""

RELOADED = """
from tests.integration.lifecycle.served import app, rpc

@app.get("/version")
async def version() -> int:
    return {version}
"""


def all_right(shown: Sequence[Shown], text: str) -> bool:
    """Tell whether every watch shows a text as fresh."""
    return all(one.is_right(text) for one in shown)


def test_a_stopped_server_sends_its_clients_elsewhere(tmp_path: Path) -> None:
    """One of two servers behind a balancer is told to stop under writes: its streams end, the clients resume at the
    other, end with the last text, and have shown it to be stale at worst.
    """
    file = tmp_path / "notes.db"
    with ExitStack() as stack:
        servers = [stack.enter_context(running(f"sqlite+aiosqlite:///{file}")) for _ in range(2)]
        url = stack.enter_context(balancing(servers, tmp_path))

        async def scenario() -> None:
            async with watching(url, GET, 6) as shown:
                # Whose turn it is at the balancer depends on how many requests came before: it may be one's always.
                stopped = shown[0].streams[-1]
                [ending] = [server for server in servers if str(process_of(server.url)) == stopped]
                enough = threading.Event()
                writing = asyncio.create_task(asyncio.to_thread(write_directly, file, enough))
                seconds = await asyncio.to_thread(ending.end, signal.SIGTERM)
                assert seconds < STOP_SECONDS
                enough.set()
                await until(partial(all_right, shown, await writing))
                assert stopped not in {one.streams[-1] for one in shown}
                assert not [error for one in shown for error in one.errors]

        play(scenario)


def process_of(url: str) -> int:
    """Return the process that answers."""
    return int(httpx.get(f"{url}/worker", timeout=20).json()["pid"])


def write_directly(file: Path, enough: threading.Event) -> str:
    """Write the note again and again, past every server, until it is enough, and return the last text."""
    number = 0
    with closing(sqlite3.connect(file, timeout=30, isolation_level=None)) as connection:
        while not enough.wait(PAUSE_SECONDS):
            number += 1
            connection.execute("INSERT OR REPLACE INTO note(id, text) VALUES (1, ?)", (str(number),))
    return str(number)


def test_a_reload_does_not_wait_for_streams(tmp_path: Path) -> None:
    """`uvicorn --reload` with open streams: the new code answers soon, and the watches go on with it."""
    module = tmp_path / "reloaded.py"
    module.write_text(RELOADED.format(version=1))
    database = f"sqlite+aiosqlite:///{tmp_path / 'notes.db'}"
    arguments = ("--reload", "--reload-dir", str(tmp_path), "--app-dir", str(tmp_path))

    async def scenario(url: str) -> None:
        async with new_client(url) as writer, watching(url, GET, 3) as shown:
            assert await version(url) == 1
            module.write_text(RELOADED.format(version=2))
            async with asyncio.timeout(STOP_SECONDS):
                await reloaded(url)
            await writer.call(WRITE, {"id": 1, "text": "after"})
            await until(partial(all_right, shown, "after"))

    with running(database, *arguments, app="reloaded:app") as server:
        play(partial(scenario, server.url))


async def reloaded(url: str) -> None:
    """Wait until the new code answers."""

    async def is_new() -> bool:
        return await version(url) == 2

    await until(is_new)


async def version(url: str) -> int | None:
    """Return what the code that is served calls itself; None where nothing answers."""
    async with httpx.AsyncClient(timeout=20) as http:
        try:
            return int((await http.get(f"{url}/version")).text)
        except httpx.HTTPError:
            return None
