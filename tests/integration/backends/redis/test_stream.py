"""The stream in Redis: compare and append, what counts as missing, questions and reports."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from reactive_rpc.backends.redis.connection import PATIENCE_SECONDS, connect_redis
from reactive_rpc.backends.redis.stream import AppendRequest, RedisStream, Refusal
from reactive_rpc.dependencies.change import Change
from reactive_rpc.protocol.cursors import Cursor
from reactive_rpc.tasks import end_task

Work = Callable[[RedisStream, Any], Awaitable[None]]
Run = Callable[..., None]


def at(version: int, epoch: str = "e") -> Cursor:
    """Return a place."""
    return Cursor(epoch, version, f"{version}:{version}:")


def rows(*ids: int) -> list[Change]:
    """Return inserted rows, of two scopes."""
    return [Change(table="t", operation="insert", after={"id": id_, "team": id_ % 2}) for id_ in ids]


@pytest.fixture(params=["server", "server with shards", "cluster with shards"])
def run(request: pytest.FixtureRequest, redis_namespace: str) -> Run:
    """Return a function that runs `work(stream, client)`."""
    url = request.getfixturevalue("redis_cluster_url" if "cluster" in request.param else "redis_server_url")
    shards = 4 if "shards" in request.param else 1

    @asynccontextmanager
    async def opened(max_entries: int, max_age_seconds: float) -> AsyncIterator[tuple[RedisStream, Any]]:
        options: dict[str, Any] = {"shards": shards, "scope_column": "team", "max_entries": max_entries}
        options["max_age_seconds"] = max_age_seconds
        stream, client = RedisStream(url, redis_namespace, **options), connect_redis(url)
        try:
            yield stream, client
        finally:
            await stream.aclose()
            await client.aclose()

    def run(work: Work, *, max_entries: int = 1_000, max_age_seconds: float = 3600.0) -> None:
        async def main() -> None:
            async with opened(max_entries, max_age_seconds) as (stream, client):
                await work(stream, client)

        asyncio.run(main())

    return run


@pytest.fixture
def log_key(redis_namespace: str) -> str:
    return f"{{{redis_namespace}}}:log"


async def begun(stream: RedisStream, *steps: tuple[int, list[Change]]) -> None:
    """Begin a stream at version 10 and append steps."""
    assert await stream.advance(None, AppendRequest(at(10), "m", restart=True)) is None
    end = at(10)
    for version, changes in steps:
        assert await stream.advance(end, AppendRequest(at(version), "m", changes)) is None
        end = at(version)


def test_entries_are_forgotten_for_their_age(run: Run, log_key: str) -> None:
    """While reports come, what is too old goes one by one, and what is younger stays readable."""

    async def work(stream: RedisStream, client: Any) -> None:
        await begun(stream, (12, rows(1)), (13, rows(2)))
        times = log_key.replace(":log", ":times")
        assert await client.lrange(times, 1, 1) == [b"12"]
        await client.lset(times, 0, 1)  # as if the first had come in 1970
        assert await stream.advance(at(13), AppendRequest(at(14), "m", rows(3))) is None
        assert [entry.version for entry in await stream.entries(0, 14)] == [13, 14]
        await client.lset(times, 0, 1)
        assert await stream.advance(at(14), AppendRequest(at(15), "m")) is None
        assert [entry.version for entry in await stream.entries(0, 15)] == [14]

    run(work)


def test_without_a_relay_contents_expire(run: Run, log_key: str) -> None:
    """Nobody forgets entries one by one then: they all go, so long after the last."""

    async def work(stream: RedisStream, client: Any) -> None:
        await begun(stream, (12, rows(1)))
        kept = [
            await client.pttl(key)
            async for key in client.scan_iter(f"{log_key.split(':', 1)[0]}*")
            if await client.type(key) == b"stream" and b":reports" not in key
        ]
        assert kept
        assert all(0 < milliseconds <= 120_000 for milliseconds in kept)
        end = await stream.end()
        assert end is not None
        assert end.version == 12

    run(work, max_age_seconds=60.0)


def test_only_who_knows_the_end_may_append(run: Run) -> None:
    """All others are told where it is, and change nothing."""

    async def work(stream: RedisStream, client: Any) -> None:
        assert await stream.end() is None
        assert await stream.advance(at(10), AppendRequest(at(11), "m", rows(1))) == Refusal(None)
        await begun(stream, (12, rows(1)))
        for end in (None, at(10), at(11), at(13), at(12, "other")):
            assert await stream.advance(end, AppendRequest(at(20), "m", rows(2))) == Refusal(at(12))
        assert await stream.end() == at(12)
        assert [entry.version for entry in await stream.entries(0, 100)] == [12]

    run(work)


def test_a_claim_that_is_refused_is_seen(run: Run) -> None:
    """Whoever appends learns that one who claims the stream was refused; others' refusals say nothing."""

    async def work(stream: RedisStream, client: Any) -> None:
        await begun(stream, (12, rows(1)))
        assert stream.claimed == b""
        assert await stream.advance(at(10), AppendRequest(at(11), "m")) == Refusal(at(12))
        assert await stream.advance(at(12), AppendRequest(at(12), "m")) is None
        assert stream.claimed == b""
        assert await stream.advance(at(10), AppendRequest(at(11), "m"), claim=True) == Refusal(at(12))
        assert await stream.advance(at(12), AppendRequest(at(13), "m")) is None
        first = stream.claimed
        assert first
        assert await stream.advance(at(10), AppendRequest(at(11), "m"), claim=True) == Refusal(at(13))
        assert await stream.advance(at(13), AppendRequest(at(13), "m")) is None
        assert stream.claimed > first

    run(work)


def test_entries_join_on(run: Run) -> None:
    """Each names the one before it; a step without changes moves the end and adds none."""

    async def work(stream: RedisStream, client: Any) -> None:
        await begun(stream, (12, rows(1, 2, 3)), (15, []), (17, rows(4)))
        entries = await stream.entries(10, 17)
        assert [(entry.prev, entry.version, entry.epoch, entry.schema_fingerprint) for entry in entries] == [
            (10, 12, "e", "m"),
            (12, 17, "e", "m"),
        ]
        assert [list(entry.changes or ()) for entry in entries] == [rows(1, 2, 3), rows(4)]
        assert [entry.version for entry in await stream.entries(12, 17)] == [17]
        assert await stream.entries(12, 16) == []
        report = await stream.last_report()
        assert report is not None
        assert (report.epoch, report.version, report.top) == ("e", 17, 17)

    run(work)


def test_a_stream_begun_anew_is_empty(run: Run) -> None:
    """Also at a version below the one before, as that of another epoch may be."""

    async def work(stream: RedisStream, client: Any) -> None:
        await begun(stream, (12, rows(1)))
        assert await stream.advance(at(12), AppendRequest(at(5, "f"), "m", restart=True)) is None
        assert await stream.entries(0, 100) == []
        assert await stream.advance(at(5, "f"), AppendRequest(at(6, "f"), "m", rows(2))) is None
        (entry,) = await stream.entries(0, 100)
        assert (entry.prev, entry.version) == (5, 6)

    run(work)


def test_what_strangers_write_is_no_entry(run: Run, log_key: str) -> None:
    """It has no changes, so it is something missed; and where it is in the way, the stream begins anew."""

    async def work(stream: RedisStream, client: Any) -> None:
        await begun(stream, (12, rows(1)))
        await client.xadd(log_key, {"changes": "?"}, id="13-0")
        assert [entry.changes is None for entry in await stream.entries(10, 13)] == [False, True]
        await client.xadd(log_key, {"a": "b"}, id="1000000-0")
        assert await stream.advance(at(12), AppendRequest(at(14), "m", rows(2))) is None
        assert await stream.entries(0, 100) == []
        report = await stream.last_report()
        assert report is not None
        assert (report.version, report.top) == (14, 14)

    run(work)


@pytest.mark.parametrize("how", ["deleted", "overwritten"])
def test_a_part_that_is_gone_is_missed(how: str, redis_cluster_url: str, redis_namespace: str) -> None:
    """Its node may have lost it, and given its id to another."""

    async def main() -> None:
        stream = RedisStream(redis_cluster_url, redis_namespace, shards=2, scope_column="team")
        client: Any = connect_redis(redis_cluster_url)
        try:
            await begun(stream, (12, rows(1, 2)))
            (entry,) = await stream.entries(10, 12)
            assert entry.changes is not None
            parts = [f"{{{redis_namespace}:{shard}}}:part" for shard in range(2)]
            (part, *_) = [key for key in parts if await client.exists(key)]
            ((id_, fields),) = await client.xrange(part)
            await client.delete(part)
            if how == "overwritten":
                await client.xadd(part, {**fields, b"label": b"another"}, id=id_)
            (entry,) = await stream.entries(10, 12)
            assert entry.changes is None
        finally:
            await stream.aclose()
            await client.aclose()

    asyncio.run(main())


def test_old_entries_go(run: Run) -> None:
    """About as many as asked for are kept; the first that is left tells what it joins on to."""

    async def work(stream: RedisStream, client: Any) -> None:
        await begun(stream, *((11 + number, rows(number)) for number in range(250)))
        entries = await stream.entries(0, 1_000)
        assert entries[0].prev == entries[0].version - 1 > 10

    run(work, max_entries=100)


def test_questions_are_taken_once(run: Run) -> None:
    """In order; who waits is woken by the first; a report names those that it answers."""

    async def work(stream: RedisStream, client: Any) -> None:
        assert await stream.take_questions(0.01) == []
        waiting = asyncio.create_task(stream.take_questions(30.0))
        await stream.ask("a")
        assert await waiting == ["a"]
        for question in "bcd":
            await stream.ask(question)
        assert await stream.take_questions(30.0) == ["b", "c", "d"]
        assert await stream.take_questions(0.01) == []
        await begun(stream)
        first = await stream.last_report()
        assert first is not None
        reading = asyncio.create_task(stream.reports_after(first.id, 30.0))
        assert await stream.advance(at(10), AppendRequest(at(10), "m"), ["b", "c"]) is None
        assert [report.answered for report in await reading] == [frozenset("bc")]

    run(work)


def test_waiting_ends(run: Run) -> None:
    """With nothing, after the time that was given."""

    async def work(stream: RedisStream, client: Any) -> None:
        began = time.monotonic()
        assert await stream.reports_after(b"0", 0.05) == []
        assert await stream.last_report() is None
        assert time.monotonic() - began >= 0.05

    run(work)


def test_a_task_that_failed_is_taken_note_of() -> None:
    """Its owner ends for what it failed of: nothing is said of an error that nobody retrieved."""

    async def fail() -> None:
        raise ConnectionError

    async def main() -> None:
        failures: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: failures.append(context))
        task = asyncio.create_task(fail())
        await asyncio.wait([task])
        await end_task(task, patience_seconds=PATIENCE_SECONDS)
        del task
        gc.collect()
        assert failures == []

    asyncio.run(main())
