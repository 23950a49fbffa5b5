"""The private names of asyncio, anyio, FastAPI, sse-starlette and the drivers still mean what `compat/` says."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from contextlib import AsyncExitStack
from typing import Any

import asyncpg  # type: ignore[import-untyped]  # it ships no types
import pytest
from anyio import CancelScope, from_thread
from fastapi import Depends
from fastapi.dependencies.models import Dependant
from fastapi.dependencies.utils import get_dependant, solve_dependencies
from sqlalchemy import make_url
from sqlalchemy.ext.asyncio import create_async_engine
from sse_starlette.sse import AppStatus
from starlette.requests import Request

from reactive_rpc.compat import fastapi as compat_fastapi
from reactive_rpc.compat.aiosqlite import run_in_driver
from reactive_rpc.compat.asyncpg import TypeLookups
from reactive_rpc.compat.concurrency import enter_task, leave_task, worker_thread
from reactive_rpc.compat.sse_starlette import server_exit


def test_a_task_is_entered_for_a_step() -> None:
    """While it is entered it is the current one, and afterwards none is."""

    async def main() -> None:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        seen: list[object] = []

        def step() -> None:
            enter_task(loop, task)
            seen.append(asyncio.current_task())
            leave_task(loop, task)
            seen.append(asyncio.current_task())
            done.set_result(None)

        done = loop.create_future()
        loop.call_soon(step)
        await done
        assert seen == [task, None]

    asyncio.run(main())


def test_a_thread_of_ours_calls_back_into_the_loop() -> None:
    """As one of anyio's pool; when its scope is cancelled, so is the call."""

    async def main() -> None:
        loop, scope = asyncio.get_running_loop(), CancelScope()
        ended = loop.create_future()

        def work() -> None:
            with worker_thread(loop, scope):
                found = from_thread.run(asyncio.sleep, 0, "back")
                loop.call_soon_threadsafe(ended.set_result, found)

        with scope:
            threading.Thread(target=work).start()
            assert await ended == "back"

    asyncio.run(main())


def test_generators_of_dependencies_are_closed_by_our_stacks() -> None:
    """FastAPI finds both stacks in the scope: one ends with the function, the other with the request."""

    async def main() -> None:
        ended: list[str] = []

        async def of_request() -> Any:
            yield 1
            ended.append("request")

        async def of_function() -> Any:
            yield 2
            ended.append("function")

        solved_for: list[tuple[int, int]] = []

        def context(
            one: int = Depends(of_request, scope="request"), two: int = Depends(of_function, scope="function")
        ) -> None:
            solved_for.append((one, two))

        request = Request({"type": "http", "headers": [], "query_string": b"", "path": "/", "method": "GET"})
        async with AsyncExitStack() as request_stack:
            async with AsyncExitStack() as function_stack:
                compat_fastapi.put_exit_stacks(request, request_stack, function_stack)
                solved = await solve_dependencies(
                    request=request,
                    dependant=Dependant(path="/", dependencies=[get_dependant(path="/", call=context)]),
                    async_exit_stack=request_stack,
                    embed_body_fields=False,
                )
                assert solved.errors == []
                assert solved_for == [(1, 2)]
                assert ended == []
            assert ended == ["function"]
        assert ended == ["function", "request"]

    asyncio.run(main())


def test_fastapi_is_told_of_a_route() -> None:
    """Where this FastAPI has telemetry, its function takes what we give it; where it is off, nobody is told."""
    compat_fastapi.notify_route({"type": "http"}, "/a")
    notified: list[dict[str, Any]] = []
    before = compat_fastapi._notify
    compat_fastapi._notify = lambda **given: notified.append(given)
    try:
        compat_fastapi.notify_route({"fastapi.telemetry": object()}, "/a")
        compat_fastapi.notify_route({}, "/b")
    finally:
        compat_fastapi._notify = before
    assert [given["path"] for given in notified] == ["/a"]


def test_the_exit_of_the_server_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    """sse-starlette sets it when uvicorn is told to stop; each loop hears of it."""

    async def main() -> None:
        waiting = asyncio.create_task(server_exit())
        done, _ = await asyncio.wait([waiting], timeout=0)
        assert not done
        monkeypatch.setattr(AppStatus, "should_exit", True)
        async with asyncio.timeout(30):
            await waiting

    asyncio.run(main())


def test_work_runs_in_the_thread_of_aiosqlite() -> None:
    """It is given the driver's own connection, in the thread that this one belongs to."""

    async def main() -> None:
        engine = create_async_engine("sqlite+aiosqlite://")
        async with engine.connect() as connection:
            raw = await connection.get_raw_connection()

            def work(found: sqlite3.Connection, number: int) -> tuple[str, int]:
                (row,) = found.execute("SELECT ?", [number])
                return threading.current_thread().name, row[0]

            thread, number = await connection.run_sync(
                lambda _: run_in_driver(raw.dbapi_connection, work, 5),
            )
            assert number == 5
            assert thread != threading.current_thread().name
        await engine.dispose()

    asyncio.run(main())


def test_look_ups_of_types_are_told(postgresql_url: str) -> None:
    """asyncpg looks up a type of the database's own by the method that is overridden."""
    looked: list[str] = []

    class Told(TypeLookups):
        async def look_up_types(self, look_up: Any) -> Any:
            looked.append("look-up")
            return await look_up()

    async def main() -> None:
        url = make_url(postgresql_url).set(drivername="postgresql").render_as_string(hide_password=False)
        connection = await asyncpg.connect(url, connection_class=Told)
        await connection.execute("CREATE TYPE pair AS (a int, b int)")
        assert await connection.fetchval("SELECT ROW(1, 2)::pair") == (1, 2)
        await connection.close()

    asyncio.run(main())
    assert looked
