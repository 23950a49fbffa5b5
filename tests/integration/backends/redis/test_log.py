"""The log read from Redis while Redis, its connections or its relay fail."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import replace

import pytest

from reactive_rpc.backends.postgresql.log import PostgreSQLLog
from reactive_rpc.backends.redis.log import RedisLog
from reactive_rpc.backends.redis.stream import MAX_CARRIED_BYTES, AppendRequest, RedisStream, StreamEntry
from reactive_rpc.changes.captured_schema import CaptureState
from reactive_rpc.dependencies.change import Change
from reactive_rpc.errors import ServiceUnavailableError
from reactive_rpc.protocol.cursors import Cursor
from reactive_rpc.testing.postgresql import PostgreSQL, PostgreSQLServer
from reactive_rpc.testing.redis import RedisServer, redis_server
from tests.support.waiting import idle, until

from .rig import Edge, Rig, Writer, eventually, prepare

MakeRig = Callable[[str], Rig]


@pytest.fixture
def make_rig(postgresql: PostgreSQL, redis_namespace: str) -> Iterator[MakeRig]:
    """Return a function that returns the parts on a new database and the given Redis."""
    urls: list[str] = []

    def make(redis_url: str) -> Rig:
        urls.append(postgresql.new_database())
        prepare(urls[-1])
        return Rig(urls[-1], redis_url, redis_namespace)

    yield make
    for url in urls:
        postgresql.drop_database(url)


@pytest.fixture
def rig(make_rig: MakeRig, redis_server_url: str) -> Rig:
    """Return the parts on the server that all tests share."""
    return make_rig(redis_server_url)


async def fresh_again(edge: Edge) -> None:
    """Ask until there is an answer, and hold that nothing is missing by then."""
    await eventually(edge.log.sync_to_head, ServiceUnavailableError)
    assert not edge.missing
    assert edge.log.error is None


@pytest.mark.parametrize("append_only", [False, True])
def test_a_redis_that_is_killed(make_rig: MakeRig, append_only: bool) -> None:
    """`sync_to_head` fails meanwhile, and what was written is told afterwards; who had read all of it has no gap."""

    async def main(server: RedisServer) -> None:
        rig = make_rig(server.url)
        async with AsyncExitStack() as stack:
            writer = stack.enter_context(Writer(rig.url))
            relay = await stack.enter_async_context(rig.relaying())
            edge = await stack.enter_async_context(rig.edge(writer))
            old = edge.log.cursor_at(edge.log.version)
            writer.write()
            await edge.log.sync_to_head()
            server.stop(how="kill")
            writer.write()
            with pytest.raises(ServiceUnavailableError, match="Redis"):
                await edge.log.sync_to_head()
            await until(lambda: edge.log.error, "the log tells")
            await until(lambda: relay.status.role == "failing", "the relay tells")
            assert relay.status.reason
            server.start()
            writer.write()
            await fresh_again(edge)
            assert edge.flushes == []
            assert edge.first_received == [1, 2, 3]
            assert (await edge.log.read_after(old) is None) == (not append_only)

    with redis_server(append_only=append_only) as server:
        asyncio.run(main(server))


def test_a_redis_that_hangs(make_rig: MakeRig, own_redis: RedisServer) -> None:
    """Callers wait no longer than they were told to, and it goes on where it was."""

    async def main() -> None:
        rig = make_rig(own_redis.url)
        async with AsyncExitStack() as stack:
            writer, edge = await stack.enter_async_context(rig.relayed(timeout_seconds=0.5))
            own_redis.pause()
            writer.write()
            with pytest.raises(ServiceUnavailableError):
                await edge.log.sync_to_head()
            own_redis.resume()
            await fresh_again(edge)
            assert (edge.received, edge.flushes) == ([1], [])

    asyncio.run(main())


def test_connections_that_are_cut(make_rig: MakeRig, own_redis: RedisServer) -> None:
    """All of them, again and again, under a stream of writes: everything is told, and nothing is a gap."""

    async def main() -> None:
        rig = make_rig(own_redis.url)
        async with AsyncExitStack() as stack:
            client = await stack.enter_async_context(rig.client())
            writer, edge = await stack.enter_async_context(rig.relayed())
            for _ in range(10):
                for _ in range(5):
                    writer.write()
                    await idle(0.005, because="the connections are cut while some of this is on its way")
                await client.client_kill_filter(_type="normal", skipme=True)
            await fresh_again(edge)
            assert edge.flushes == []
            assert edge.first_received == sorted(writer.versions)

    asyncio.run(main())


@pytest.mark.parametrize("names", ["log", "state", "reports", "questions", "log state", "log state reports questions"])
def test_keys_that_are_deleted(rig: Rig, names: str) -> None:
    """By hand, or by a Redis that is full: it goes on, and what is not told is covered by a gap."""

    async def main() -> None:
        async with AsyncExitStack() as stack:
            client = await stack.enter_async_context(rig.client())
            writer, edge = await stack.enter_async_context(rig.relayed())
            for _ in range(5):
                writer.write()
                await client.delete(*map(rig.key, names.split()))
                writer.write()
                await fresh_again(edge)

    asyncio.run(main())


@pytest.mark.parametrize("left", [0, 1])
def test_an_edge_that_is_slower_than_the_stream_is_long(rig: Rig, left: int) -> None:
    """It is told that it has a gap, and goes on from there; a cursor of before is a gap too."""

    async def main() -> None:
        async with AsyncExitStack() as stack:
            client = await stack.enter_async_context(rig.client())
            writer, edge = await stack.enter_async_context(rig.relayed())
            old = edge.log.cursor_at(edge.log.version)
            edge.gate.clear()
            written = 0

            async def write_until_it_is_long() -> bool:
                nonlocal written
                written = writer.write()
                return bool(await client.xlen(rig.key("log")) >= 3)

            await until(write_until_it_is_long, "the stream does not grow")
            await client.xtrim(rig.key("log"), maxlen=left, approximate=False)
            await client.xtrim(rig.key("reports"), maxlen=1, approximate=False)  # small entries come with theirs
            edge.gate.set()
            await fresh_again(edge)
            flushes = list(edge.flushes)
            assert flushes
            assert await edge.log.read_after(old) is None
            writer.write()
            await fresh_again(edge)
            assert edge.received[-1] == written + 1
            assert edge.flushes == flushes

    asyncio.run(main())


def _applied_in_spite_of_a_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    applied = RedisLog._is_applied

    def joined(self: RedisLog, entry: StreamEntry, state: CaptureState) -> bool:
        return applied(self, replace(entry, prev=min(entry.prev, self._version)), state)

    monkeypatch.setattr(RedisLog, "_is_applied", joined)


@pytest.mark.seeded_bug
def test_an_entry_that_does_not_join_on_is_found(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a log that applies each entry that it meets, whatever lies between."""
    _applied_in_spite_of_a_gap(monkeypatch)
    with pytest.raises(AssertionError):
        test_an_edge_that_is_slower_than_the_stream_is_long(rig, left=1)


@pytest.mark.parametrize(("rows", "is_read"), [(1, False), (500, True)])
def test_a_small_entry_comes_with_its_report(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, rows: int, is_read: bool
) -> None:
    """So a commit costs a worker, and Redis, no question; a large entry is read, and no report is long."""
    read: list[int] = []
    entries = RedisStream.entries

    async def noted(self: RedisStream, after: int, until: int) -> list[StreamEntry]:
        read.append(after)
        return await entries(self, after, until)

    async def main() -> None:
        async with AsyncExitStack() as stack:
            client = await stack.enter_async_context(rig.client())
            writer, edge = await stack.enter_async_context(rig.relayed())
            monkeypatch.setattr(RedisStream, "entries", noted)
            writer.connection.execute("INSERT INTO w SELECT i, 0 FROM generate_series(1, %s) i", [rows])
            await edge.log.sync_to_head()
            assert edge.received == list(range(1, rows + 1))
            assert bool(read) is is_read
            reports = await client.xrange(rig.key("reports"))
            assert all(len(part) <= MAX_CARRIED_BYTES for _, fields in reports for part in fields.values())

    asyncio.run(main())


def test_no_relay(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is answered, the message names it, and with the next relay everything goes on."""
    monkeypatch.setattr("reactive_rpc.backends.redis.log.OPEN_SECONDS", 0.0)
    monkeypatch.setattr("reactive_rpc.backends.redis.log.SILENCE_SECONDS", 0.3)

    async def main() -> None:
        async with AsyncExitStack() as stack:
            writer = stack.enter_context(Writer(rig.url))
            with pytest.raises(ServiceUnavailableError, match="relay"):
                await stack.enter_async_context(rig.edge(writer, timeout_seconds=0.2))
            async with rig.relaying() as relay:
                await until(lambda: relay.status.role == "leading", "it leads")
                edge = await stack.enter_async_context(rig.edge(writer, timeout_seconds=1.0))
                await edge.log.sync_to_head()
            writer.write()
            with pytest.raises(ServiceUnavailableError, match="relay"):
                await edge.log.sync_to_head()
            await until(lambda: "relay" in (edge.log.error or ""), "the log tells")
            async with rig.relaying():
                await eventually(edge.log.sync_to_head, ServiceUnavailableError)
            assert (edge.received, edge.flushes) == ([1], [])

    asyncio.run(main())


def test_a_database_that_crashes(own_postgresql: PostgreSQLServer, redis_server_url: str, redis_namespace: str) -> None:
    """What had been seen may be undone: every edge flushes into the new epoch."""

    async def main() -> None:
        url = own_postgresql.new_database()
        prepare(url)
        rig = Rig(url, redis_server_url, redis_namespace)
        async with AsyncExitStack() as stack:
            writer = stack.enter_context(Writer(url))
            await stack.enter_async_context(rig.relaying())
            edge = await stack.enter_async_context(rig.edge(writer))
            writer.write()
            await edge.log.sync_to_head()
            old = edge.log.cursor_at(edge.log.version)
            own_postgresql.stop(how="kill")
            with pytest.raises(ServiceUnavailableError):
                await edge.log.sync_to_head()
            own_postgresql.start()
            await until(lambda: edge.flushes, "the edge flushes")
            await fresh_again(edge)
            assert edge.log.epoch == edge.log.schema.epoch != old.epoch
            assert edge.flushes[0] > old.version
            assert await edge.log.read_after(old) is None

    asyncio.run(main())


class ByHand:
    """A relay that says what it is told to."""

    def __init__(self, rig: Rig, edge: Edge) -> None:
        self.stream = rig.stream()
        self.end = Cursor(edge.log.epoch, edge.log.version)

    async def append(
        self, epoch: str, version: int, schema_fingerprint: str, changes: list[Change], *, restart: bool
    ) -> None:
        """Append what is requested and answer every question."""
        end = await self.stream.end()
        answered = await self.stream.take_questions(0.01)
        request = AppendRequest(Cursor(epoch, version), schema_fingerprint, changes, restart=restart)
        assert await self.stream.advance(end, request, answered) is None


async def edge_without_relay(stack: AsyncExitStack, rig: Rig) -> Edge:
    """Return an edge that stands at the end, with the relay gone."""
    writer = stack.enter_context(Writer(rig.url))
    async with rig.relaying():
        return await stack.enter_async_context(rig.edge(writer, timeout_seconds=0.3))


def test_versions_that_went_back(rig: Rig) -> None:
    """A restored database: nothing is answered before it has passed where we were, and then all is flushed."""

    async def main() -> None:
        async with AsyncExitStack() as stack:
            edge = await edge_without_relay(stack, rig)
            relay = ByHand(rig, edge)
            stack.push_async_callback(relay.stream.aclose)
            version, schema_fingerprint = edge.log.version, str(edge.log.schema.schema_fingerprint)
            restored = (await asyncio.to_thread(rig.capture().refresh, renew=True)).epoch
            await relay.append(restored, version - 5, schema_fingerprint, [], restart=True)
            await until(lambda: "went back" in (edge.log.error or ""), "the log tells")
            with pytest.raises(ServiceUnavailableError, match="followed"):
                await edge.log.sync_to_head()
            assert edge.flushes == []
            await relay.append(restored, version + 5, schema_fingerprint, [], restart=False)
            await until(lambda: edge.flushes == [version + 5], "the edge flushes")
            assert (edge.log.epoch, edge.log.version) == (restored, version + 5)

    asyncio.run(main())


@pytest.mark.parametrize("relayed", [True, False])
def test_an_outage_is_not_remembered(
    own_postgresql: PostgreSQLServer, own_redis: RedisServer, redis_namespace: str, relayed: bool
) -> None:
    """However often `sync_to_head` fails, no error keeps the one before, with all that stood in its frames."""

    async def main() -> None:
        url = own_postgresql.new_database()
        prepare(url)
        rig = Rig(url, own_redis.url, redis_namespace)
        async with AsyncExitStack() as stack:
            log: RedisLog | PostgreSQLLog
            if relayed:
                writer = stack.enter_context(Writer(rig.url))
                async with rig.relaying():
                    log = (await stack.enter_async_context(rig.edge(writer))).log
                own_redis.stop(how="kill")
            else:
                log = rig.outbox_log()
                await log.open()
                stack.push_async_callback(log.aclose)
                own_postgresql.stop(how="kill")
            for _ in range(20):
                with pytest.raises(ServiceUnavailableError):
                    await log.sync_to_head()
            gc.collect()
            assert sum(isinstance(kept, ServiceUnavailableError) for kept in gc.get_objects()) < 10

    asyncio.run(main())


def test_an_answer_that_the_last_report_does_not_cover(rig: Rig) -> None:
    """After the state was lost, a slower relay begins anew further back: what another has answered is asked again."""

    async def main() -> None:
        async with AsyncExitStack() as stack:
            writer = stack.enter_context(Writer(rig.url))
            async with rig.relaying():
                edge = await stack.enter_async_context(rig.edge(writer, timeout_seconds=2.0))
            relay = ByHand(rig, edge)
            stack.push_async_callback(relay.stream.aclose)
            client = await stack.enter_async_context(rig.client())
            epoch, version, schema_fingerprint = (
                edge.log.epoch,
                edge.log.version,
                str(edge.log.schema.schema_fingerprint),
            )
            edge.gate.clear()
            await relay.append(epoch, version, schema_fingerprint, [], restart=False)
            asking = asyncio.create_task(edge.log.sync_to_head())
            answered = await relay.stream.take_questions(5.0)
            request = AppendRequest(
                Cursor(epoch, version + 10), schema_fingerprint, [Change(table="w", operation="bulk")]
            )
            assert await relay.stream.advance(await relay.stream.end(), request, answered) is None
            await client.delete(rig.key("state"))
            assert (
                await relay.stream.advance(
                    None, AppendRequest(Cursor(epoch, version), schema_fingerprint, restart=True)
                )
                is None
            )
            edge.gate.set()
            with pytest.raises(ServiceUnavailableError):
                await asking

    asyncio.run(main())


def test_images_of_another_schema(rig: Rig) -> None:
    """What was decoded by a schema that is not ours counts as a change of the whole table."""

    async def main() -> None:
        async with AsyncExitStack() as stack:
            edge = await edge_without_relay(stack, rig)
            received: list[Change] = []
            edge.log.subscribe(lambda batch: received.extend(batch.changes))
            relay = ByHand(rig, edge)
            stack.push_async_callback(relay.stream.aclose)
            change = Change(table="w", operation="insert", after={"id": 1})
            version, epoch = edge.log.version, edge.log.epoch
            await relay.append(epoch, version + 1, "another", [change, change], restart=False)
            await relay.append(epoch, version + 2, str(edge.log.schema.schema_fingerprint), [change], restart=False)
            await until(lambda: edge.log.version == version + 2, "both are applied")
            assert received == [Change(table="w", operation="bulk"), change]

    asyncio.run(main())


def test_many_changes_after_a_cursor(rig: Rig) -> None:
    """They are told as one bulk change a table, as the database itself would tell them."""

    async def main() -> None:
        async with AsyncExitStack() as stack:
            writer, edge = await stack.enter_async_context(rig.relayed(bulk_threshold=3))
            cursors = []
            for _ in range(5):
                cursors.append(edge.log.cursor_at(edge.log.version))
                writer.write()
                await edge.log.sync_to_head()
            assert await edge.log.read_after(cursors[0]) == (Change(table="w", operation="bulk"),)
            assert len(await edge.log.read_after(cursors[2]) or ()) == 3

    asyncio.run(main())


def test_a_commit_comes_by_itself(rig: Rig) -> None:
    """Nobody asks, and it is told all the same."""

    async def main() -> None:
        async with AsyncExitStack() as stack:
            writer, edge = await stack.enter_async_context(rig.relayed())
            writer.write()
            await until(lambda: edge.received == [1], "it is told")

    asyncio.run(main())
