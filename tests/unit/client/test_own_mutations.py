"""Own mutations with optimistic updates: what shows while they are under way, and in which order they are sent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial

import httpx
import pytest
from pydantic import BaseModel

from reactive_rpc.client import AsyncClient, Procedure, State, SyncClient, Watch
from reactive_rpc.client.live import HOLD_SECONDS
from reactive_rpc.errors import ConflictError, ConnectionFailedError, InternalServerError, ServiceUnavailableError
from tests.support.waiting import until

from .fake_server import FakeServer, running
from .watching import GET, FakeClock, is_fresh, pass_time_until, play, watching


class Amount(BaseModel):
    """The input of `items.add`."""

    name: str
    by: int


ADD: Procedure[int] = Procedure(path="items.add", url="/rpc/items/add", method="POST", input=Amount, output=int)


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with running(FakeServer()) as server:
        yield server


def add(
    client: AsyncClient, by: int = 1, *, shows: int | None = None, name: str = "a", in_parallel: bool = False
) -> asyncio.Task[int]:
    """Add to an item, and show it at once; `shows` is what is expected, where that is wrong."""
    seen_as = by if shows is None else shows
    update = client.bind(GET, {"name": name}).changed(lambda value: value + seen_as)
    arguments = {"name": name, "by": by}
    return asyncio.create_task(client.call(ADD, arguments, optimistic=update, in_parallel=in_parallel))


def hold_adds(server: FakeServer) -> asyncio.Event:
    """Let the answers of mutations wait; return what `release` lets go."""
    server.hold_adds = asyncio.Event()
    return server.hold_adds


def release(server: FakeServer, held: asyncio.Event) -> None:
    server.hold_adds = None
    server.do(held.set)


@asynccontextmanager
async def frames_of(live: Watch[int]) -> AsyncIterator[list[State[int]]]:
    """Collect the states that the watch shows."""
    frames: list[State[int]] = [live.state]

    async def collect() -> None:
        async for state in live:
            frames.append(state)

    task = asyncio.create_task(collect())
    try:
        yield frames
    finally:
        task.cancel()
        await asyncio.wait([task])


def values_of(frames: list[State[int]]) -> list[int | None]:
    """Return the values that were shown, each run of one as one."""
    values = [frame.data for frame in frames]
    return [value for value, before in zip(values, [object(), *values], strict=False) if value != before]


def test_it_shows_at_once_and_never_twice(server: FakeServer) -> None:
    """Also where the result that contains it overtakes the mutation's own answer: that result waits."""

    async def scenario() -> None:
        held = hold_adds(server)
        async with watching(server, "a") as (client, live), frames_of(live) as frames:
            task = add(client)
            await until(lambda: len(server.fetches) == 2 and not live.state.is_loading)
            assert live.state.data == 2
            assert live.state.is_pending
            assert live.state.is_stale
            release(server, held)
            assert await task == 2
            assert live.state == State(2, is_stale=False, is_loading=False, error=None)
        assert values_of(frames) == [1, 2]
        assert len(server.fetches) == 2

    play(scenario)


def test_it_shows_until_a_result_contains_it(server: FakeServer) -> None:
    """Its own answer is not enough: the results that are held lack it until a fetch brings it."""

    async def scenario() -> None:
        async with watching(server, "a") as (client, live), frames_of(live) as frames:
            server.hold = asyncio.Event()
            assert await add(client) == 2
            assert (live.state.data, live.state.is_pending) == (2, True)
            server.do(server.hold.set)
            await until(lambda: is_fresh(live, 2))
        assert values_of(frames) == [1, 2]

    play(scenario)


def test_a_refusal_rolls_back(server: FakeServer) -> None:
    """To what is true, without a fetch; the caller gets the error."""

    async def scenario() -> None:
        async with watching(server, "a") as (client, live), frames_of(live) as frames:
            server.refuse_adds = ConflictError("somebody was faster")
            with pytest.raises(ConflictError):
                await add(client)
            assert live.state == State(1, is_stale=False, is_loading=False, error=None)
            await until(lambda: values_of(frames)[-1] == 1)
        assert len(server.fetches) == 1

    play(scenario)


def test_one_that_changes_nothing_leaves_by_its_version(server: FakeServer) -> None:
    """No event will ever tell of it, and no fetch is needed: the stream has told all up to that version."""

    async def scenario() -> None:
        async with watching(server, "a") as (client, live):
            await add(client, 0, shows=5)
            assert is_fresh(live, 1)
        assert len(server.fetches) == 1

    play(scenario)


def test_two_that_touch_one_query_are_sent_in_their_order(server: FakeServer) -> None:
    """The second waits for the first one's answer; both show at once. One that waits and is given up lets none past."""

    async def scenario() -> None:
        held = hold_adds(server)
        async with watching(server, "a") as (client, live):
            first = add(client, 1)
            await until(lambda: server.adds == [1])
            second, third, other = add(client, 10), add(client, 100), add(client, 5, name="b")
            await until(lambda: live.state.data == 112)
            await until(lambda: server.adds == [1, 5])
            second.cancel()
            await until(lambda: live.state.data == 102)
            assert server.adds == [1, 5]
            release(server, held)
            await asyncio.gather(first, third, other)
            assert server.adds == [1, 5, 100]
            await until(lambda: is_fresh(live, 102))

    play(scenario)


def test_one_in_parallel_takes_no_turn(server: FakeServer) -> None:
    """It waits for none, and what shows is as right."""

    async def scenario() -> None:
        held = hold_adds(server)
        async with watching(server, "a") as (client, live), frames_of(live) as frames:
            first = add(client, 1)
            await until(lambda: server.adds == [1])
            second = add(client, 10, in_parallel=True)
            await until(lambda: server.adds == [1, 10])
            release(server, held)
            await asyncio.gather(first, second)
            await until(lambda: is_fresh(live, 12))
        assert set(values_of(frames)) <= {1, 2, 12}

    play(scenario)


@pytest.mark.parametrize("is_done", [True, False])
def test_where_no_answer_came_it_shows_until_a_fetch_tells(server: FakeServer, is_done: bool) -> None:
    """Nobody knows whether it was done, so it is not rolled back before somebody does."""

    async def scenario() -> None:
        async with watching(server, "a") as (client, live), frames_of(live) as frames:
            if is_done:
                server.cut_adds = True
            else:
                server.refuse_adds = InternalServerError("a proxy's own words")
            with pytest.raises((ConnectionFailedError, InternalServerError)):
                await add(client)
            await until(lambda: is_fresh(live, 2 if is_done else 1))
            await until(lambda: frames[-1] is live.state)
        assert values_of(frames) == ([1, 2] if is_done else [1, 2, 1])
        assert len(server.fetches) >= 2

    play(scenario)


class NoWayOut(httpx.AsyncHTTPTransport):
    """A network on which no mutation leaves this machine."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Refuse the connection."""
        if request.url.path == ADD.url:
            raise httpx.ConnectError("no route")
        return await super().handle_async_request(request)


def test_what_was_never_sent_is_rolled_back_at_once(server: FakeServer) -> None:
    """No connection came about, so nothing was done: no fetch has to tell."""

    async def scenario() -> None:
        async with httpx.AsyncClient(transport=NoWayOut()) as http, watching(server, "a", http=http) as (client, live):
            with pytest.raises(ConnectionFailedError):
                await add(client)
            assert live.state == State(1, is_stale=False, is_loading=False, error=None)
        assert len(server.fetches) == 1

    play(scenario)


class HoldClock(FakeClock):
    """Time that stands still for results that wait, and passes at once otherwise.

    Attributes:
        holds: those that wait, each of which the test may end.
    """

    def __init__(self) -> None:
        super().__init__()
        self.holds: list[asyncio.Event] = []

    async def sleep(self, seconds: float) -> None:
        """Wait for the test if it is for a result that waits."""
        if seconds == HOLD_SECONDS:
            self.holds.append(asyncio.Event())
            await self.holds[-1].wait()
        await asyncio.sleep(0)


def test_one_that_hangs_does_not_hold_the_news_for_ever(server: FakeServer) -> None:
    """After a while the newest result shows, under the mutation; once that is answered, alone."""

    async def scenario() -> None:
        clock, held = HoldClock(), hold_adds(server)
        async with watching(server, "a", clock=clock, events="sse") as (client, live):
            task = add(client)
            await until(lambda: clock.holds)
            server.change("a", 50)
            await until(lambda: len(server.fetches) > 2 and not live.state.is_loading)
            assert live.state.data == 2
            clock.holds[0].set()
            await until(lambda: live.state.data == 51)
            release(server, held)
            await task
            await until(lambda: is_fresh(live, 50))
            assert len(clock.holds) == 1

    play(scenario)


def test_each_result_that_waits_has_the_whole_time(server: FakeServer) -> None:
    """A wait that ends well leaves no bound behind that would cut the next one short."""

    async def scenario() -> None:
        clock = HoldClock()
        async with watching(server, "a", clock=clock, events="sse") as (client, live):
            for number in range(2):
                held = hold_adds(server)
                task = add(client)
                await until(partial(has_held, clock, number + 1))
                assert live.state.data == number + 2
                release(server, held)
                await task
                await until(partial(is_fresh, live, number + 2))

    play(scenario)


def has_held(clock: HoldClock, times: int) -> bool:
    """Whether so many results have waited so far."""
    return len(clock.holds) == times


def test_another_caller_sees_nothing_of_it(server: FakeServer) -> None:
    """What the former one has made does not show any more, whatever its answer."""

    async def scenario() -> None:
        held = hold_adds(server)
        async with watching(server, "a") as (client, live):
            task = add(client, 0, shows=5)
            await until(lambda: live.state.data == 6)
            client.set_token("another")
            assert live.state.data == 1
            release(server, held)
            await task
            await until(lambda: is_fresh(live, 1))

    play(scenario)


def test_an_update_that_fails_shows_nothing(server: FakeServer, caplog: pytest.LogCaptureFixture) -> None:
    """The mutation is made all the same, and the log says what was wrong."""

    async def scenario() -> None:
        async with watching(server, "a") as (client, live):
            update = client.bind(GET, {"name": "a"}).changed(lambda value: value // 0)
            assert await client.call(ADD, {"name": "a", "by": 1}, optimistic=update) == 2
            await until(lambda: is_fresh(live, 2))

    play(scenario)
    assert "the optimistic update" in caplog.text


def test_several_queries_and_some_that_nobody_shows(server: FakeServer) -> None:
    """One mutation may show in several; a query that nobody holds is not fetched for its sake."""

    async def scenario() -> None:
        async with watching(server, "a") as (client, live), client.watch(GET, {"name": "b"}) as other:
            await until(lambda: is_fresh(other, 1))
            updates = [client.bind(GET, {"name": name}).changed(lambda value: value + 1) for name in "abc"]
            held = hold_adds(server)
            task = asyncio.create_task(client.call(ADD, {"name": "a", "by": 1}, optimistic=updates))
            await until(lambda: live.state.data == other.state.data == 2)
            release(server, held)
            await task
            await until(lambda: is_fresh(other, 1))
            await until(lambda: is_fresh(live, 2))
        assert {name for name, _ in server.fetches} == {"a", "b"}

    play(scenario)


def test_before_the_first_result_an_update_changes_nothing(server: FakeServer) -> None:
    """The change is called with a result, and not with None for there is none."""

    async def scenario() -> None:
        server.hold = asyncio.Event()
        async with AsyncClient(server.url) as client, client.watch(GET, {"name": "a"}) as live:
            held = hold_adds(server)
            task = add(client)
            await until(lambda: server.adds == [1])
            assert (live.state.data, live.state.is_pending) == (None, True)
            release(server, held)
            await task
            server.do(server.hold.set)
            await until(lambda: is_fresh(live, 2))

    play(scenario)


def test_it_works_without_async(server: FakeServer) -> None:
    """The synchronous client does the same."""
    with SyncClient(server.url) as client, client.watch(GET, {"name": "a"}) as live:
        assert next(state for state in live if not state.is_stale).data == 1
        update = client.bind(GET, {"name": "a"}).changed(lambda value: value + 1)
        assert client.call(ADD, {"name": "a", "by": 1}, optimistic=update, in_parallel=True) == 2
        assert live.state.data == 2
        assert next(state for state in live if not state.is_stale and not state.is_pending).data == 2


@pytest.mark.parametrize("is_streaming", [True, False])
def test_a_fetch_that_fails_is_tried_again_after_pauses(server: FakeServer, is_streaming: bool) -> None:
    """One that is over wants a fetch until one succeeds: the pauses grow, and only news of the query ends one early."""

    async def scenario() -> None:
        clock = FakeClock()
        async with watching(server, "a", clock=clock, events="sse") as (client, live):
            if not is_streaming:
                server.refuse_streams = ServiceUnavailableError("no streams")
                server.send(server.open_streams[0], b"")
                await until(lambda: live.state.is_stale and clock.pauses)
            paused, fetched = len(clock.pauses), len(server.fetches)
            server.refuse_fetches, server.refuse_adds = ServiceUnavailableError("busy"), InternalServerError("lost")
            with pytest.raises(InternalServerError):
                await add(client)
            await until(lambda: len(clock.pauses) > paused)
            assert len(server.fetches) == fetched + 1
            with pytest.raises(InternalServerError):
                await add(client, name="b")  # of another query: no news of this one
            assert (len(server.fetches), live.state.is_loading) == (fetched + 1, False)
            assert live.state.is_pending
            with pytest.raises(InternalServerError):
                await add(client)
            await until(lambda: len(clock.pauses) > paused + 1)
            assert len(server.fetches) == fetched + 2
            server.refuse_fetches = None
            await pass_time_until(clock, lambda: live.state.data == 1)
            assert not live.state.is_pending
            assert len(server.fetches) == fetched + 3

    play(scenario)
