"""Results that the stream brings: shown without a fetch, and never in the place of a newer one."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from reactive_rpc.client import State
from reactive_rpc.errors import ServiceUnavailableError
from reactive_rpc.protocol.events import Result
from tests.support.waiting import until

from .fake_server import FakeServer, running
from .watching import GET, FakeClock, fresh, play, shown, watching


@pytest.fixture
def server() -> Iterator[FakeServer]:
    """A server on a free port."""
    with running(FakeServer()) as fake:
        yield fake


def test_a_pushed_result_is_shown_without_a_fetch(server: FakeServer) -> None:
    """It is fresh at once, acknowledged, and its ETag confirms it on the next stream."""

    async def scenario() -> None:
        async with watching(server, "a") as (client, live):
            server.push("a", 2)
            await shown(live, fresh(2))
            await until(lambda: server.acks and server.acks[-1].cursor == "e:1")
            async with client.watch(GET, {"name": "b"}) as other:
                await shown(other, fresh(1))
                assert [query.etag for query in server.open_streams[-1].request.queries] == ['"2"', '"1"']
        assert server.fetches == [("a", 200), ("b", 200)]

    play(scenario)


def test_the_answer_that_a_pushed_result_overtook_does_not_count(server: FakeServer) -> None:
    """A fetch that was under way may bring an older result: nothing older is shown after the pushed one."""

    async def scenario() -> None:
        async with watching(server, "a") as (_, live):
            hold = server.hold = asyncio.Event()
            server.change("a", 2)
            await until(lambda: len(server.tokens) == 2)  # this fetch has read 2 and is held
            server.push("a", 3)
            state = await shown(live, lambda state: state.data == 3)
            assert not state.is_stale
            server.do(hold.set)
            await shown(live, fresh(3))
            assert server.fetches == [("a", 200), ("a", 200)]

    play(scenario)


def test_an_older_result_that_comes_late_is_not_shown(server: FakeServer) -> None:
    """The answer to a fetch reflects version 2; the result of version 1, sent before and heard after, is the past."""

    async def scenario() -> None:
        async with watching(server, "a") as (_, live):
            server.change("a", 2)
            server.change("a", 4)
            await shown(live, fresh(4))
            late = Result(
                cursor="e:2", path="items.get", key="items.get:a", etag='"2"', version="e:1", data=2, event_id="late"
            )
            server.tell("a", late)
            await until(lambda: server.acks and server.acks[-1].cursor == "e:2")
            server.push("a", 5)
            seen = []
            async for state in live:
                seen.append(state.data)
                if state == State(5, is_stale=False, is_loading=False, error=None):
                    break
            assert 2 not in seen

    play(scenario)


def test_a_result_without_a_version_is_fetched(server: FakeServer) -> None:
    """Nobody can tell whether it is the later one: the answer to a fetch is."""

    async def scenario() -> None:
        async with watching(server, "a") as (_, live):
            server.values["a"] = 2
            result = Result(cursor="e:1", path="items.get", key="items.get:a", etag='"3"', data=3, event_id="r")
            server.tell("a", result)
            await shown(live, fresh(2))
        assert server.fetches == [("a", 200), ("a", 200)]

    play(scenario)


def test_what_is_told_after_a_pushed_result_is_fetched_although_a_fetch_was_running(server: FakeServer) -> None:
    """Invalidated, pushed, invalidated again while one fetch runs: another follows, and brings the last value."""

    async def scenario() -> None:
        async with watching(server, "a") as (_, live):
            hold = server.hold = asyncio.Event()
            server.change("a", 2)
            await until(lambda: len(server.tokens) == 2)
            server.push("a", 3)
            await shown(live, lambda state: state.data == 3)
            server.change("a", 4)
            await shown(live, lambda state: state.data == 3 and state.is_stale)
            server.do(hold.set)
            await shown(live, fresh(4))

    play(scenario)


@pytest.mark.parametrize("broken", [{"data": "no number"}, {"key": "unheard of"}])
def test_a_result_that_cannot_be_taken_is_fetched(server: FakeServer, broken: dict[str, str]) -> None:
    """One of another shape, or under a key that nobody announced, counts as an invalidation."""

    async def scenario() -> None:
        async with watching(server, "a") as (_, live):
            server.values["a"] = 2
            result = Result(cursor="e:1", path="items.get", key="items.get:a", etag='"2"', data=2, event_id="r")
            server.tell("a", result.model_copy(update=broken))
            await shown(live, fresh(2))
        assert server.fetches == [("a", 200), ("a", 200)]

    play(scenario)


def test_a_repeated_result_that_is_not_remembered_is_not_believed(server: FakeServer) -> None:
    """It may be older than what came after it: the query is fetched instead."""

    async def scenario() -> None:
        async with watching(server, "a") as (_, live):
            server.push("a", 3)
            await shown(live, fresh(3))
            old = Result(cursor="e:0", path="items.get", key="items.get:a", etag='"2"', data=2, event_id="?", retry=1)
            server.tell("a", old)
            seen = []
            async for state in live:
                seen.append(state.data)
                if not state.is_stale:
                    break
            assert set(seen) == {3}
        assert server.fetches == [("a", 200), ("a", 304)]

    play(scenario)


def test_a_pushed_result_mends_a_failed_fetch(server: FakeServer) -> None:
    """What the stream brings while a failed fetch waits for its next try is right: the error goes, no try follows."""
    clock = FakeClock()

    async def scenario() -> None:
        async with watching(server, "a", clock=clock) as (_, live):
            server.refuse_fetches = ServiceUnavailableError("busy")
            server.change("a", 2)
            await shown(live, lambda state: state.error is not None)
            await until(lambda: clock.pauses)
            server.refuse_fetches = None
            server.push("a", 3)
            await shown(live, fresh(3))
            clock.pass_time()
            server.change("a", 4)
            await shown(live, fresh(4))
        assert server.fetches == [("a", 200), ("a", 503), ("a", 200)]

    play(scenario)
