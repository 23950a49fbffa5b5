"""Whatever a handler raises, it is the answer to its own call, and nobody else's end."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest
from fastapi import HTTPException
from sqlmodel import Session, select
from sqlmodel.ext.asyncio.session import AsyncSession

from reactive_rpc import ForbiddenError, NotFoundError, define_reactive_function
from tests.support.calls import by_path
from tests.support.waiting import forever

from .rooms import InRoom, Note, Server, error_of, serving

pytestmark = pytest.mark.anyio


def cancelled_by_a_task() -> BaseException:
    return asyncio.CancelledError("of a task that was awaited")


RAISED: dict[str, Any] = {
    "cancelled": cancelled_by_a_task,
    "exit": lambda: SystemExit(2),
    "generator": GeneratorExit,
    "group": lambda: BaseExceptionGroup("several", [SystemExit(2), ValueError("x")]),
    "stop": StopIteration,
    "stop_async": StopAsyncIteration,
}


def failing(error: Any) -> Any:
    async def query(db: AsyncSession, input: InRoom) -> list[str]:
        await db.exec(select(Note))
        if input.room == "task":
            task = asyncio.create_task(forever())
            asyncio.get_running_loop().call_soon(task.cancel)
            await task
        raise error()

    return query


def failing_sync(error: Any) -> Any:
    def query(db: Session, input: InRoom) -> list[str]:
        db.exec(select(Note))
        raise error()

    return query


FUNCTIONS: Any = {
    "query": {name: define_reactive_function(failing(error)) for name, error in RAISED.items()},
    "query_sync": {name: define_reactive_function(failing_sync(error)) for name, error in RAISED.items()},
    "mutation": {name: define_reactive_function.mutation(failing(error)) for name, error in RAISED.items()},
    "mutation_sync": {name: define_reactive_function.mutation(failing_sync(error)) for name, error in RAISED.items()},
}


async def test_what_a_handler_raises_is_its_own_answer(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Each kind of exception, by each kind of handler, also for who joined: 500 under a request id, and logged."""
    async with serving(file, FUNCTIONS) as server:
        for group, functions in FUNCTIONS.items():
            for name in functions:
                path, callers = f"{group}.{name}", 3 if group.startswith("query") else 1
                answers = await asyncio.gather(*(server.call(path, {"room": "a"}) for _ in range(callers)))
                assert [error_of(answer)["code"] for answer in answers] == ["INTERNAL_SERVER_ERROR"] * callers, path
        answer = await server.call("query.cancelled", {"room": "task"})
        assert error_of(answer)["code"] == "INTERNAL_SERVER_ERROR"
    assert "as something that it awaited was cancelled" in caplog.text


async def test_a_stream_hears_of_it_as_of_any_error(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The query is refused as one that fails, and the others of the set are watched."""
    caplog.set_level(logging.CRITICAL)
    queries = [{"path": f"query.{name}", "input": {"room": "a"}} for name in RAISED]
    async with serving(file, FUNCTIONS) as server:
        answer = await server.call("events/poll", {"queries": queries})
        [connected] = answer.json()["events"]
        assert [each["error"]["code"] for each in connected["data"]["errors"]] == ["INTERNAL_SERVER_ERROR"] * len(
            RAISED
        )


async def test_who_goes_away_takes_nobody_along(server: Server) -> None:
    """A request that is really cancelled ends as such; who waits for the same run gets its result."""
    running, go_on = asyncio.Event(), asyncio.Event()

    @define_reactive_function
    async def slow(db: AsyncSession) -> int:
        running.set()
        await go_on.wait()
        return len((await db.exec(select(Note))).all())

    async with serving(server.path.with_suffix(".slow"), {"notes": {"slow": slow}}) as found:
        first = asyncio.create_task(found.call("notes.slow"))
        await running.wait()
        second = asyncio.create_task(found.call("notes.slow"))
        while found.rpc.admin.stats()["misses"] + found.rpc.admin.stats()["joined"] < 2:  # noqa: ASYNC110  # counters tell nobody
            await asyncio.sleep(0)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        go_on.set()
        assert (await second).json() == 0


async def test_a_run_that_is_abandoned_is_no_cancellation_of_who_waits(file: Path) -> None:
    """Closing answers 503 to who still waits for a handler."""
    running = asyncio.Event()

    @define_reactive_function
    async def endless() -> int:
        running.set()
        await asyncio.Event().wait()
        return 1

    async with serving(file, {"notes": {"endless": endless}}) as server:
        waiting = asyncio.create_task(server.call("notes.endless"))
        await running.wait()
        await server.rpc.admin.aclose()
        assert error_of(await waiting)["code"] == "SERVICE_UNAVAILABLE"


async def test_a_refusal_that_read_nothing_is_not_called_uncached(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A handler that refuses at once had no reason to read; only a result that rests on no table is told of."""

    @define_reactive_function
    async def guarded(db: AsyncSession, input: InRoom) -> list[Note]:
        if input.room == "closed":
            raise ForbiddenError("closed")
        return list((await db.exec(select(Note))).all()) if input.room == "open" else []

    async with serving(file, {"notes": {"guarded": guarded}}) as server:
        assert (await server.call("notes.guarded", {"room": "closed"})).status_code == 403
        assert server.rpc.admin.stats()["uncacheable"] == 0
        assert "is not cached" not in caplog.text
        assert (await server.call("notes.guarded", {"room": "empty"})).status_code == 200
        assert server.rpc.admin.stats()["uncacheable"] == 1
        assert "notes.guarded is not cached: it reads no table" in caplog.text


def refusing_as_fastapi_does(is_async: bool) -> Any:
    """Return a handler that answers in the words of a path operation."""

    def found(notes: Any) -> str:
        if not notes:
            raise HTTPException(404, "no such room", headers={"x-reason": "empty"})
        return str(notes[0].text)

    async def with_async(db: AsyncSession, input: InRoom) -> str:
        return found((await db.exec(select(Note).where(Note.room == input.room))).all())

    def with_sync(db: Session, input: InRoom) -> str:
        return found(db.exec(select(Note).where(Note.room == input.room)).all())

    return with_async if is_async else with_sync


@pytest.mark.parametrize("is_async", [True, False])
async def test_an_http_exception_of_a_handler_is_an_outcome(file: Path, is_async: bool) -> None:
    """It is cached until the data changes, and watched; a caller in this process gets the same error."""
    handler = refusing_as_fastapi_does(is_async)
    functions = {"notes": {"first": define_reactive_function(handler)}}
    functions["more"] = {"first": define_reactive_function.mutation(handler)}
    async with serving(file, functions) as server:
        for _ in range(2):
            answer = await server.call("notes.first", {"room": "a"})
            assert (answer.status_code, answer.headers["x-reason"]) == (404, "empty")
            assert error_of(answer)["message"] == "no such room"
        assert (server.rpc.admin.stats()["misses"], server.rpc.admin.stats()["hits"]) == (1, 1)
        for path in ("notes.first", "more.first"):
            with pytest.raises(NotFoundError, match="no such room"):
                await by_path(server.rpc)(path, room="a")
        queries = {"queries": [{"path": "notes.first", "input": {"room": "a"}}]}
        [connected] = (await server.call("events/poll", queries)).json()["events"]
        assert connected["data"]["errors"] == []
        server.write("INSERT INTO note(tenant, room, text) VALUES ('t', 'a', 'x')")
        resumed = await server.call("events/poll", {**queries, "cursor": connected["data"]["cursor"]})
        assert [stale["path"] for stale in resumed.json()["events"][0]["data"]["stale"]] == ["notes.first"]
        assert (await server.call("notes.first", {"room": "a"})).json() == "x"
