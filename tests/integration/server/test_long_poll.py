"""Long poll: the same events as a stream's, one answer at a time, with nothing lost in between."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from reactive_rpc import ReactiveRPC
from reactive_rpc.testing import running
from tests.support.waiting import wait_until

from .rooms import app_of, error_of, rpc_on
from .streams import DEADLINE_SECONDS, ServedRooms, in_background, in_rooms, stored


@dataclass
class Polled:
    url: str
    rpc: ReactiveRPC
    client: httpx.Client

    def poll(self, *rooms: str, **request: Any) -> dict[str, Any]:
        """Poll once and return the answer."""
        answer = self.client.post("/rpc/events/poll", json={**in_rooms(*rooms), **request})
        assert answer.status_code == 200, answer.text
        assert answer.headers["cache-control"] == "no-store"
        polled = answer.json()
        assert set(polled) == {"cursor", "events"}
        assert polled["events"][0]["event"] == "connected"
        return polled  # type: ignore[no-any-return]  # JSON

    def add(self, room: str, text: str) -> None:
        """Write a note, by whatever process."""
        answer = httpx.post(f"{self.url}/rpc/notes.add", json={"room": room, "text": text})
        assert answer.status_code == 200, answer.text

    def waits(self) -> bool:
        """Tell whether a poll is waiting."""
        return self.rpc.admin.stats()["streams"] == 1


@contextmanager
def polling(file: Path, **settings: float) -> Iterator[Polled]:
    rpc = rpc_on(file, settings=settings)
    with running(app_of(rpc)) as url, httpx.Client(base_url=url, timeout=DEADLINE_SECONDS) as client:
        yield Polled(url, rpc, client)


@pytest.fixture
def server(file: Path) -> Iterator[Polled]:
    with polling(file) as opened:
        yield opened


def stale(polled: dict[str, Any]) -> list[Any]:
    return [affected["input"]["room"] for affected in polled["events"][0]["data"]["stale"]]


def test_the_first_poll_answers_at_once(server: Polled) -> None:
    """It has no cursor yet: the answer says from where on it is told."""
    began = time.monotonic()
    polled = server.poll("a")
    assert time.monotonic() - began < 20.0  # a poll that waits takes 25 s
    [connected] = polled["events"]
    assert connected["id"] == polled["cursor"] == connected["data"]["cursor"]
    assert (connected["data"]["stale"], connected["data"]["errors"]) == ([], [])


def test_a_poll_counts_as_none_of_the_streams_that_were_opened(server: Polled) -> None:
    """Or a client that polls would look like one whose streams break at once."""
    for _ in range(3):
        server.poll("a")
    stats = server.rpc.admin.stats()
    assert (stats["polls"], stats["streams_opened"]) == (3, 0)
    with server.client.stream("POST", "/rpc/events", json=in_rooms("a")) as stream:
        assert stream.status_code == 200
        stats = server.rpc.admin.stats()
        assert (stats["polls"], stats["streams_opened"]) == (3, 1)


def test_a_poll_waits_for_the_first_event(server: Polled) -> None:
    """A write while it waits is its answer; the cursor moves on to it."""
    cursor = server.poll("a", "b")["cursor"]

    def write() -> None:
        wait_until(server.waits)
        server.add("b", "x")

    with in_background(write):
        polled = server.poll("a", "b", cursor=cursor)
    connected, notice = polled["events"]
    assert stale(polled) == []
    assert (notice["event"], notice["id"], notice["data"]["tables"]) == ("invalidation", polled["cursor"], ["note"])
    assert [affected["input"] for affected in notice["data"]["affected"]] == [{"room": "b"}]
    assert polled["cursor"] != connected["id"]


def test_what_happens_between_two_polls_is_stale_in_the_next(server: Polled) -> None:
    """Which answers at once, and names what changed and nothing else."""
    cursor = server.poll("a", "b")["cursor"]
    server.add("b", "x")
    polled = server.poll("a", "b", cursor=cursor)
    assert stale(polled) == ["b"]
    assert stale(server.poll("a", "b", cursor=polled["cursor"], wait=0)) == []


def test_an_etag_that_has_grown_old_is_stale(server: Polled) -> None:
    """As in a stream."""
    query = {"path": "notes.in_room", "input": {"room": "a"}, "etag": '"other"'}
    answer = server.client.post("/rpc/events/poll", json={"queries": [query]}).json()
    assert stale(answer) == ["a"]


@pytest.mark.parametrize("settings", [{"poll_wait_seconds": 0.2}, {"poll_wait_seconds": 20.0}])
def test_a_poll_comes_back_when_nothing_happens(file: Path, settings: dict[str, float]) -> None:
    """After the server's time or the client's, whichever is shorter, with the cursor to go on from."""
    with polling(file, **settings) as server:
        cursor = server.poll("a")["cursor"]
        began = time.monotonic()
        polled = server.poll("a", cursor=cursor, wait=0.3)
        seconds = time.monotonic() - began
    assert [event["event"] for event in polled["events"]] == ["connected"]
    assert 0.15 < seconds < 15.0
    assert polled["cursor"] == cursor


def test_a_stored_set_is_polled_by_its_name(server: Polled) -> None:
    """By GET, with cursor and wait in the URL, or the cursor in `Last-Event-ID`."""
    name = stored(server.url, "a")
    cursor = server.client.get(f"/rpc/events/poll?set={name}").json()["cursor"]
    server.add("a", "x")
    assert stale(server.client.get(f"/rpc/events/poll?set={name}&cursor={cursor}").json()) == ["a"]
    resumed = server.client.get(f"/rpc/events/poll?set={name}", headers={"last-event-id": cursor}).json()
    assert stale(resumed) == ["a"]
    quiet = server.client.get(f"/rpc/events/poll?set={name}&cursor={resumed['cursor']}&wait=0.01").json()
    assert stale(quiet) == []


def test_a_refused_query_is_told_at_once(server: Polled) -> None:
    """The client learns of it and leaves it out, instead of waiting for what is not watched."""
    cursor = server.poll("a")["cursor"]
    queries = [*in_rooms("a")["queries"], {"path": "notes.nope"}]
    answer = server.client.post("/rpc/events/poll", json={"queries": queries, "cursor": cursor}).json()
    assert [refused["error"]["code"] for refused in answer["events"][0]["data"]["errors"]] == ["NOT_FOUND"]


def test_a_client_that_goes_away_is_forgotten_at_once(file: Path) -> None:
    """Long before the time of its poll is over, nothing is watched for it any more."""
    with polling(file, poll_wait_seconds=300.0) as server:
        leave_a_poll(server)
        wait_until(lambda: server.rpc.admin.stats()["streams"] == 0)
        assert server.rpc.admin.stats()["watched_queries"] == 0


def leave_a_poll(server: Polled) -> None:
    """Poll by a connection that is closed while the poll waits."""
    cursor = server.poll("a")["cursor"]
    body = f'{{"queries": [{{"path": "notes.in_room", "input": {{"room": "a"}}}}], "cursor": "{cursor}"}}'
    port = int(server.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port)) as connection:
        head = "POST /rpc/events/poll HTTP/1.1\r\nhost: x\r\ncontent-type: application/json"
        connection.sendall(f"{head}\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode())
        wait_until(server.waits)


def test_a_cursor_that_cannot_be_resumed_is_stale_whole(server: Polled) -> None:
    """Of another epoch: every query is to be fetched again."""
    assert stale(server.poll("a", "b", cursor="another:1")) == ["a", "b"]


def test_nothing_is_lost_over_many_polls(server: Polled) -> None:
    """Writes go on while a client polls in a loop: it is told of the last one, whenever it came."""
    seen: dict[str, list[str]] = {"a": [], "b": []}
    polled = server.poll("a", "b")

    def fetch(rooms: list[str]) -> None:
        for room in rooms:
            seen[room] = [note["text"] for note in server.client.get(f"/rpc/notes.in_room?room={room}").json()]

    def write() -> None:
        for n in range(24):
            server.add("ab"[n % 3 % 2], f"{n:03}")

    expected = {"a": [f"{n:03}" for n in range(24) if n % 3 != 1], "b": [f"{n:03}" for n in range(24) if n % 3 == 1]}
    give_up_at = time.monotonic() + DEADLINE_SECONDS
    with in_background(write):
        while seen != expected:
            assert time.monotonic() < give_up_at, seen
            polled = server.poll("a", "b", cursor=polled["cursor"], wait=1)
            affected = stale(polled)
            for event in polled["events"][1:]:
                affected += [one["input"]["room"] for one in event["data"]["affected"]]
            fetch(affected)


@pytest.mark.parametrize(
    ("method", "url", "body", "status", "message"),
    [
        ("GET", "", None, 400, "name a stored set: GET /rpc/events/poll?set=... (POST /rpc/events/sets stores one)"),
        ("GET", "?set=nope", None, 404, "no set 'nope' is stored: store it again (POST /rpc/events/sets)"),
        ("GET", "?set={name}&wait=long", None, 400, "the parameters of the URL do not fit: wait"),
        ("GET", "?set={name}&cursor=yesterday", None, 400, "'yesterday' is no cursor: send back the `id:` of the last"),
        ("POST", "", {"queries": [], "wait": -1}, 400, "the body is no PollRequest"),
        ("POST", "", {"queries": [1]}, 400, "the body is no PollRequest"),
        ("DELETE", "", None, 405, "DELETE does not call events/poll: use POST or GET"),
    ],
)
def test_a_wrong_poll_is_told_what_is_wrong(  # noqa: PLR0917  # pytest passes them by name
    server: Polled, method: str, url: str, body: Any, status: int, message: str
) -> None:
    """Each mistake has its status and words."""
    address = "/rpc/events/poll" + url.format(name=stored(server.url, "a"))
    answer = server.client.request(method, address, json=body)
    assert (answer.status_code, error_of(answer)["message"][: len(message)]) == (status, message)


def test_a_server_that_stops_answers_the_polls_that_wait(tmp_path: Path) -> None:
    """SIGTERM does not wait for their time to be over: each answers with a cursor to go on from, elsewhere."""
    with ServedRooms(tmp_path) as server, httpx.Client(base_url=server.url, timeout=DEADLINE_SECONDS) as client:
        cursor = client.post("/rpc/events/poll", json=in_rooms("a")).json()["cursor"]
        seconds: list[float] = []

        def stop() -> None:
            wait_until(lambda: "reactive_rpc_streams 1.0" in httpx.get(f"{server.url}/rpc/metrics").text)
            seconds.append(server.end())

        with in_background(stop):
            answer = client.post("/rpc/events/poll", json={**in_rooms("a"), "cursor": cursor})
        assert (answer.status_code, answer.json()["cursor"]) == (200, cursor)
        assert seconds[0] < 10.0
        assert "ERROR" not in server.logged()
