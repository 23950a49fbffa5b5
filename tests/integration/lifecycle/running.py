"""Servers and balancers as processes, and clients that note who answers them and what they have shown."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from pydantic import BaseModel

from reactive_rpc.client import AsyncClient, Procedure, State, Watch
from reactive_rpc.client.live import Means
from tests.support.processes import Uvicorn
from tests.support.proxies import Caddy, balancing_among
from tests.support.waiting import until

__all__ = [
    "GET",
    "PUSHED",
    "WRITE",
    "Shown",
    "balancing",
    "new_client",
    "play",
    "running",
    "until",
    "watching",
    "workers_of",
]

SECONDS = 180.0
"""How long anything may take on a machine that many share."""


class NoteId(BaseModel):
    """Names a note."""

    id: int


class NewText(NoteId):
    """What a note is to say."""

    text: str


GET: Procedure[str] = Procedure(path="notes.get", url="/rpc/notes.get", method="GET", input=NoteId, output=str)
PUSHED: Procedure[str] = Procedure(path="notes.pushed", url="/rpc/notes.pushed", method="GET", input=NoteId, output=str)
WRITE: Procedure[int] = Procedure(path="notes.write", url="/rpc/notes.write", method="POST", input=NewText, output=int)


@contextmanager
def running(
    database: str, *arguments: str, app: str = "tests.integration.lifecycle.served:app", **environment: str
) -> Iterator[Uvicorn]:
    """Run uvicorn with some arguments on a database; it must end by itself when it is told to."""
    with Uvicorn(app, *arguments, asks="/worker", environment={"LIFECYCLE_URL": database, **environment}) as server:
        yield server
        server.end()


@contextmanager
def balancing(servers: Sequence[Uvicorn], folder: Path) -> Iterator[str]:
    """Run Caddy before some servers, which it takes in turn, and give its URL."""
    directives = balancing_among([server.port for server in servers], "lb_try_duration 5s")
    with Caddy(folder, directives, asks="/worker") as balancer:
        yield balancer.url


def play(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run an asynchronous test, with a bound; afterwards no task may be left."""

    async def run() -> None:
        async with asyncio.timeout(SECONDS):
            await scenario()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left, left

    asyncio.run(run())


async def workers_of(url: str, count: int) -> dict[int, dict[str, Any]]:
    """Return the counters of each of `count` workers that share a port, by process: each request may meet another."""
    found: dict[int, dict[str, Any]] = {}
    while len(found) < count:
        async with httpx.AsyncClient(timeout=20) as http:
            answers = await asyncio.gather(*(http.get(f"{url}/worker") for _ in range(4)))
        found.update({answer.json()["pid"]: answer.json() for answer in answers})
    return found


@dataclass
class Shown:
    """A watch, every state that it has shown, and the processes that its client has met.

    Attributes:
        streams: the processes that have opened its streams, in order.
        polls: those that have answered its polls.
        acks: those that have taken its acknowledgements.
    """

    live: Watch[str]
    streams: list[str]
    polls: list[str]
    acks: list[str]
    states: list[State[str]] = field(default_factory=list)

    def is_right(self, text: str) -> bool:
        """Tell whether it shows `text` as fresh."""
        return self.live.state == State(text, is_stale=False, is_loading=False, error=None)

    @property
    def errors(self) -> list[Exception]:
        """What was shown to be wrong."""
        return [state.error for state in self.states if state.error is not None]


@asynccontextmanager
async def new_client(
    url: str, hook: Callable[[httpx.Response], Any] | None = None, *, events: Means = "auto"
) -> AsyncIterator[AsyncClient]:
    """Give a client that makes a connection for each request, so that any worker may answer it."""
    limits = httpx.Limits(max_keepalive_connections=0)
    hooks: dict[str, list[Callable[..., Any]]] = {"response": [] if hook is None else [hook]}
    async with (
        httpx.AsyncClient(limits=limits, timeout=20, event_hooks=hooks) as http,
        AsyncClient(url, http=http, events=events) as client,
    ):
        yield client


@asynccontextmanager
async def watching(
    url: str, procedure: Procedure[str], count: int, *, events: Means = "auto"
) -> AsyncIterator[list[Shown]]:
    """Give clients that each watch the first note, and remember what they show."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(_watching(url, procedure, events)) for _ in range(count)]


@asynccontextmanager
async def _watching(url: str, procedure: Procedure[str], events: Means) -> AsyncIterator[Shown]:
    met: dict[str, list[str]] = {"/rpc/events": [], "/rpc/events/poll": [], "/rpc/events/ack": []}

    async def meet(response: httpx.Response) -> None:
        met.get(response.request.url.path, []).append(response.headers.get("x-worker", ""))

    async with new_client(url, meet, events=events) as client, client.watch(procedure, {"id": 1}) as live:
        shown = Shown(live, met["/rpc/events"], met["/rpc/events/poll"], met["/rpc/events/ack"])
        following = asyncio.create_task(_follow(shown))
        try:
            await until(lambda: not live.state.is_stale)
            yield shown
        finally:
            following.cancel()
            await asyncio.wait([following])


async def _follow(shown: Shown) -> None:
    async for state in shown.live:
        shown.states.append(state)
