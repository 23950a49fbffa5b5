"""`now` and `ttl_seconds` on a real server: what depends on the time is kept until the time changes it."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydantic import BaseModel
from sqlmodel import Session, select
from sqlmodel.ext.asyncio.session import AsyncSession

from reactive_rpc import Cache, DefinitionError, define_reactive_function, now
from reactive_rpc.client import AsyncClient, Procedure
from reactive_rpc.procedures.registry import Functions
from reactive_rpc.testing import FakeClock, running
from tests.support.calls import by_path

from .rooms import Note, add, app_of, in_room, rpc_on, serving

pytestmark = pytest.mark.anyio

MINUTE = 60.0


class Seen(BaseModel):
    at: datetime
    notes: int


@define_reactive_function
async def minutely(db: AsyncSession) -> Seen:
    """How many notes there are, and which minute it is."""
    return Seen(at=now(every=60), notes=len((await db.exec(select(Note.id))).all()))


@define_reactive_function
def minutely_sync(db: Session) -> Seen:
    """The same from a thread."""
    return Seen(at=now(every=60), notes=len(db.exec(select(Note.id)).all()))


@define_reactive_function
async def minute() -> datetime:
    """The minute alone."""
    return now(every=60)


@define_reactive_function(cache=Cache(ttl_seconds=90))
async def outside() -> int:
    """What no table tells."""
    OUTSIDE.append(len(OUTSIDE))
    return OUTSIDE[-1]


OUTSIDE: list[int] = []


@define_reactive_function.mutation
async def stamp(db: AsyncSession) -> datetime:
    """The minute, in a mutation."""
    return now(every=60)


FUNCTIONS: Functions = {
    "notes": {
        "minutely": minutely,
        "minutely_sync": minutely_sync,
        "minute": minute,
        "outside": outside,
        "stamp": stamp,
        "add": add,
    }
}
AT_FIRST = datetime(2027, 1, 15, 8, 0, tzinfo=UTC)


@pytest.mark.parametrize("path", ["notes.minutely", "notes.minutely_sync", "notes.minute"])
async def test_a_result_is_kept_until_its_tick(file: Path, path: str, caplog: pytest.LogCaptureFixture) -> None:
    """Then the handler runs again; a conditional request that names the result of before gets the new one, no 304."""
    clock = FakeClock()
    async with serving(file, FUNCTIONS, clock=clock) as server:
        with caplog.at_level(logging.WARNING):
            first = await server.client.get(f"/rpc/{path}")
            clock._now += 59
            same = await server.client.get(f"/rpc/{path}", headers={"if-none-match": first.headers["etag"]})
            assert same.status_code == 304
            assert server.rpc.admin.stats()["hits"] == 1
            clock._now += 1
            after = await server.client.get(f"/rpc/{path}", headers={"if-none-match": first.headers["etag"]})
        assert after.status_code == 200
        assert "2027-01-15T08:00:00Z" in first.text
        assert "2027-01-15T08:01:00Z" in after.text
        assert not caplog.records


async def test_a_change_ends_it_before_the_tick(file: Path) -> None:
    """What it read counts as ever."""
    async with serving(file, FUNCTIONS, clock=FakeClock()) as server:
        assert (await server.client.get("/rpc/notes.minutely")).json()["notes"] == 0
        await server.call("notes.add", {"room": "r", "text": "a"})
        assert (await server.client.get("/rpc/notes.minutely")).json()["notes"] == 1


async def test_what_calls_it_ends_with_it(file: Path) -> None:
    """The time that an inner query was told is part of what the outer one read."""
    clock = FakeClock()

    @define_reactive_function
    async def outer(db: AsyncSession) -> datetime:
        await db.exec(select(Note.id))
        found: datetime = await by_path(server.rpc)("notes.minute")
        return found

    functions = {"notes": {"minute": minute, "outer": outer}}
    async with serving(file, functions, clock=clock) as server:
        assert (await server.client.get("/rpc/notes.outer")).json() == "2027-01-15T08:00:00Z"
        assert (await server.client.get("/rpc/notes.outer")).json() == "2027-01-15T08:00:00Z"
        assert server.rpc.admin.stats()["hits"] == 1
        clock._now += MINUTE
        assert (await server.client.get("/rpc/notes.outer")).json() == "2027-01-15T08:01:00Z"


async def test_what_nothing_tells_of_is_kept_for_its_time_to_live(file: Path) -> None:
    """It can be watched too, and whoever does is told when its time is over."""
    clock = FakeClock()
    async with serving(file, FUNCTIONS, clock=clock) as server:
        asked = {"queries": [{"path": "notes.outside"}]}
        first = (await server.client.get("/rpc/notes.outside")).json()
        polled = (await server.client.post("/rpc/events/poll", json=asked)).json()
        assert polled["events"][0]["data"]["errors"] == []
        assert (await server.client.get("/rpc/notes.outside")).json() == first
        clock._now += 90
        assert (await server.client.get("/rpc/notes.outside")).json() == first + 1
        resumed = await server.client.post("/rpc/events/poll", json={**asked, "cursor": polled["cursor"]})
        assert [each["path"] for each in resumed.json()["events"][0]["data"]["stale"]] == ["notes.outside"]


async def test_a_mutation_is_told_the_time_and_nothing_more(file: Path) -> None:
    """By the same clock."""
    async with serving(file, FUNCTIONS, clock=FakeClock()) as server:
        assert (await server.call("notes.stamp")).json() == "2027-01-15T08:00:00Z"


async def test_outside_of_a_call_it_tells_the_time() -> None:
    """As in a unit test of the handler."""
    before = datetime.now(UTC)
    found = await minute()
    assert before - timedelta(minutes=1) < found <= datetime.now(UTC)
    assert (found.second, found.microsecond) == (0, 0)


@pytest.mark.parametrize("every", [0, 0.5, -60, float("nan"), float("inf"), True, "60"])
def test_a_tick_is_a_second_at_least(every: object) -> None:
    """At each one, what is watched is computed again."""
    with pytest.raises(DefinitionError, match="at least 1"):
        now(every=every)  # type: ignore[arg-type]  # what is refused
    with pytest.raises(DefinitionError, match="at least 1"):
        Cache(ttl_seconds=every)  # type: ignore[arg-type]  # what is refused


@define_reactive_function
async def secondly() -> datetime:
    """The second."""
    return now(every=1)


SECOND: Procedure[datetime] = Procedure(
    path="notes.secondly", url="/rpc/notes.secondly", method="GET", input=None, output=datetime
)


async def test_a_client_that_watches_sees_each_tick(file: Path) -> None:
    """Nobody writes anything: the stream tells of the tick, and what is fetched then is shown as fresh."""
    rpc = rpc_on(file, {"notes": {"secondly": secondly, "in_room": in_room}})
    shown: list[datetime] = []
    with running(app_of(rpc), goodbye_seconds=0) as url:
        async with AsyncClient(url) as client, client.watch(SECOND, {}) as live:
            async for state in live:
                if not state.is_stale and state.data is not None and state.data not in shown:
                    shown.append(state.data)
                if len(shown) == 3:
                    break
    assert shown == sorted(shown)
    assert {moment.microsecond for moment in shown} == {0}


@define_reactive_function
async def lately(db: AsyncSession) -> list[str]:
    """What Python's clock picks out."""
    since = datetime.now(UTC) - timedelta(seconds=2)
    return list((await db.exec(select(Note.text).where(Note.text > since.isoformat()))).all())


@pytest.mark.parametrize(("environment", "said"), [("development", 1), ("production", 0)])
async def test_in_development_a_query_that_asks_pythons_clock_is_told(
    file: Path, environment: str, said: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Its first hit is computed again, once; production audits the share that is asked for and no more."""
    functions = {"notes": {"lately": lately, "minutely": minutely}}
    async with serving(file, functions, settings={"environment": environment}) as server:
        with caplog.at_level(logging.ERROR):
            for _ in range(3):
                for path in ("notes.lately", "notes.minutely"):
                    assert (await server.client.get(f"/rpc/{path}")).status_code == 200
                await server.rpc.admin.auditor.drain()
        assert server.rpc.admin.stats()["audited"] == said
    found = [record.getMessage() for record in caplog.records]
    assert len(found) == said
    assert all("notes.lately" in each and "note.text with another value" in each for each in found)
