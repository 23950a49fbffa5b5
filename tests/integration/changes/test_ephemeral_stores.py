"""The boards on servers, when these stop, hang and come back, and what PostgreSQL's must not disturb."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress

import psycopg
import pytest
from sqlalchemy import make_url

from reactive_rpc.backends.postgresql.capture.backend import PostgreSQLCapture
from reactive_rpc.backends.postgresql.ephemeral_store import PostgreSQLEphemeralStore
from reactive_rpc.backends.postgresql.url import libpq_url
from reactive_rpc.backends.redis.ephemeral_store import RedisEphemeralStore
from reactive_rpc.changes.captured_schema import CaptureState
from reactive_rpc.changes.ephemeral_store import EphemeralStore
from reactive_rpc.clock import RandomIds
from reactive_rpc.errors import CaptureError, ServiceUnavailableError
from reactive_rpc.testing.postgresql import PostgreSQLServer
from reactive_rpc.testing.redis import RedisServer
from tests.support.waiting import until

pytestmark = pytest.mark.anyio

ROLE = "board_reader"


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


def _capture(url: str, *, manage: bool = True) -> PostgreSQLCapture:
    return PostgreSQLCapture(make_url(url), ids=RandomIds(), manage=manage)


def _execute(url: str, *statements: str) -> list[tuple[object, ...]]:
    """Run statements as the superuser and return the rows of the last."""
    with psycopg.connect(libpq_url(make_url(url)), autocommit=True) as connection:
        for statement in statements:
            cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


async def _recovers(board: EphemeralStore) -> None:
    """Wait until the board works again.

    Raises:
        AssertionError: it does not.
    """

    async def works() -> bool:
        with suppress(ServiceUnavailableError):
            await board.put("ack", {"again": b"1"}, ttl_seconds=60)
            return True
        return False

    await until(works)
    assert await board.take("ack", ["again"]) == {"again": b"1"}


async def _refuses(board: EphemeralStore) -> None:
    """Every call says within seconds that the board is out of reach."""
    began = time.monotonic()
    with pytest.raises(ServiceUnavailableError):
        await board.put("ack", {"a": b"1"}, ttl_seconds=60)
    with pytest.raises(ServiceUnavailableError):
        await board.get("ack", "a")
    with pytest.raises(ServiceUnavailableError):
        await board.take("ack", ["a"])
    assert time.monotonic() < began + 10


async def test_redis_stops_and_comes_back(own_redis: RedisServer, stack: AsyncExitStack) -> None:
    """Meanwhile every call says so; afterwards the board works, empty."""
    board = RedisEphemeralStore(own_redis.url, "test")
    stack.push_async_callback(board.aclose)
    await board.put("set", {"a": b"1"}, ttl_seconds=60)
    own_redis.stop(how="kill")
    await _refuses(board)
    own_redis.start()
    await _recovers(board)
    assert await board.get("set", "a") is None


async def test_a_redis_that_hangs_holds_nobody_up(own_redis: RedisServer, stack: AsyncExitStack) -> None:
    """Each call gives up by itself; when the server goes on, no answer meant for another call is mistaken for one."""
    board = RedisEphemeralStore(own_redis.url, "test", operation_seconds=0.2)
    stack.push_async_callback(board.aclose)
    await board.put("set", {"a": b"1", "b": b"2"}, ttl_seconds=60)
    own_redis.pause()
    await _refuses(board)
    with pytest.raises(ServiceUnavailableError):
        await board.get("set", "b")
    own_redis.resume()
    await _recovers(board)
    assert await board.get("set", "a") == b"1"


async def test_postgresql_stops_and_comes_back(own_postgresql: PostgreSQLServer, stack: AsyncExitStack) -> None:
    """Meanwhile every call says so; a clean stop keeps the entries, a crash may lose them."""
    url = own_postgresql.new_database()
    _capture(url).install()
    board = PostgreSQLEphemeralStore(make_url(url))
    stack.push_async_callback(board.aclose)
    await board.put("set", {"a": b"1"}, ttl_seconds=60)
    own_postgresql.stop()
    await _refuses(board)
    own_postgresql.start()
    assert await board.get("set", "a") == b"1"
    own_postgresql.stop(how="kill")
    await _refuses(board)
    own_postgresql.start()
    await _recovers(board)
    assert await board.get("set", "a") is None


async def test_a_connection_that_is_cut_is_made_anew(postgresql_url: str, stack: AsyncExitStack) -> None:
    """The call that meets it succeeds."""
    _capture(postgresql_url).install()
    board = PostgreSQLEphemeralStore(make_url(postgresql_url))
    stack.push_async_callback(board.aclose)
    await board.put("set", {"a": b"1"}, ttl_seconds=60)
    _execute(
        postgresql_url,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'reactive_rpc board'",
    )
    assert await board.get("set", "a") == b"1"


async def test_a_call_that_is_given_up_spoils_no_other(postgresql_url: str, stack: AsyncExitStack) -> None:
    """Cancelled while a lock holds it up: the next call gets its own answer."""
    _capture(postgresql_url).install()
    board = PostgreSQLEphemeralStore(make_url(postgresql_url))
    stack.push_async_callback(board.aclose)
    await board.put("set", {"a": b"1"}, ttl_seconds=60)
    with psycopg.connect(libpq_url(make_url(postgresql_url))) as holder:
        holder.execute("LOCK TABLE reactive_rpc.board IN ACCESS EXCLUSIVE MODE")
        for _ in range(3):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await board.get("set", "a")
    assert await board.get("set", "a") == b"1"


async def test_crossing_writers_do_not_wait_for_each_other(postgresql_url: str, stack: AsyncExitStack) -> None:
    """Puts and takes of the same keys in opposite orders, from three workers: no deadlock, no error."""
    _capture(postgresql_url).install()
    boards = [PostgreSQLEphemeralStore(make_url(postgresql_url)) for _ in range(3)]
    for board in boards:
        stack.push_async_callback(board.aclose)
    keys = [f"k{n}" for n in range(50)]

    async def write(board: PostgreSQLEphemeralStore, order: list[str]) -> None:
        for _ in range(30):
            await board.put("ack", dict.fromkeys(order, b"1"), ttl_seconds=60)
            await board.take("ack", order[::-1])

    await asyncio.gather(*(write(board, order) for board in boards for order in (keys, keys[::-1])))


async def test_the_board_is_no_matter_of_the_log(postgresql_url: str, stack: AsyncExitStack) -> None:
    """What is written there reaches no outbox, the epoch outlives its TRUNCATE, and uninstalling takes it away."""
    _execute(postgresql_url, "CREATE TABLE t (id int PRIMARY KEY)")
    state = _capture(postgresql_url).install()
    before = _execute(postgresql_url, "SELECT count(*) FROM reactive_rpc.outbox")
    board = PostgreSQLEphemeralStore(make_url(postgresql_url))
    stack.push_async_callback(board.aclose)
    await board.put("ack", {"a": b"1"}, ttl_seconds=60)
    await board.take("ack", ["a"])
    assert _execute(postgresql_url, "SELECT count(*) FROM reactive_rpc.outbox") == before
    assert "board" not in " ".join(state.tables)
    _execute(postgresql_url, "TRUNCATE reactive_rpc.board")
    again: CaptureState = _capture(postgresql_url).install()
    assert again.epoch == state.epoch
    _capture(postgresql_url).uninstall()
    assert _execute(postgresql_url, "SELECT 1 FROM pg_class WHERE relname = 'board'") == []
    with pytest.raises(ServiceUnavailableError, match="the board cannot be reached") as refused:
        await board.get("ack", "a")
    assert re.search("has no board: run `reactive-rpc db install`", str(refused.value.__cause__))


async def test_a_role_that_owns_nothing_is_told_what_it_lacks(postgresql_url: str, stack: AsyncExitStack) -> None:
    """Without rights each call names the way out; with what the script grants, all calls work."""
    _capture(postgresql_url).install()
    _execute(
        postgresql_url,
        f"DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{ROLE}') THEN CREATE ROLE {ROLE} LOGIN;"
        " END IF; END $$",
    )
    url = make_url(postgresql_url).set(username=ROLE)
    board = PostgreSQLEphemeralStore(url)
    stack.push_async_callback(board.aclose)
    with pytest.raises(ServiceUnavailableError, match="the board cannot be reached") as refused:
        await board.get("ack", "a")
    assert re.search("rights are missing .* `reactive-rpc db install --sql`", str(refused.value.__cause__))
    with pytest.raises(CaptureError) as uninstallable:
        PostgreSQLCapture(url, ids=RandomIds()).install()
    grants = [line for line in str(uninstallable.value).splitlines() if line.startswith("GRANT")]
    assert any("reactive_rpc.board" in line for line in grants)
    _execute(postgresql_url, *grants)
    await _recovers(board)
    assert PostgreSQLCapture(url, ids=RandomIds(), manage=False).install().epoch
