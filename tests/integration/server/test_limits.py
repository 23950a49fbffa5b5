"""Limits over the wire: each says which it is, what it is set by, and when to come again."""

from __future__ import annotations

import gc
import json
import socket
import tracemalloc
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from sqlmodel.ext.asyncio.session import AsyncSession

from reactive_rpc import define_reactive_function
from reactive_rpc.cache.freshness import STRICT
from reactive_rpc.protocol.events import QueryRef
from reactive_rpc.subscriptions.watched_query import RequestedQuery
from reactive_rpc.testing import FakeClock, running
from tests.support.waiting import wait_until

from .rooms import InRoom, Note, app_of, error_of, rpc_on, serving, who
from .streams import heard, in_rooms, stored

ANN = {"authorization": "Bearer ann@t"}
BOB = {"authorization": "Bearer bob@t"}


def test_a_worker_that_is_full_sends_clients_elsewhere(file: Path) -> None:
    """503 with Retry-After, for streams and polls, until a stream has ended."""
    rpc = rpc_on(file, settings={"max_streams": 2})
    with running(app_of(rpc)) as url:
        with heard(url, json={"queries": []}) as one, heard(url, json={"queries": []}) as two:
            one.next(), two.next()
            for path in ("events", "events/poll"):
                refused = httpx.post(f"{url}/rpc/{path}", json={"queries": []})
                assert (refused.status_code, refused.headers.get_list("retry-after")) == (503, ["5"])
                error = error_of(refused)
                assert error["code"] == "SERVICE_UNAVAILABLE"
                assert error["message"].startswith("this worker holds as many streams as it may: 2 (max_streams)")
        wait_until(lambda: httpx.post(f"{url}/rpc/events/poll", json={"queries": []}).status_code == 200)


def test_one_caller_cannot_take_every_place(file: Path) -> None:
    """429 for the identity that has as many as it may; another is let in, and so is the first when one has ended."""
    rpc = rpc_on(file, context=who, settings={"max_streams_per_identity": 2})
    with running(app_of(rpc)) as url, ExitStack() as stack:
        first = stack.enter_context(ExitStack())
        streams = [one.enter_context(heard(url, headers=ANN, json=in_rooms("a"))) for one in (first, stack)]
        assert [stream.next()[0] for stream in streams] == ["connected"] * 2
        refused = httpx.post(f"{url}/rpc/events", json=in_rooms("c"), headers=ANN)
        assert (refused.status_code, error_of(refused)["code"]) == (429, "TOO_MANY_REQUESTS")
        assert error_of(refused)["message"] == (
            "this caller has as many streams open as it may: 2 (max_streams_per_identity); close one, or watch several "
            "queries by one stream"
        )
        bobs = stack.enter_context(heard(url, headers=BOB, json=in_rooms("c")))
        assert bobs.next()[0] == "connected"
        first.close()
        wait_until(lambda: httpx.post(f"{url}/rpc/events/poll", json=in_rooms("c"), headers=ANN).status_code == 200)


def test_callers_without_a_name_count_by_address(file: Path) -> None:
    """Without a context everybody at one address shares its places."""
    rpc = rpc_on(file, settings={"max_streams_per_identity": 1})
    with running(app_of(rpc)) as url, heard(url, json={"queries": []}) as stream:
        stream.next()
        refused = httpx.post(f"{url}/rpc/events", json={"queries": []})
        assert refused.status_code == 429
        assert "the address 127.0.0.1 has as many streams open as it may: 1" in error_of(refused)["message"]


@pytest.mark.parametrize("path", ["events", "events/sets", "events/ticket"])
def test_whoever_comes_too_often_is_told_when_to_come_again(file: Path, path: str) -> None:
    """Ten times what a second allows at once, then 429 with Retry-After; each kind of request counts for itself."""
    rpc = rpc_on(file, context=who, clock=FakeClock(), settings={"stream_opens_per_second": 0.3})
    with running(app_of(rpc)) as url, httpx.Client(base_url=url) as client:
        for _ in range(3):
            with client.stream("POST", f"/rpc/{path}", json={"queries": []}, headers=ANN) as answer:
                assert answer.status_code == 200
        refused = client.post(f"/rpc/{path}", json={"queries": []}, headers=ANN)
        seconds = int(refused.headers["retry-after"])
        assert (refused.status_code, seconds in range(1, 5)) == (429, True)
        message = f"0.3 times a second (stream_opens_per_second): try again in {seconds} s"
        assert message in error_of(refused)["message"]
        with client.stream("POST", f"/rpc/{path}", json={"queries": []}, headers=BOB) as answer:
            assert answer.status_code == 200


def test_a_client_that_polls_in_a_loop_meets_no_limit(file: Path) -> None:
    """Each poll finds something new, three times what the limit allows at once: they take turns, none is refused."""
    rpc = rpc_on(file, context=who, settings={"stream_opens_per_second": 20.0})
    with running(app_of(rpc)) as url, httpx.Client(base_url=url, headers=ANN) as client:
        statuses = [client.post("/rpc/events/poll", json={"queries": []}).status_code for _ in range(215)]
        assert set(statuses) == {200}
        with heard(url, headers=ANN, json={"queries": []}) as stream:
            assert stream.next()[0] == "connected"


def test_a_set_that_is_too_large_names_the_limit(file: Path) -> None:
    """413 for a set of too many queries, in whichever way it comes."""
    rpc = rpc_on(file, settings={"max_queries_per_stream": 2})
    with running(app_of(rpc)) as url:
        for path in ("events", "events/poll", "events/sets"):
            refused = httpx.post(f"{url}/rpc/{path}", json=in_rooms("a", "b", "c"))
            assert (refused.status_code, error_of(refused)["message"]) == (
                413,
                "3 queries in one set: the limit is 2 (max_queries_per_stream)",
            )
        assert stored(url, "a", "b")


SLOW = ["notes.add", "notes.in_room", "events", "events/poll", "events/sets", "events/ticket", "events/ack"]


def test_a_body_that_does_not_come_is_not_waited_for(file: Path) -> None:
    """408 by the setting's name and the end of the connection, on every path that reads a body, before any login."""
    rpc = rpc_on(file, context=who, settings={"body_seconds": 0.2})
    with running(app_of(rpc)) as url, ExitStack() as stack:
        address = httpx.URL(url)
        sent = {path: stack.enter_context(socket.create_connection((address.host, address.port or 0))) for path in SLOW}
        for path, connection in sent.items():
            connection.settimeout(30)
            head = (
                f"POST /rpc/{path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n"
            )
            connection.sendall(head.encode() + b'{"queries": [')
        for path, connection in sent.items():
            answer = b"".join(iter(lambda connection=connection: connection.recv(65_536), b""))  # type: ignore[misc]  # bound
            assert answer.startswith(b"HTTP/1.1 408"), (path, answer)
            error = json.loads(answer.partition(b"\r\n\r\n")[2])["error"]
            assert error["code"] == "TIMEOUT"
            assert error["message"].startswith("the body has not arrived within 0.2 s (body_seconds)")
        assert httpx.post(f"{url}/rpc/notes.in_room", json={"room": "a"}, headers=ANN).status_code == 200


def test_a_query_too_many_is_refused_alone(file: Path) -> None:
    """By the setting's name, in `errors`: the others are watched, and the metrics tell what they keep."""
    settings = {"max_watched_queries_per_identity": 2}
    with (
        running(app_of(rpc_on(file, context=who, settings=settings))) as url,
        heard(url, headers=ANN, json=in_rooms("a", "b", "c")) as stream,
    ):
        name, connected = stream.next()[:2]
        assert (name, [key is None for key in connected["queries"]]) == ("connected", [False, False, True])
        [refused] = connected["errors"]
        assert refused["error"]["code"] == "TOO_MANY_REQUESTS"
        assert "2 (max_watched_queries_per_identity)" in refused["error"]["message"]
        [held] = [line for line in httpx.get(f"{url}/rpc/metrics").text.splitlines() if "watched_bytes " in line][-1:]
        assert float(held.split()[-1]) > 1_000
        httpx.post(f"{url}/rpc/notes.add", json={"room": "b", "text": "hi"}, headers=ANN)
        assert stream.next()[0] == "invalidation"


async def allocated(act: Callable[[], Awaitable[None]]) -> int:
    """Do something, and return how many more bytes Python holds afterwards."""
    gc.collect()
    tracemalloc.start()
    try:
        await act()
        gc.collect()
        return tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()


@pytest.mark.anyio
@pytest.mark.parametrize("length", [5, 20_000])
async def test_what_is_watched_counts_as_it_weighs(file: Path, length: int) -> None:
    """Beside results, which are not kept: within a factor of two of what Python allocates, inputs small and large."""
    async with serving(file, settings={"cache_max_bytes": 0}) as server:
        hub, caller = server.rpc._hub, server.rpc._calls

        async def watch(rooms: list[str]) -> None:
            calls = [await caller.subscribe("notes.in_room", {"room": room}, None) for room in rooms]
            await hub.connect([RequestedQuery(QueryRef(path=call.path), call) for call in calls], None, acks=False)

        await watch([f"warm {number}" for number in range(5)])
        before = hub.watched_bytes
        taken = await allocated(lambda: watch([f"{number}" + "x" * length for number in range(60)]))
        assert taken / 2 <= hub.watched_bytes - before <= taken * 2
        for stream in list(hub.open_streams):
            hub.disconnect(stream)
        assert hub.watched_bytes == 0


@pytest.mark.anyio
@pytest.mark.parametrize(("room", "text"), [(5, 5), (20_000, 5), (5, 20_000)])
async def test_what_is_cached_counts_as_it_weighs(file: Path, room: int, text: int) -> None:
    """Results with their inputs and what they rest on: likewise, whichever of them is large."""
    async with serving(file) as server:
        rooms = [f"{number}" + "x" * room for number in range(60)]
        for name in rooms:
            server.write("INSERT INTO note (tenant, room, text) VALUES ('t', ?, ?)", name, name[:2] + "y" * text)
        caller = server.rpc._calls

        async def read(names: list[str]) -> None:
            for name in names:
                await caller._get(await caller.subscribe("notes.in_room", {"room": name}, None), STRICT)

        await read([f"warm {number}" for number in range(5)])
        before = server.rpc.admin.stats()["cached_bytes"]
        taken = await allocated(lambda: read(rooms))
        assert taken / 2 <= server.rpc.admin.stats()["cached_bytes"] - before <= taken * 2


@pytest.mark.anyio
async def test_a_cached_result_weighs_its_read_set_too(file: Path) -> None:
    """`cache_max_bytes` bounds what is held: a result with a thousand constraints weighs more than one with one."""

    @define_reactive_function
    async def many(db: AsyncSession, input: InRoom) -> int:
        for n in range(1000):
            await db.get(Note, n)
        return 1

    async with serving(file, {"n": {"q": many}}) as server:
        assert (await server.client.get("/rpc/n.q", params={"room": "a"})).status_code == 200
        result = next(iter(server.rpc._reader._live._store))
        assert len(result.read_set.constraints) == 1000
        assert result.size_bytes > 100_000
