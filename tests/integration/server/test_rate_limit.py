"""`rate_limit` in front of procedures: two workers on each kind of store count together."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from reactive_rpc import Login, TooManyRequestsError, define_reactive_function, rate_limit
from reactive_rpc.procedures.steps import CallOrigin
from reactive_rpc.testing import FakeClock

from . import postgresql_rooms
from .rooms import Opened, error_of, serving, who

pytestmark = pytest.mark.anyio

limited = define_reactive_function.use(rate_limit(3))


@limited
async def read() -> int:
    """Read."""
    return 1


@limited.mutation
async def write(value: int) -> int:
    """Write."""
    return value


@define_reactive_function(public=True)
async def free() -> int:
    """Not limited."""
    return 1


@define_reactive_function.use(rate_limit(2)).query(public=True)
async def anybody() -> int:
    """Limited by address."""
    return 1


FUNCTIONS: dict[str, Any] = {"test": {"read": read, "write": write, "free": free, "anybody": anybody}}
STREAM = CallOrigin("stream")
ADA = {"authorization": "Bearer ada@t"}
BOB = {"authorization": "Bearer bob@t"}


@pytest.fixture(params=["sqlite", "postgresql", "redis"])
async def workers(request: pytest.FixtureRequest, tmp_path: Path, redis_namespace: str) -> AsyncIterator[list[Opened]]:
    """Two workers on one database."""
    clock = FakeClock()
    async with AsyncExitStack() as stack:
        opened: list[Opened] = []
        for _ in range(2):
            if request.param == "sqlite":
                worker: Any = serving(tmp_path / "x.db", FUNCTIONS, context=who, clock=clock)
            else:
                settings: dict[str, Any] = {}
                if request.param == "redis":
                    url = request.getfixturevalue("redis_server_url")
                    settings = {"redis_url": url, "redis_namespace": redis_namespace}
                place = request.getfixturevalue("postgresql_url")
                worker = postgresql_rooms.serving(place, FUNCTIONS, context=who, settings=settings)
            opened.append(await stack.enter_async_context(worker))
        yield opened


async def test_workers_count_a_caller_together(workers: list[Opened]) -> None:
    """Over procedures, hits and misses, over the wire and in this process; another caller has their own count."""
    one, other = workers
    assert (await one.client.get("/rpc/test.read", headers=ADA)).status_code == 200
    assert (await other.client.get("/rpc/test.read", headers=ADA)).status_code == 200
    assert (await one.client.post("/rpc/test.write", json={"value": 1}, headers=ADA)).status_code == 200
    for worker in workers:
        refused = await worker.client.get("/rpc/test.read", headers=ADA)
        assert (refused.status_code, error_of(refused)["code"]) == (429, "TOO_MANY_REQUESTS")
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        with pytest.raises(TooManyRequestsError):
            await worker.rpc.caller(Login(identity="ada", tenant="t"))(read)
        assert (await worker.client.get("/rpc/test.read", headers=BOB)).status_code == 200
        assert (await worker.client.get("/rpc/test.free", headers=ADA)).status_code == 200


async def test_nobody_is_counted_by_address(workers: list[Opened]) -> None:
    """Over the wire; a call by nobody in this process has none, and is not counted."""
    one, other = workers
    codes = [(await worker.client.get("/rpc/test.anybody")).status_code for worker in (one, other, one, other)]
    assert codes == [200, 200, 429, 429]
    for _ in range(3):
        assert await one.rpc.caller()(anybody) == 1


async def test_streams_are_not_counted(tmp_path: Path) -> None:
    """A recheck would else end a stream because others call; and the next window lets calls through again."""
    clock = FakeClock()
    async with serving(tmp_path / "x.db", FUNCTIONS, context=who, clock=clock) as server:
        for _ in range(5):
            await server.rpc._calls.subscribe("test.read", None, Login(identity="ada"), origin=STREAM)
        codes = [(await server.client.get("/rpc/test.read", headers=ADA)).status_code for _ in range(4)]
        assert codes == [200, 200, 200, 429]
        clock.advance(60)
        assert (await server.client.get("/rpc/test.read", headers=ADA)).status_code == 200
