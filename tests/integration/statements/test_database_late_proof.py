"""A query's snapshot is asked for as its transaction ends: that of what it has read, or none.

A handler reads, then does something to its transaction or its connection, others commit, and it reads again. Whatever
it does, the version that is noted is the one that its first statement saw, or the query must be run again.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest
from sqlalchemy import literal, make_url, select, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from reactive_rpc.backends.postgresql import database as postgresql_database
from reactive_rpc.backends.postgresql.capture.backend import PostgreSQLCapture
from reactive_rpc.backends.postgresql.database import PostgreSQLDatabase, _ReadingConnection
from reactive_rpc.backends.postgresql.locks import ASK_SHOWN, Shown
from reactive_rpc.clock import RandomIds
from reactive_rpc.dependencies.schema import Schema
from reactive_rpc.errors import ServiceUnavailableError
from reactive_rpc.statements.faults import UnprovenError
from reactive_rpc.statements.recorder import Recorder

pytestmark = pytest.mark.anyio

DRIVERS = ["postgresql+asyncpg", "postgresql+psycopg"]
READ: Any = select(literal(1))
FAILS: Any = select(literal(1) / literal(0))

KILL = """
SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity
WHERE datname = current_database() AND state = 'idle in transaction'
"""

Way = Callable[[AsyncSession, "Place"], Awaitable[None]]


@dataclass(slots=True)
class Place:
    """A database, with somebody else on it."""

    database: PostgreSQLDatabase
    schema: Schema
    other: psycopg.Connection[Any]

    def commit(self) -> None:
        """Commit something."""
        self.other.execute("SELECT pg_current_xact_id()")

    def version(self) -> int:
        """Return the one that a snapshot shows which is taken now."""
        return Shown.read(str(self.other.execute(ASK_SHOWN.encode()).fetchone()[0])).version  # type: ignore[index]


async def reads(session: AsyncSession, place: Place) -> None:
    """Read on."""


async def runs_text(session: AsyncSession, place: Place) -> None:
    await session.execute(text("SELECT 1"))


async def commits_by_text(session: AsyncSession, place: Place) -> None:
    await session.execute(text("COMMIT"))


async def chains_by_text(session: AsyncSession, place: Place) -> None:
    await session.execute(text("ROLLBACK AND CHAIN"))


async def ends_within_an_operator(session: AsyncSession, place: Place) -> None:
    """Send text where SQLAlchemy has the sign of an operator; only psycopg sends several statements at once."""
    with suppress(DBAPIError):
        await session.execute(select(literal(1, literal_execute=True).op("; COMMIT; SELECT -")(literal_one())))


def literal_one() -> Any:
    return literal(1, literal_execute=True)


async def rolls_back(session: AsyncSession, place: Place) -> None:
    await session.rollback()


async def commits(session: AsyncSession, place: Place) -> None:
    await (await session.connection()).commit()


async def closes(session: AsyncSession, place: Place) -> None:
    await (await session.connection()).close()


async def invalidates(session: AsyncSession, place: Place) -> None:
    await (await session.connection()).invalidate()


async def uses_driver(session: AsyncSession, place: Place) -> None:
    raw = (await (await session.connection()).get_raw_connection()).driver_connection
    assert raw is not None
    await raw.execute("ROLLBACK")


async def fails(session: AsyncSession, place: Place) -> None:
    with suppress(DBAPIError):
        await session.execute(FAILS)


async def fails_in_savepoint(session: AsyncSession, place: Place) -> None:
    savepoint = await session.begin_nested()
    with suppress(DBAPIError):
        await session.execute(FAILS)
    await savepoint.rollback()


async def leaves_savepoint(session: AsyncSession, place: Place) -> None:
    savepoint = await session.begin_nested()
    await session.execute(READ)
    await savepoint.rollback()


async def is_killed(session: AsyncSession, place: Place) -> None:
    place.other.execute(KILL)


PROVED: list[Way] = [
    reads,
    runs_text,
    commits_by_text,
    chains_by_text,
    ends_within_an_operator,
    fails_in_savepoint,
    leaves_savepoint,
]
UNPROVED: list[Way] = [rolls_back, commits, closes, invalidates, uses_driver, fails, is_killed]


@pytest.fixture(params=DRIVERS)
async def place(request: pytest.FixtureRequest, postgresql_url: str) -> AsyncIterator[Place]:
    """Return a database on each driver."""
    url = make_url(postgresql_url)
    schema = PostgreSQLCapture(url, ids=RandomIds()).install()
    database = PostgreSQLDatabase(url.set(drivername=request.param), pool_size=2, pool_timeout_seconds=5.0)
    libpq = url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(libpq, autocommit=True) as other:
        yield Place(database, schema, other)
    await database.aclose()


async def notes_what_was_seen(place: Place, way: Way, *, is_repeatable: bool) -> bool:
    """Tell whether the version that is noted of a handler that goes this way is the one that its first statement saw.

    Raises:
        UnprovenError: it must be run again.
    """
    recorder = Recorder(place.schema)
    around: list[int] = []

    async def handle(session: AsyncSession) -> Callable[[], None]:
        around.append(place.version())
        await session.execute(READ)
        around.append(place.version())
        place.commit()
        await way(session, place)
        with suppress(SQLAlchemyError):
            await session.execute(READ)
        return lambda: None

    await place.database.read(recorder, handle, at_least=0, session_class=AsyncSession, is_repeatable=is_repeatable)
    earliest, latest = around
    if not is_repeatable:
        earliest = 0  # it was asked for before
    return recorder.shows is not None and earliest <= recorder.shows <= latest


@pytest.mark.parametrize("way", PROVED, ids=lambda way: way.__name__)
async def test_the_version_that_is_noted_is_that_of_the_first_read(place: Place, way: Way) -> None:
    """Also if the handler has ended its transaction since, by a text: it was asked for before."""
    assert await notes_what_was_seen(place, way, is_repeatable=True)


@pytest.mark.parametrize("way", UNPROVED, ids=lambda way: way.__name__)
async def test_what_cannot_be_proved_any_more_is_to_be_run_again(place: Place, way: Way) -> None:
    """Its transaction has ended, or failed, or its connection is lost; and the next query has a good one."""
    with pytest.raises(UnprovenError) as found:
        await notes_what_was_seen(place, way, is_repeatable=True)
    assert found.value.by_handler is (way not in (invalidates, is_killed))
    assert await notes_what_was_seen(place, reads, is_repeatable=True)


@pytest.mark.parametrize("way", [*PROVED, *UNPROVED], ids=lambda way: way.__name__)
async def test_what_cannot_be_run_again_is_proved_first(place: Place, way: Way) -> None:
    """Whatever it then does, the version is known."""
    assert await notes_what_was_seen(place, way, is_repeatable=False)


async def test_a_snapshot_of_the_past_is_not_accepted(place: Place) -> None:
    """Of a database that was put back: it is to be run again, and proved first; no connection shows more."""

    async def handle(session: AsyncSession) -> Callable[[], None]:
        await session.execute(READ)
        return lambda: None

    for is_repeatable, error in ((True, UnprovenError), (False, ServiceUnavailableError)):
        with pytest.raises(error, match="earlier state"):
            await place.database.read(
                Recorder(place.schema),
                handle,
                at_least=10**15,
                session_class=AsyncSession,
                is_repeatable=is_repeatable,
            )


@pytest.mark.seeded_bug
@pytest.mark.parametrize("way", [rolls_back, commits], ids=lambda way: way.__name__)
async def test_a_proof_of_another_transaction_is_found(place: Place, way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    """A handler's end of its transaction that is not noticed: a later snapshot passes for the one that was read."""
    monkeypatch.setattr(_ReadingConnection, "has_ended", property(lambda _: False, lambda _self, _value: None))
    assert not await notes_what_was_seen(place, way, is_repeatable=True)


@pytest.mark.seeded_bug
async def test_a_text_that_is_not_asked_before_is_found(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The text ends the transaction, and the driver begins another, or none."""
    monkeypatch.setattr(postgresql_database, "_may_end_transaction", lambda *_: False)
    assert not await notes_what_was_seen(place, chains_by_text, is_repeatable=True)
