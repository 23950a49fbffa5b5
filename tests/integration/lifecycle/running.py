"""Servers and balancers as processes, and clients that note who answers them and what they have shown."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from pydantic import BaseModel

from reactive_rpc.client import AsyncClient, Procedure, State, Watch
from reactive_rpc.client.live import Means
from tests.support.processes import environment_with
from tests.support.waiting import until, wait_until

__all__ = [
    "GET",
    "PUSHED",
    "WRITE",
    "Server",
    "Shown",
    "balancing",
    "free_port",
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


def free_port() -> int:
    """Return a port that nobody listens on, and that the system gives to no connection that goes out."""
    while True:
        port = random.randrange(10_000, 30_000)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


@dataclass
class Server:
    """A process that listens, with all that it starts: they are one group, and end together."""

    command: Sequence[str]
    port: int
    environment: Mapping[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it and return when it answers."""
        environment = environment_with(**self.environment)
        self.process = subprocess.Popen(self.command, env=environment, stdin=subprocess.DEVNULL, start_new_session=True)
        process = self.process
        wait_until(
            lambda: self._answers() or process.poll() is not None, "the server does not answer", within_seconds=SECONDS
        )
        assert process.poll() is None, "the server ended before it answered: see above"

    def end(self, number: signal.Signals = signal.SIGTERM) -> float:
        """Send a signal, wait for the end, and return how many seconds it took; nothing where it has ended."""
        process, self.process = self.process, None
        if process is None:
            return 0.0
        began_at = time.monotonic()
        process.send_signal(number)
        try:
            process.wait(SECONDS)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        return time.monotonic() - began_at

    def _answers(self) -> bool:
        with suppress(httpx.HTTPError):
            return httpx.get(f"{self.url}/worker", timeout=5).status_code == 200
        return False


@contextmanager
def running(
    database: str, *arguments: str, app: str = "tests.integration.lifecycle.served:app", **environment: str
) -> Iterator[Server]:
    """Run uvicorn with some arguments on a database."""
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", app, "--port", str(port), "--log-level", "warning", *arguments]
    server = Server(command, port, {"LIFECYCLE_URL": database, **environment})
    try:
        server.start()
        yield server
    finally:
        server.end()


@contextmanager
def balancing(servers: Sequence[Server], folder: Path) -> Iterator[str]:
    """Run Caddy before some servers, which it takes in turn, and give its URL."""
    port = free_port()
    upstreams = " ".join(f"127.0.0.1:{server.port}" for server in servers)
    configuration = folder / "Caddyfile"
    configuration.write_text(
        "{\n admin off\n auto_https off\n persist_config off\n grace_period 1s\n log {\n  level ERROR\n }\n}\n"
        f"http://127.0.0.1:{port} {{\n reverse_proxy {upstreams} {{\n  lb_policy round_robin\n"
        "  lb_try_duration 5s\n  fail_duration 1s\n }\n}\n"
    )
    caddy = str(Path(sys.executable).with_name("caddy"))
    balancer = Server(
        [caddy, "run", "--adapter", "caddyfile", "--config", str(configuration)], port, {"HOME": str(folder)}
    )
    try:
        balancer.start()
        yield balancer.url
    finally:
        balancer.end()


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
