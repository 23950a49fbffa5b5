"""Open streams, as a client over a real connection hears them."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx

from reactive_rpc.protocol.sse import ServerSentEvent, SSEDecoder
from tests.support.processes import Uvicorn

DEADLINE_SECONDS = 30.0

Notified = tuple[str, dict[str, Any], str]
"""One event: its name, data and id."""


class Heard:
    """One open event stream, read as far as a test asks."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self._chunks = response.iter_bytes()
        self._decoder = SSEDecoder()
        self._events: list[ServerSentEvent] = []

    def next(self) -> Notified:
        """Return the next event."""
        while not self._events:
            self._events = self._decoder.feed(next(self._chunks))
        event = self._events.pop(0)
        return event.event, json.loads(event.data), event.id

    def rest(self) -> list[tuple[str, dict[str, Any]]]:
        """Return the names and data of what comes until the stream ends."""
        events = self._events + [event for chunk in self._chunks for event in self._decoder.feed(chunk)]
        return [(event.event, json.loads(event.data)) for event in events]


@contextmanager
def heard(url: str, method: str = "POST", **request: Any) -> Iterator[Heard]:
    """Open a stream at `{url}/rpc/events`, or at the URL itself where it names one."""
    address = url if "/rpc/" in url else f"{url}/rpc/events"
    with httpx.stream(method, address, timeout=DEADLINE_SECONDS, **request) as response:
        assert response.status_code == 200, response.read()
        yield Heard(response)


def in_rooms(*rooms: str) -> dict[str, Any]:
    """Return the set that shows these rooms."""
    return {"queries": [{"path": "notes.in_room", "input": {"room": room}} for room in rooms]}


def stored(url: str, *rooms: str, **headers: str) -> str:
    """Store the set that shows these rooms and return its name."""
    answer = httpx.post(f"{url}/rpc/events/sets", json=in_rooms(*rooms), headers=headers, timeout=DEADLINE_SECONDS)
    assert answer.status_code == 200, answer.text
    name = answer.json()["set"]
    assert isinstance(name, str)
    return name


@contextmanager
def in_background(work: Callable[[], object]) -> Iterator[None]:
    """Run `work` in a thread meanwhile; leave when it has ended, with its error where it failed."""
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(work)
        yield
        future.result()


class ServedRooms(Uvicorn):
    """The rooms as a process of their own, with its access log; on the file `rooms.db` of a folder."""

    def __init__(self, folder: Path) -> None:
        self.database = folder / "rooms.db"
        super().__init__(
            "tests.integration.server.served_rooms:make_app", "--factory",
            log_level="info", log=folder / "uvicorn.log", environment={"ROOMS_DB": str(self.database)},
        )  # fmt: skip

    def logged(self) -> str:
        """Return what the process has printed."""
        assert self.log is not None
        return self.log.read_text()

    def write(self, room: str, text: str) -> None:
        """Write a note by another connection."""
        with closing(sqlite3.connect(self.database)) as connection, connection:
            connection.execute("INSERT INTO note(tenant, room, text) VALUES ('t', ?, ?)", (room, text))
