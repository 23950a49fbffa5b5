"""For tests: time that stands still, ids that count, an application on a real port, the contract of stores."""

from __future__ import annotations

import asyncio
import heapq
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from reactive_rpc.extras import needs
from reactive_rpc.tasks import background
from reactive_rpc.testing.guard import ProcessGuard
from reactive_rpc.testing.ports import free_port, listens
from reactive_rpc.testing.result_store import ResultStoreContract

with needs("server", __name__):
    import uvicorn
    from starlette.types import ASGIApp

__all__ = ["FakeClock", "ResultStoreContract", "SequentialIds", "running", "serving"]

START_SECONDS = 60.0
"""How long an application may take to open before `running` and `serving` give up."""

STOP_SECONDS = 5.0
"""How long a process may take to end after SIGTERM before `serving` kills it."""


class FakeClock:
    """A `clock.Clock` that moves only when it is told to. Used on one event loop.

    >>> clock = FakeClock()
    >>> clock.advance(1.5)
    >>> clock.monotonic(), clock.time() - clock.STARTED_AT
    (1.5, 1.5)
    """

    STARTED_AT = 1_800_000_000.0
    """The time when it is made: 2027-01-15, 08:00 in UTC."""

    def __init__(self) -> None:
        self._now = 0.0
        self._order = count()
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []

    @property
    def sleepers(self) -> int:
        """How many tasks sleep."""
        return sum(not future.done() for _, _, future in self._sleepers)

    def monotonic(self) -> float:
        """Return the seconds that `advance` has added up to."""
        return self._now

    def time(self) -> float:
        """Return the same, counted from `FakeClock.STARTED_AT`."""
        return self.STARTED_AT + self._now

    async def sleep(self, seconds: float) -> None:
        """Return once `advance` has moved the clock by `seconds`; at once where that is nothing."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._now + seconds, next(self._order), future))
        await future

    def advance(self, seconds: float) -> None:
        """Move the clock by `seconds` and wake whoever is due, the earliest first; they run at the next await."""
        self._now += seconds
        while self._sleepers and self._sleepers[0][0] <= self._now:
            _, _, future = heapq.heappop(self._sleepers)
            if not future.done():
                future.set_result(None)


class SequentialIds:
    """A `clock.IdSource` that counts; each id begins with `prefix`.

    >>> ids = SequentialIds()
    >>> ids.new_id(), ids.new_id()
    ('id-1', 'id-2')
    """

    def __init__(self, prefix: str = "id") -> None:
        self._prefix = prefix
        self._numbers = count(1)

    def new_id(self) -> str:
        """Return the prefix and the next number."""
        return f"{self._prefix}-{next(self._numbers)}"


class _Server(uvicorn.Server):
    """Cuts connections that are still open after a while, as a client that goes away would.

    uvicorn cancels their tasks instead, and logs each with its traceback.
    """

    def __init__(self, config: uvicorn.Config, goodbye_seconds: int) -> None:
        super().__init__(config)
        self._goodbye_seconds = goodbye_seconds

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Shut down, and cut what does not end by itself."""
        async with background(self._cut(), "test server's goodbye"):
            await super().shutdown(sockets)

    async def _cut(self) -> None:
        await asyncio.sleep(self._goodbye_seconds)
        for connection in tuple(self.server_state.connections):
            transport: Any = getattr(connection, "transport", None)  # uvloop's are of no class of asyncio's
            if transport is not None:
                transport.abort()


@contextmanager
def running(app: ASGIApp, *, goodbye_seconds: int = 1) -> Iterator[str]:
    """Serve `app` under uvicorn, in a thread, on a free port of this machine; give its URL.

    Leaving stops the server and waits for it. Streams that are still open are cut after `goodbye_seconds`: in a
    thread there is no signal that would end them.

    Raises:
        RuntimeError: the application did not start; its own error is in the log.
    """
    with socket.create_server(("127.0.0.1", 0)) as listening:
        patience = goodbye_seconds + int(STOP_SECONDS)
        config = uvicorn.Config(app, lifespan="on", log_config=None, timeout_graceful_shutdown=patience, ws="none")
        server = _Server(config, goodbye_seconds)
        thread = threading.Thread(target=_serve, args=(server, listening), name="reactive_rpc test server")
        thread.start()
        try:
            _await(lambda: server.started, thread.is_alive)
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


@contextmanager
def serving(
    application: str, *, folder: Path | None = None, environment: Mapping[str, str] | None = None
) -> Iterator[str]:
    """Serve `module:app` under uvicorn, in a process of its own, on a free port of this machine; give its URL.

    Leaving sends SIGTERM and waits.

    Args:
        application: as uvicorn names it.
        folder: where the process runs; the current one where left out.
        environment: further variables of its environment.

    Raises:
        RuntimeError: it ended, or did not listen in time; its own words are on stderr.
    """
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", application, "--port", str(port), "--log-level", "warning"]
    process = subprocess.Popen(  # our own words
        command, cwd=folder, env={**os.environ, **(environment or {})}, stdin=subprocess.DEVNULL
    )
    guard = ProcessGuard(process.pid)
    try:
        # uvicorn listens only after the application has opened.
        _await(lambda: listens(port), lambda: process.poll() is None)
        yield f"http://127.0.0.1:{port}"
    finally:
        _stop(process)
        guard.dismiss()


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _serve(server: uvicorn.Server, listening: socket.socket) -> None:
    try:
        server.run(sockets=[listening])
    except SystemExit:
        return  # uvicorn's word for a failed start, which it has logged


def _await(started: Callable[[], bool], alive: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + START_SECONDS
    while not started():
        if not alive() or time.monotonic() > give_up_at:
            raise RuntimeError("the application did not start: see the log above")
        time.sleep(0.005)
