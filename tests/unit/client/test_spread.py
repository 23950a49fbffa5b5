"""More watches than one stream may carry: which stream watches what, and what is said where there is no room."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reactive_rpc.client import AsyncClient, Watch
from reactive_rpc.client.spread import HEAD_BYTES, SetLimits, Spread
from reactive_rpc.errors import PayloadTooLargeError, TooManyRequestsError
from reactive_rpc.protocol.events import StreamLimits
from tests.support.waiting import until

from .fake_server import FakeServer, running
from .watching import GET, is_fresh, play


@dataclass(frozen=True)
class Query:
    """A query of a size."""

    name: int
    query_bytes: int


QUERIES = st.lists(st.builds(Query, st.integers(0, 40), st.sampled_from([10, 100, 400])), max_size=40, unique=True)
LIMITS = st.builds(SetLimits, st.integers(1, 12), st.integers(HEAD_BYTES + 1, HEAD_BYTES + 900), st.integers(1, 9))


@given(st.lists(st.tuples(QUERIES, LIMITS), min_size=1, max_size=6))
def test_each_query_is_on_one_lane_that_has_room_for_it(steps: list[tuple[list[Query], SetLimits]]) -> None:
    """Whatever the sets and limits were before: each query once, each lane within the limits, and left over only what
    no lane has room for.
    """
    spread: Spread[Query] = Spread()
    for queries, limits in steps:
        lanes, left_over = spread.assign(queries, limits)
        placed = [query for lane in lanes for query in lane]
        assert sorted(map(repr, [*placed, *left_over])) == sorted(map(repr, queries))
        used = [lane for lane in lanes if lane]
        assert all(limits.take(len(lane), sum(query.query_bytes for query in lane)) for lane in used)
        if left_over:
            assert len(lanes) >= limits.lanes
            open_lanes = lanes[: limits.lanes]
            assert not any(
                limits.take(len(lane) + 1, sum(query.query_bytes for query in (*lane, query)))
                for lane in open_lanes
                for query in left_over
            )


@given(QUERIES, LIMITS)
def test_a_query_stays_on_its_lane(queries: list[Query], limits: SetLimits) -> None:
    """One more, or one less, changes one lane; unless half a lane has become enough for all."""
    spread: Spread[Query] = Spread()
    before, _ = spread.assign(queries, limits)
    one_more = Query(99, 10)
    after, left_over = spread.assign([*queries, one_more], limits)
    changed = [lane for number, lane in enumerate(after) if number >= len(before) or lane != before[number]]
    if sum(map(bool, after)) > 1:
        assert len(changed) == (0 if one_more in left_over else 1)


def test_what_has_become_little_is_gathered() -> None:
    """When most watches have gone, the rest needs one stream."""
    spread: Spread[Query] = Spread()
    queries = [Query(number, 10) for number in range(30)]
    lanes, _ = spread.assign(queries, SetLimits(queries=10))
    assert [len(lane) for lane in lanes] == [10, 10, 10]
    lanes, _ = spread.assign(queries[::6], SetLimits(queries=10))
    assert [len(lane) for lane in lanes] == [5]


@pytest.fixture
def server() -> Iterator[FakeServer]:
    """A server on a free port."""
    with running(FakeServer()) as fake:
        yield fake


async def watches(stack: AsyncExitStack, client: AsyncClient, *names: str) -> dict[str, Watch[int]]:
    """Watch items."""
    return {name: await stack.enter_async_context(client.watch(GET, {"name": name})) for name in names}


def all_fresh(found: dict[str, Watch[int]], server: FakeServer) -> bool:
    return all(is_fresh(watch, server.values[name]) for name, watch in found.items())


def test_watches_are_spread_over_as_many_streams_as_the_server_wants(server: FakeServer) -> None:
    """The limits come with the first stream; then all are live, each on one stream, and stay right."""
    names = [f"n{number}" for number in range(25)]
    server.values |= dict.fromkeys(names, 1)
    server.limits = StreamLimits(queries=10, body_bytes=10**6, streams=100)

    async def scenario() -> None:
        async with AsyncClient(server.url) as client, AsyncExitStack() as stack:
            found = await watches(stack, client, *names)
            await until(lambda: all_fresh(found, server))
            await until(lambda: sorted(len(stream.names) for stream in server.open_streams) == [5, 10, 10])
            await until(lambda: all_fresh(found, server))
            assert sorted(name for stream in server.open_streams for name in stream.names) == sorted(names)
            for name in ("n0", "n12", "n24"):
                server.change(name, 2)
            await until(lambda: all_fresh(found, server))

    play(scenario)


def test_a_proxy_that_takes_less_is_found_out_by_halving(server: FakeServer) -> None:
    """413 without a word about why: the set is halved until it passes, also when it was taken whole before."""
    names = [f"n{number}" for number in range(20)]
    server.values |= dict.fromkeys(names, 1)

    async def scenario() -> None:
        async with AsyncClient(server.url, random=lambda: 0.0) as client, AsyncExitStack() as stack:
            found = await watches(stack, client, *names)
            await until(lambda: all_fresh(found, server) and len(server.open_streams) == 1)
            server.max_queries = 6
            server.send(server.open_streams[0], None)
            await until(lambda: all_fresh(found, server) and len(server.open_streams) > 3)
            assert all(len(stream.names) <= 6 for stream in server.open_streams)
            server.change("n19", 2)
            await until(lambda: all_fresh(found, server))

    play(scenario)


@given(st.integers(2, 3000), st.integers(1, 5000))
def test_half_of_a_set_that_was_refused_is_taken(queries: int, query_bytes: int) -> None:
    """Whatever was wrong with it, its number or its size: the limits of half of it have room for half of it."""
    halved = SetLimits().halved(queries, queries * query_bytes)
    assert halved.take(queries // 2, queries // 2 * query_bytes)
    assert not halved.take(queries, queries * query_bytes)


def test_a_query_that_is_too_large_alone_takes_no_other_down(server: FakeServer) -> None:
    """Its own error says so; the others are live. Another caller's is tried again."""
    names = ["a", "b", "large"]
    server.values |= dict.fromkeys(names, 1)
    server.too_large = {"large"}

    async def scenario() -> None:
        async with AsyncClient(server.url, random=lambda: 0.0) as client, AsyncExitStack() as stack:
            found = await watches(stack, client, *names)
            large = found.pop("large")
            await until(lambda: all_fresh(found, server) and isinstance(large.state.error, PayloadTooLargeError))
            assert (large.state.data, large.state.is_stale) == (1, True)
            server.too_large = set()
            client.set_token("new")
            await until(lambda: is_fresh(large, 1) and all_fresh(found, server))

    play(scenario)


def test_what_no_stream_has_room_for_says_so(server: FakeServer) -> None:
    """Past what a caller may have, the rest shows why; a place that becomes free is taken."""
    names = [f"n{number}" for number in range(12)]
    server.values |= dict.fromkeys(names, 1)
    server.limits = StreamLimits(queries=5, body_bytes=10**6, streams=3)

    async def scenario() -> None:
        async with AsyncClient(server.url) as client, AsyncExitStack() as others, AsyncExitStack() as stack:
            held = await watches(stack, client, *names[:2])
            await until(lambda: all_fresh(held, server))
            found = await watches(others, client, *names[2:])
            await until(lambda: sum(is_fresh(watch, 1) for watch in found.values()) == 8)
            left = [watch for watch in found.values() if not is_fresh(watch, 1)]
            await until(lambda: all(isinstance(watch.state.error, TooManyRequestsError) for watch in left))
            await until(lambda: len(server.open_streams) == 2)
            await stack.aclose()
            await until(lambda: all_fresh(found, server))

    play(scenario)


@pytest.mark.parametrize("limit", [0, -5, 10**30])
def test_absurd_limits_leave_something(server: FakeServer, limit: int) -> None:
    """At least one stream with one query, however little the server claims to take."""
    server.limits = StreamLimits(queries=limit, body_bytes=limit, streams=limit)

    async def scenario() -> None:
        async with AsyncClient(server.url) as client, AsyncExitStack() as stack:
            found = await watches(stack, client, "a")
            await until(lambda: all_fresh(found, server))
            await asyncio.sleep(0)
            assert len(server.open_streams) == 1

    play(scenario)
