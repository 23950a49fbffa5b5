"""What the tests of watches share: a query, a clock, and ways to wait for what a watch shows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
from pydantic import BaseModel

from reactive_rpc.client import AsyncClient, Procedure, State, Watch
from reactive_rpc.client.lane import UNHEARD_SECONDS
from reactive_rpc.client.live import COALESCE_SECONDS
from reactive_rpc.errors import RPCError
from reactive_rpc.protocol.envelopes import encode_error, http_status
from reactive_rpc.protocol.events import Connected, SubscriptionRequest
from tests.support.waiting import became, until

from .fake_server import FakeServer

__all__ = ["GET", "Answers", "FakeClock", "Name", "fresh", "is_fresh", "pass_time_until", "play", "shown", "watching"]


class Name(BaseModel):
    """The input of `items.get`."""

    name: str


GET: Procedure[int] = Procedure(path="items.get", url="/rpc/items/get", method="GET", input=Name, output=int)


class FakeClock:
    """Time that stands still for long pauses until the test lets it pass; the gathering of changes takes no time.

    Attributes:
        pauses: what was waited for so far, but for the first word of streams.
        unheard: how many streams the first word of which was waited for.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self.pauses: list[float] = []
        self.unheard = 0
        self._waiting: list[asyncio.Event] = []
        self._waiting_for_words: list[asyncio.Event] = []

    def monotonic(self) -> float:
        """Return the time that the test has let pass."""
        return self.now

    def time(self) -> float:
        """Return the same: nothing here asks which day it is."""
        return self.now

    async def sleep(self, seconds: float) -> None:
        """Wait until `pass_time`; a gathering pause is over at once."""
        if seconds == COALESCE_SECONDS:
            await asyncio.sleep(0)
            return
        event = asyncio.Event()
        if seconds == UNHEARD_SECONDS:
            self.unheard += 1
            self._waiting_for_words.append(event)
        else:
            self.pauses.append(seconds)
            self._waiting.append(event)
        await event.wait()
        self.now += seconds

    def hear_nothing(self) -> None:
        """Let so much time pass that streams which have said nothing are doubted."""
        waiting, self._waiting_for_words = self._waiting_for_words, []
        for event in waiting:
            event.set()

    def pass_time(self) -> None:
        """End every pause, but for the wait for a stream's first word."""
        waiting, self._waiting = self._waiting, []
        for event in waiting:
            event.set()


def play(scenario: Callable[[], Awaitable[None]], *, seconds: float = 20) -> None:
    """Run an asynchronous test; afterwards no task may be left."""

    async def run() -> None:
        async with asyncio.timeout(seconds):
            await scenario()
        # Generators of httpx that were left in their midst are closed by tasks of the loop.
        if not await became(lambda: len(asyncio.all_tasks()) == 1, within_seconds=seconds):
            raise AssertionError(asyncio.all_tasks())

    asyncio.run(run())


async def pass_time_until(clock: FakeClock, holds: Callable[[], object]) -> None:
    """Move the clock on whenever somebody sleeps, until the condition holds."""

    def held() -> bool:
        if holds():
            return True
        clock.pass_time()
        return False

    await until(held)


async def shown(live: Watch[int], condition: Callable[[State[int]], bool]) -> State[int]:
    """Return the first state for which the condition holds."""
    async for state in live:
        if condition(state):
            return state
    raise AssertionError("the watch ended")


def fresh(data: int) -> Callable[[State[int]], bool]:
    """Match a state that shows `data` as fresh."""
    return lambda state: state == State(data, is_stale=False, is_loading=False, error=None)


def is_fresh(live: Watch[int], value: int) -> bool:
    return fresh(value)(live.state)


@asynccontextmanager
async def watching(server: FakeServer, *names: str, **options: Any) -> AsyncIterator[tuple[AsyncClient, Watch[int]]]:
    """Open a client that watches one item and wait until the server watches it too."""
    async with AsyncClient(server.url, **options) as client, client.watch(GET, {"name": names[0]}) as live:
        await shown(live, fresh(server.values[names[0]]))
        yield client, live


class Answers(httpx.AsyncBaseTransport):
    """Answers in the client's own event loop, at once: what `bad` gets for a stream is the test's to say."""

    def __init__(self, refusal: RPCError | None, on_stream: Callable[[], None]) -> None:
        self.listeners: list[str] = []
        self._refusal = refusal
        self._on_stream = on_stream

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Answer a query, a stream or an acknowledgement."""
        if request.url.path == "/rpc/items/get":
            return httpx.Response(200, json=1, headers={"etag": '"1"'})
        if request.url.path == "/rpc/events/ack":
            return httpx.Response(204)
        who = request.headers.get("authorization", "")
        self.listeners.append(who)
        if who == "Bearer bad":
            self._on_stream()
            if self._refusal is not None:
                return httpx.Response(http_status(self._refusal), content=encode_error(self._refusal))
        return httpx.Response(200, headers={"content-type": "text/event-stream"}, stream=Endless(request.content))


class Endless(httpx.AsyncByteStream):
    """Says `connected` and nothing more."""

    def __init__(self, request: bytes) -> None:
        asked = SubscriptionRequest.model_validate_json(request)
        self._connected = Connected(stream="s", cursor="e:1", queries=[query.input["name"] for query in asked.queries])

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._connected.encode()
        await asyncio.Event().wait()
