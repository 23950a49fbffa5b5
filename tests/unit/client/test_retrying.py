"""Mutations whose answer is lost, and inputs that are too long for a URL: what is sent, and how often."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

import httpx
import pytest
import respx
from pydantic import BaseModel

from reactive_rpc.client import AsyncClient, Mutation, Procedure, SyncClient, SyncMutation
from reactive_rpc.errors import (
    BadRequestError,
    ConflictError,
    ConnectionFailedError,
    RPCError,
    ServiceUnavailableError,
    WireError,
)
from reactive_rpc.protocol.envelopes import encode_error, http_status

from .watching import GET, FakeClock, play

URL = "http://server.test"
RUNNING = ConflictError("the same mutation still runs")


class Text(BaseModel):
    """The input of `notes.add`."""

    text: str


ADD: Procedure[int] = Procedure(path="notes.add", url="/rpc/notes/add", method="POST", input=Text, output=int)


@pytest.fixture
def route() -> Iterator[respx.Route]:
    """Where the mutation is sent to."""
    with respx.mock:
        yield respx.post(f"{URL}/rpc/notes/add")


def refused(error: RPCError) -> httpx.Response:
    return httpx.Response(http_status(error), content=encode_error(error))


def keys(route: respx.Route) -> list[str | None]:
    return [call.request.headers.get("idempotency-key") for call in route.calls]


class Hurry(FakeClock):
    """Time that passes at once, and is counted."""

    async def sleep(self, seconds: float) -> None:
        """Count the seconds."""
        self.now += seconds
        self.pauses.append(seconds)
        await asyncio.sleep(0)


def test_a_mutation_whose_answer_is_lost_is_sent_again_under_its_key(route: respx.Route) -> None:
    """Whatever was in the way: the network, a gateway, a server about to stop, the first of them that still runs."""
    lost: list[httpx.Response | Exception | type[Exception]] = [
        httpx.ReadError("cut"),
        httpx.Response(502, text="<html>"),
        refused(RUNNING),
        httpx.Response(200, json=1),
    ]

    async def scenario() -> None:
        async with AsyncClient(URL, clock=Hurry(), retry_mutations=True) as client:
            route.side_effect = lost
            assert await Mutation(client, ADD)._call({"text": "a"}) == 1
            route.side_effect = [httpx.Response(200, json=2)]
            assert await Mutation(client, ADD)._call({"text": "a"}) == 2

    play(scenario)
    first, *again, other = keys(route)
    assert first
    assert again == [first] * 3
    assert other not in {None, first}


def test_a_mutation_is_not_sent_for_ever(route: respx.Route) -> None:
    """After a few tries the error is the caller's; Retry-After is kept meanwhile."""
    clock = Hurry()

    async def scenario() -> None:
        async with AsyncClient(URL, clock=clock) as client:
            route.side_effect = lambda _: httpx.Response(
                503, content=encode_error(ServiceUnavailableError("busy")), headers={"retry-after": "7"}
            )
            with pytest.raises(ServiceUnavailableError):
                await client.call(ADD, {"text": "a"}, idempotency_key="job-1")

    play(scenario)
    assert keys(route) == ["job-1"] * 5
    assert len([seconds for seconds in clock.pauses if seconds >= 7]) == 4


@pytest.mark.parametrize("retry_mutations", [False, True])
def test_what_was_answered_is_not_sent_again(route: respx.Route, retry_mutations: bool) -> None:
    """An error of the mutation's own is final, CONFLICT too where nothing was sent before."""
    for error in (RUNNING, BadRequestError("no"), RPCError("other input", code="UNPROCESSABLE_CONTENT")):
        route.side_effect = [refused(error)]

        async def scenario(expected: RPCError = error) -> None:
            async with AsyncClient(URL, clock=Hurry(), retry_mutations=retry_mutations) as client:
                with pytest.raises(RPCError) as raised:
                    await Mutation(client, ADD)._call({"text": "a"})
                assert raised.value.code == expected.code

        play(scenario)
    assert len(route.calls) == 3


def test_without_a_key_nothing_is_sent_twice(route: respx.Route) -> None:
    """Nobody knows whether it was done: that is the caller's to find out."""
    route.side_effect = httpx.ReadError("cut")

    async def scenario() -> None:
        async with AsyncClient(URL, clock=Hurry()) as client:
            with pytest.raises(ConnectionFailedError):
                await Mutation(client, ADD)._call({"text": "a"})

    play(scenario)
    assert keys(route) == [None]


def test_the_synchronous_client_takes_keys_too(route: respx.Route) -> None:
    """One that the caller chooses, for each call of the mutation that is given it."""
    route.side_effect = [httpx.ReadError("cut"), httpx.Response(200, json=1), httpx.Response(200, json=2)]
    with SyncClient(URL, clock=Hurry()) as client:
        mutation = SyncMutation(client, ADD)
        assert mutation.with_idempotency_key("job-1")._call({"text": "a"}) == 1
        assert mutation._call({"text": "a"}) == 2
    assert keys(route) == ["job-1", "job-1", None]


@pytest.mark.parametrize("key", ["", " x", "a\nb", "\u00e9", "x" * 256])
def test_a_key_that_no_header_can_carry_is_refused_before_anything_is_sent(route: respx.Route, key: str) -> None:
    """With the way out."""

    async def scenario() -> None:
        async with AsyncClient(URL) as client:
            with pytest.raises(BadRequestError, match="UUID"):
                await client.call(ADD, {"text": "a"}, idempotency_key=key)

    play(scenario)
    assert not route.called


@respx.mock
def test_an_input_that_is_too_long_for_a_url_goes_by_post() -> None:
    """By itself, at once where it surely is, and where a proxy says so; an ETag goes with it."""
    get = respx.get(url__startswith=f"{URL}/rpc/items/get").respond(414, text="<html>too long</html>")
    post = respx.post(f"{URL}/rpc/items/get").respond(json=1)

    async def scenario() -> None:
        async with AsyncClient(URL) as client:
            for name in ("n" * 20_000, "\u00e4" * 3000, "short"):
                assert await client.call(GET, {"name": name}) == 1
                assert json.loads(post.calls.last.request.content) == {"name": name}

    play(scenario)
    assert (get.call_count, post.call_count) == (1, 3)


@respx.mock
@pytest.mark.parametrize("status", [502, 504])
def test_a_gateway_in_its_own_words_is_no_malformed_answer(status: int) -> None:
    """It is an error that passes, so a watch tries again."""
    respx.get(url__startswith=f"{URL}/rpc/items/get").respond(status, text="<html>bad gateway</html>")

    async def scenario() -> None:
        async with AsyncClient(URL) as client:
            with pytest.raises(RPCError) as raised:
                await client.call(GET, {"name": "a"})
            assert not isinstance(raised.value, WireError)

    play(scenario)
