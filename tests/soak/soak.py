"""A soak: rounds of streams that come, are told, acknowledge or do not, read slowly, and go in every way.

Some streams stay open from the first round to the last. After each round, when only those are left, the server is asked
what it holds. **Flat** means, of the samples after the first third (until then caches fill, and Python's memory with
them):

- *file descriptors* and *tasks* grow by less than one for every ten streams that have come and gone: they move by some,
  as a pool fills, but one stream in five leaves in a way that no other does, and would leave one behind;
- *objects*, those that Python's collector knows, grow by less than one for each stream. A stream that is kept has at
  least three (itself, what waits, what is unacknowledged), so less than one cannot be a leak of streams, nor of events,
  of which each stream receives several. At rest the count moves by a hundred or so, with what was computed last, so
  this holds after a few hundred streams;
- the *resident memory* grows by less than a kilobyte for each. A kept stream costs some kilobytes with what it has
  sent. Fragmentation moves it by a megabyte or two either way, so it says something only after very many.
"""

from __future__ import annotations

import asyncio
import json
import random
import socket
import sqlite3
import struct
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import linear_regression
from typing import Literal

import httpx

from reactive_rpc.protocol.sse import SSEDecoder
from tests.support.waiting import became, idle_thread, until

__all__ = ["Sample", "growths", "soak"]

GROUPS = 20
KEPT_STREAMS = 20
STREAMS_A_ROUND = 40
COMMITS_A_ROUND = 10
LONGEST_SET = 4
COME_AND_GO_SECONDS = 30.0
REST_SECONDS = 2.0
LOOKS = 3

BOUNDS = {"descriptors": 0.1, "tasks": 0.1, "objects": 1.0, "rss_bytes": 1_000.0}
"""How much of each may be left behind for each stream."""

SURE_STREAMS = 1_500
"""How many streams must have come and gone before the resident memory says something."""

Manner = Literal["acknowledges", "reads", "says nothing", "does not read"]


@dataclass(frozen=True, slots=True)
class Sample:
    """What the server held at one rest.

    Attributes:
        streams: how many have come and gone until then.
    """

    streams: int
    rss_bytes: int
    descriptors: int
    tasks: int
    objects: int


class Listener:
    """One stream and its manner; `says nothing` takes part in acknowledgements and never sends one."""

    def __init__(self, port: int, rng: random.Random, manner: Manner) -> None:
        self._port = port
        self._rng = rng
        self._manner = manner
        self._connection = socket.socket()
        if manner == "does not read":
            self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self._connection.setblocking(False)
        self._decoder = SSEDecoder()

    async def listen(self, http: httpx.AsyncClient) -> None:
        """Open the stream and listen until cancelled, or until the server ends it; then go."""
        loop = asyncio.get_running_loop()
        try:
            await loop.sock_connect(self._connection, ("127.0.0.1", self._port))
            await loop.sock_sendall(self._connection, self._request())
            if self._manner == "does not read":
                await asyncio.Event().wait()
            while chunk := await loop.sock_recv(self._connection, 65_536):
                await self._take(chunk, http)
        except OSError:
            return
        finally:
            self._go()

    async def _take(self, chunk: bytes, http: httpx.AsyncClient) -> None:
        """Read what arrived; the lines around each chunk of the encoding are none that an event has."""
        for event in self._decoder.feed(chunk):
            if self._manner == "acknowledges" and event.id:
                stream = json.loads(event.data).get("stream") or self._stream
                self._stream = stream
                with suppress(httpx.HTTPError):
                    await http.post("/rpc/events/ack", json={"stream": stream, "cursor": event.id})

    _stream = ""

    def _request(self) -> bytes:
        names = ["items.wide"] if self._manner == "does not read" else ["items.of_group", "items.pushed"]
        queries = [
            {"path": self._rng.choice(names), "input": {"g": self._rng.randrange(GROUPS)}}
            for _ in range(self._rng.randint(1, LONGEST_SET))
        ]
        acks = self._manner in ("acknowledges", "says nothing")
        body = json.dumps({"queries": queries, "acks": acks}).encode()
        head = "POST /rpc/events HTTP/1.1\r\nHost: soak\r\nContent-Type: application/json\r\n"
        return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body

    def _go(self) -> None:
        """Close the connection in order, or reset it."""
        if self._rng.random() < 0.5:
            with suppress(OSError):
                self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._connection.close()


async def soak(port: int, database: Path, *, rounds: int, seconds: float, seed: str) -> list[Sample]:
    """Play so many rounds, and for so long, against the server at `port`; return a sample of each rest."""
    rng = random.Random(seed)
    samples: list[Sample] = []
    _fill(database)
    async with (
        httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}",
            timeout=COME_AND_GO_SECONDS,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=1),
        ) as http,
        asyncio.TaskGroup() as tasks,
    ):
        kept = [
            tasks.create_task(one.listen(http))
            for one in _listeners(port, rng, KEPT_STREAMS, ["acknowledges", "reads"])
        ]
        end = time.monotonic() + seconds
        await _warm(http)
        while time.monotonic() < end or len(samples) < rounds:
            await _play_round(port, rng, http, database)
            fewest = min((sample.tasks for sample in samples), default=0)
            samples.append(Sample(streams=len(samples) * STREAMS_A_ROUND, **await _at_rest(http, fewest)))
        for task in kept:
            task.cancel()
    return samples


def growths(samples: Sequence[Sample]) -> list[str]:
    """Return what is not flat."""
    settled = samples[len(samples) // 3 :]
    streams = [sample.streams for sample in settled]
    found = []
    for name, bound in BOUNDS.items():
        slope = linear_regression(streams, [getattr(sample, name) for sample in settled]).slope
        is_sure = name != "rss_bytes" or streams[-1] - streams[0] >= SURE_STREAMS
        if slope > bound and is_sure:
            found.append(f"{name}: {slope:.2f} more for each stream")
    return found


async def _warm(http: httpx.AsyncClient) -> None:
    """Have every result computed once, so that the caches are full."""
    for group in range(GROUPS):
        for name in ("of_group", "pushed", "wide"):
            (await http.get(f"/rpc/items.{name}", params={"g": group})).raise_for_status()


async def _play_round(port: int, rng: random.Random, http: httpx.AsyncClient, database: Path) -> None:
    manners: list[Manner] = ["acknowledges", "reads", "reads", "says nothing", "does not read"]
    async with asyncio.TaskGroup() as tasks:
        coming = [tasks.create_task(one.listen(http)) for one in _listeners(port, rng, STREAMS_A_ROUND, manners)]
        await _until_open(http, KEPT_STREAMS + STREAMS_A_ROUND)
        await asyncio.to_thread(_write, database, rng.random())
        for task in coming:
            task.cancel()
    await _until_open(http, KEPT_STREAMS)


def _listeners(port: int, rng: random.Random, how_many: int, manners: Sequence[Manner]) -> list[Listener]:
    return [Listener(port, random.Random(rng.random()), manners[number % len(manners)]) for number in range(how_many)]


async def _until_open(http: httpx.AsyncClient, how_many: int) -> None:
    there = 0

    async def is_so() -> bool:
        nonlocal there
        there = (await http.get("/streams")).json()
        return bool(there == how_many)

    await until(is_so, lambda: f"{there} streams are open, not {how_many}", within_seconds=COME_AND_GO_SECONDS)


async def _at_rest(http: httpx.AsyncClient, fewest_tasks: int) -> dict[str, int]:
    """Return the least that the server holds once what was begun is done: when it has as few tasks as ever before."""
    looks: list[dict[str, int]] = []

    def least() -> dict[str, int]:
        return min(looks, key=lambda held: (held["tasks"], held["objects"]))

    async def is_calm() -> bool:
        looks.append((await http.get("/sample")).json())
        return len(looks) >= LOOKS and least()["tasks"] <= fewest_tasks + 1

    await became(is_calm, within_seconds=REST_SECONDS)
    return least()


def _fill(database: Path) -> None:
    with closing(sqlite3.connect(database, timeout=30)) as connection, connection:
        connection.executemany("INSERT INTO item VALUES (?, ?, 0)", [(row, row) for row in range(GROUPS)])


def _write(database: Path, seed: float) -> None:
    """Commit now and then, so that streams are told one after another."""
    rng = random.Random(seed)
    with closing(sqlite3.connect(database, timeout=30, isolation_level=None)) as connection:
        for _ in range(COMMITS_A_ROUND):
            connection.execute("UPDATE item SET n = n + 1 WHERE id = ?", (rng.randrange(GROUPS),))
            idle_thread(rng.uniform(0.005, 0.03), because="streams are to be told one after another")
