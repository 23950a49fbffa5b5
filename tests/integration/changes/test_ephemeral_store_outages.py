"""The ephemeral stores on servers, when these stop, hang and come back, and what PostgreSQL's must not disturb."""

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
from reactive_rpc.changes.ephemeral_store import Budget, EphemeralStore
from reactive_rpc.clock import RandomIds
from reactive_rpc.errors import CaptureError, ServiceUnavailableError
from reactive_rpc.testing.postgresql import PostgreSQLServer
from reactive_rpc.testing.redis import RedisServer
from tests.support.waiting import until

pytestmark = pytest.mark.anyio

ROLE = "store_reader"


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


async def _recovers(store: EphemeralStore) -> None:
    """Wait until the ephemeral store works again.

    Raises:
        AssertionError: it does not.
    """

    async def works() -> bool:
        with suppress(ServiceUnavailableError):
            await store.put("ack", {"again": b"1"}, ttl_seconds=60)
            return True
        return False

    await until(works)
    assert await store.take("ack", ["again"]) == {"again": b"1"}


async def _refuses(store: EphemeralStore) -> None:
    """Every call says within seconds that the ephemeral store is out of reach."""
    began = time.monotonic()
    with pytest.raises(ServiceUnavailableError):
        await store.put("ack", {"a": b"1"}, ttl_seconds=60)
    with pytest.raises(ServiceUnavailableError):
        await store.get("ack", "a")
    with pytest.raises(ServiceUnavailableError):
        await store.take("ack", ["a"])
    assert time.monotonic() < began + 10


async def test_redis_stops_and_comes_back(own_redis: RedisServer, stack: AsyncExitStack) -> None:
    """Meanwhile every call says so; afterwards the ephemeral store works, empty."""
    store = RedisEphemeralStore(own_redis.url, "test")
    stack.push_async_callback(store.aclose)
    await store.put("set", {"a": b"1"}, ttl_seconds=60)
    own_redis.stop(how="kill")
    await _refuses(store)
    own_redis.start()
    await _recovers(store)
    assert await store.get("set", "a") is None


async def test_a_redis_that_hangs_holds_nobody_up(own_redis: RedisServer, stack: AsyncExitStack) -> None:
    """Each call gives up by itself; when the server goes on, no answer meant for another call is mistaken for one."""
    store = RedisEphemeralStore(own_redis.url, "test", operation_seconds=0.2)
    stack.push_async_callback(store.aclose)
    await store.put("set", {"a": b"1", "b": b"2"}, ttl_seconds=60)
    own_redis.pause()
    await _refuses(store)
    with pytest.raises(ServiceUnavailableError):
        await store.get("set", "b")
    own_redis.resume()
    await _recovers(store)
    assert await store.get("set", "a") == b"1"


async def test_postgresql_stops_and_comes_back(own_postgresql: PostgreSQLServer, stack: AsyncExitStack) -> None:
    """Meanwhile every call says so; a clean stop keeps the entries, a crash may lose them."""
    url = own_postgresql.new_database()
    _capture(url).install()
    store = PostgreSQLEphemeralStore(make_url(url))
    stack.push_async_callback(store.aclose)
    await store.put("set", {"a": b"1"}, ttl_seconds=60)
    own_postgresql.stop()
    await _refuses(store)
    own_postgresql.start()
    assert await store.get("set", "a") == b"1"
    own_postgresql.stop(how="kill")
    await _refuses(store)
    own_postgresql.start()
    await _recovers(store)
    assert await store.get("set", "a") is None


async def test_a_connection_that_is_cut_is_made_anew(postgresql_url: str, stack: AsyncExitStack) -> None:
    """The call that meets it succeeds."""
    _capture(postgresql_url).install()
    store = PostgreSQLEphemeralStore(make_url(postgresql_url))
    stack.push_async_callback(store.aclose)
    await store.put("set", {"a": b"1"}, ttl_seconds=60)
    _execute(
        postgresql_url,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE application_name = 'reactive_rpc ephemeral store'",
    )
    assert await store.get("set", "a") == b"1"


async def test_a_call_that_is_given_up_spoils_no_other(postgresql_url: str, stack: AsyncExitStack) -> None:
    """Cancelled while a lock holds it up: the next call gets its own answer."""
    _capture(postgresql_url).install()
    store = PostgreSQLEphemeralStore(make_url(postgresql_url))
    stack.push_async_callback(store.aclose)
    await store.put("set", {"a": b"1"}, ttl_seconds=60)
    with psycopg.connect(libpq_url(make_url(postgresql_url))) as holder:
        holder.execute("LOCK TABLE reactive_rpc.ephemeral_store IN ACCESS EXCLUSIVE MODE")
        for _ in range(3):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await store.get("set", "a")
    assert await store.get("set", "a") == b"1"


async def test_crossing_writers_do_not_wait_for_each_other(postgresql_url: str, stack: AsyncExitStack) -> None:
    """Puts and takes of the same keys in opposite orders, from three workers: no deadlock, no error."""
    _capture(postgresql_url).install()
    stores = [PostgreSQLEphemeralStore(make_url(postgresql_url)) for _ in range(3)]
    for store in stores:
        stack.push_async_callback(store.aclose)
    keys = [f"k{n}" for n in range(50)]

    async def write(store: PostgreSQLEphemeralStore, order: list[str]) -> None:
        for _ in range(30):
            await store.put("ack", dict.fromkeys(order, b"1"), ttl_seconds=60)
            await store.take("ack", order[::-1])

    await asyncio.gather(*(write(store, order) for store in stores for order in (keys, keys[::-1])))


async def test_whoever_frees_space_waits_for_nobody(postgresql_url: str, stack: AsyncExitStack) -> None:
    """An entry that somebody else has locked is left, and another is freed in its place next time."""
    _capture(postgresql_url).install()
    budget = Budget(max_bytes=20_000, max_bytes_per_owner=3_000)
    store = PostgreSQLEphemeralStore(make_url(postgresql_url), budget=budget)
    stack.push_async_callback(store.aclose)
    await store.put("set", {"old": b"1" * 1000}, ttl_seconds=60, owner="ada")
    with psycopg.connect(libpq_url(make_url(postgresql_url))) as holder:
        holder.execute("SELECT * FROM reactive_rpc.ephemeral_store FOR UPDATE")
        await store.put("set", {"new": b"2" * 2500}, ttl_seconds=60, owner="ada")
        assert await store.get("set", "new") == b"2" * 2500
    await store.put("set", {"newer": b"3" * 10}, ttl_seconds=60, owner="ada")
    assert await store.get("set", "old") is None


async def test_the_ephemeral_store_is_no_matter_of_the_log(postgresql_url: str, stack: AsyncExitStack) -> None:
    """What is written there reaches no outbox, the epoch outlives its TRUNCATE, and uninstalling takes it away."""
    _execute(postgresql_url, "CREATE TABLE t (id int PRIMARY KEY)")
    state = _capture(postgresql_url).install()
    before = _execute(postgresql_url, "SELECT count(*) FROM reactive_rpc.outbox")
    store = PostgreSQLEphemeralStore(make_url(postgresql_url))
    stack.push_async_callback(store.aclose)
    await store.put("ack", {"a": b"1"}, ttl_seconds=60)
    await store.take("ack", ["a"])
    assert _execute(postgresql_url, "SELECT count(*) FROM reactive_rpc.outbox") == before
    assert "ephemeral_store" not in " ".join(state.tables)
    _execute(postgresql_url, "TRUNCATE reactive_rpc.ephemeral_store")
    again: CaptureState = _capture(postgresql_url).install()
    assert again.epoch == state.epoch
    _capture(postgresql_url).uninstall()
    assert _execute(postgresql_url, "SELECT 1 FROM pg_class WHERE relname = 'ephemeral_store'") == []
    with pytest.raises(ServiceUnavailableError, match="the ephemeral store cannot be reached") as refused:
        await store.get("ack", "a")
    assert re.search("has no ephemeral store: run `reactive-rpc db install`", str(refused.value.__cause__))


async def test_a_role_that_owns_nothing_is_told_what_it_lacks(postgresql_url: str, stack: AsyncExitStack) -> None:
    """Without rights each call names the way out; with what the script grants, all calls work."""
    _capture(postgresql_url).install()
    _execute(
        postgresql_url,
        f"DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{ROLE}') THEN CREATE ROLE {ROLE} LOGIN;"
        " END IF; END $$",
    )
    url = make_url(postgresql_url).set(username=ROLE)
    store = PostgreSQLEphemeralStore(url)
    stack.push_async_callback(store.aclose)
    with pytest.raises(ServiceUnavailableError, match="the ephemeral store cannot be reached") as refused:
        await store.get("ack", "a")
    assert re.search("rights are missing .* `reactive-rpc db install --sql`", str(refused.value.__cause__))
    with pytest.raises(CaptureError) as uninstallable:
        PostgreSQLCapture(url, ids=RandomIds()).install()
    grants = [line for line in str(uninstallable.value).splitlines() if line.startswith("GRANT")]
    assert any("reactive_rpc.ephemeral_store" in line for line in grants)
    _execute(postgresql_url, *grants)
    await _recovers(store)
    assert PostgreSQLCapture(url, ids=RandomIds(), manage=False).install().epoch
