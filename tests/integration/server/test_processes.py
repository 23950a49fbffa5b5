"""A real uvicorn process: streams, disconnects in mid-answer, SIGTERM."""

from __future__ import annotations

import json
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from reactive_rpc.protocol.sse import ServerSentEvent, SSEDecoder
from tests.support.processes import environment_with
from tests.support.waiting import wait_until

from .rooms import JSON, ROOMS, serving

START_SECONDS = 60.0


@dataclass
class Process:
    """A served application."""

    url: str
    port: int
    database: Path
    log: Path
    process: subprocess.Popen[bytes]

    def write(self, room: str, text: str) -> None:
        """Write a note by another connection."""
        with closing(sqlite3.connect(self.database)) as connection, connection:
            connection.execute("INSERT INTO note(tenant, room, text) VALUES ('t', ?, ?)", (room, text))

    def stop(self) -> None:
        """Send SIGTERM and wait for the end, which would not come while anything waits for a client to go away."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(START_SECONDS)


class Stream:
    """One open event stream, read as far as a test asks."""

    def __init__(self, response: httpx.Response) -> None:
        assert response.status_code == 200, response.read()
        self._chunks = response.iter_raw()
        self._decoder = SSEDecoder()
        self._events: list[ServerSentEvent] = []

    def next(self) -> tuple[str, dict[str, Any], str]:
        """Return the name, data and id of the next event."""
        while not self._events:
            self._events = self._decoder.feed(next(self._chunks))
        event = self._events.pop(0)
        return event.event, json.loads(event.data), event.id

    def rest(self) -> list[ServerSentEvent]:
        """Return what comes until the stream ends."""
        return self._events + [event for chunk in self._chunks for event in self._decoder.feed(chunk)]


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Process]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        log = tmp_path / "server.log"
        database = tmp_path / "rooms.db"
        command = [
            sys.executable,
            "-m",
            "uvicorn",
            "--factory",
            "tests.integration.server.served_rooms:make_app",
            "--fd",
            str(listening.fileno()),
        ]
        environment = environment_with(ROOMS_DB=str(database))
        with log.open("wb") as output:
            started = subprocess.Popen(
                command, env=environment, stdout=output, stderr=subprocess.STDOUT, pass_fds=[listening.fileno()]
            )
        try:
            # The socket listens already: this waits in its queue until the server accepts.
            assert httpx.get(f"http://127.0.0.1:{port}/openapi.json", timeout=START_SECONDS).status_code == 200
            yield Process(f"http://127.0.0.1:{port}", port, database, log, started)
        finally:
            started.kill()
            started.wait()


@pytest.fixture
def client(process: Process) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=process.url, timeout=START_SECONDS) as opened:
        yield opened


@contextmanager
def watching(client: httpx.Client, *rooms: str, **request: Any) -> Iterator[Stream]:
    """Open a stream that shows these rooms."""
    queries = [{"path": "notes.in_room", "input": {"room": room}} for room in rooms]
    headers = request.pop("headers", {})
    with client.stream("POST", "/rpc/events", json={"queries": queries, **request}, headers=headers) as response:
        yield Stream(response)


def test_a_stream_tells_of_writes_by_any_process(process: Process, client: httpx.Client) -> None:
    """`connected` is first; a write to a watched room is told with its query, one to another room is not."""
    with watching(client, "a") as stream:
        name, connected, id = stream.next()
        assert (name, connected["stale"], id) == ("connected", [], connected["cursor"])
        process.write("b", "unwatched")
        process.write("a", "watched")
        name, notice, id = stream.next()
        assert name == "invalidation"
        assert notice["affected"] == [{"path": "notes.in_room", "input": {"room": "a"}, "key": connected["queries"][0]}]
        assert (notice["tables"], id) == (["note"], notice["cursor"])
        assert [note["text"] for note in client.get("/rpc/notes.in_room?room=a").json()] == ["watched"]


def test_a_stream_resumes_where_it_was_cut(process: Process, client: httpx.Client) -> None:
    """With the last id, what changed in between is stale in `connected`, and what did not is not."""
    with watching(client, "a", "b") as stream:
        cursor = stream.next()[2]
    process.write("a", "while nobody listened")
    with watching(client, "a", "b", headers={"last-event-id": cursor}) as stream:
        _, connected, _ = stream.next()
        assert [stale["input"] for stale in connected["stale"]] == [{"room": "a"}]
    with watching(client, "a", "b", cursor="another:1") as stream:
        _, connected, _ = stream.next()
        assert [stale["input"] for stale in connected["stale"]] == [{"room": "a"}, {"room": "b"}]


def test_an_etag_tells_what_is_stale(process: Process, client: httpx.Client) -> None:
    """A client that holds the current result is told nothing; one that holds another is told at once."""
    etag = client.get("/rpc/notes.in_room?room=a").headers["etag"]
    query = {"path": "notes.in_room", "input": {"room": "a"}}
    for held, expected in [(etag, 0), ('"other"', 1)]:
        with client.stream("POST", "/rpc/events", json={"queries": [{**query, "etag": held}]}) as response:
            assert len(Stream(response).next()[1]["stale"]) == expected


def test_a_browser_names_a_stored_set(process: Process, client: httpx.Client) -> None:
    """`EventSource` can only GET: the set is stored under its hash, the same hash for the same set."""
    queries = {"queries": [{"path": "notes.in_room", "input": {"room": "a"}}]}
    names = {client.post("/rpc/events/sets", json=queries).json()["set"] for _ in range(2)}
    assert len(names) == 1
    with client.stream("GET", "/rpc/events", params={"set": names.pop()}) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        stream = Stream(response)
        stream.next()
        process.write("a", "x")
        assert stream.next()[0] == "invalidation"


def test_refused_queries_do_not_keep_the_others_from_being_watched(process: Process, client: httpx.Client) -> None:
    """An unknown procedure, a mutation, a wrong input and a handler that fails are each refused by name."""
    queries = [
        {"path": "notes.nope"},
        {"path": "notes.add", "input": {"room": "a", "text": "x"}},
        {"path": "notes.in_room", "input": {"room": 5}},
        {"path": "notes.broken"},
        {"path": "notes.in_room", "input": {"room": "a"}},
    ]
    with client.stream("POST", "/rpc/events", json={"queries": queries}) as response:
        stream = Stream(response)
        _, connected, _ = stream.next()
        assert [refused["error"]["code"] for refused in connected["errors"]] == [
            "NOT_FOUND", "METHOD_NOT_SUPPORTED", "BAD_REQUEST", "INTERNAL_SERVER_ERROR",
        ]  # fmt: skip
        assert "hunter2" not in json.dumps(connected)
        assert [key is None for key in connected["queries"]] == [True, True, True, True, False]
        process.write("a", "x")
        assert stream.next()[0] == "invalidation"


def test_a_database_that_is_replaced_is_a_gap(process: Process, client: httpx.Client) -> None:
    """Another file in the place of the database: every stream is told to fetch again, and then what is new."""
    with watching(client, "a") as stream:
        epoch = stream.next()[2].partition(":")[0]
        copy = process.database.with_suffix(".copy")
        with closing(sqlite3.connect(process.database)) as source, closing(sqlite3.connect(copy)) as target:
            source.backup(target)
        copy.replace(process.database)
        name, gap, id = stream.next()
        assert name == "gap"
        assert gap["reason"]
        assert id.partition(":")[0] != epoch


def test_sigterm_ends_open_streams(process: Process) -> None:
    """Twenty open streams end completely, the process ends by itself, and its log has nothing of level ERROR."""
    with ExitStack() as stack:
        client = stack.enter_context(httpx.Client(base_url=process.url, limits=httpx.Limits(max_connections=None)))
        streams = [stack.enter_context(watching(client, "a", str(n))) for n in range(20)]
        for stream in streams:
            assert stream.next()[0] == "connected"
        process.stop()
        assert [stream.rest() for stream in streams] == [[]] * 20
    log = process.log.read_text()
    assert "ERROR" not in log
    assert "Traceback" not in log


def test_a_client_that_goes_away_in_mid_answer_is_forgotten(process: Process, client: httpx.Client) -> None:
    """Cut in mid-answer, in mid-request and in mid-stream: nothing at level ERROR, and the server goes on."""
    body = b'{"room": "a"}'
    head = b"POST /rpc/%s HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    abuses = [
        head % (b"slow.slowly", len(body)) + body,
        head % (b"notes.add", 1000) + b'{"room": ',
        head % (b"events", 2) + b"{}",
        b"POST /rpc/notes.add HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nZZ\r\n",
        b"\x16\x03\x01 this is no HTTP\r\n\r\n",
    ]
    for abuse in abuses:
        for _ in range(3):
            with socket.create_connection(("127.0.0.1", process.port)) as connection:
                connection.sendall(abuse)
                if abuse is abuses[0]:
                    connection.recv(1)
        assert client.post("/rpc/notes.in_room", json={"room": "a"}).json() == []
    process.stop()
    assert "ERROR" not in process.log.read_text()


def test_ten_megabytes_are_refused_before_they_are_read(process: Process, client: httpx.Client) -> None:
    """The answer comes as soon as the length is known, or the limit is passed; the connection is then closed."""
    head = b"POST /rpc/notes.add HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    with socket.create_connection(("127.0.0.1", process.port)) as connection:
        connection.sendall(head + b"content-length: 10000000\r\n\r\n")
        assert b" 413 " in connection.recv(4096)
    with socket.create_connection(("127.0.0.1", process.port)) as connection:
        connection.sendall(head + b"transfer-encoding: chunked\r\n\r\n")
        chunk = b"%x\r\n%b\r\n" % (100_000, b"x" * 100_000)
        for _ in range(12):
            connection.sendall(chunk)
        assert b" 413 " in connection.recv(4096)
    assert client.post("/rpc/notes.add", json={"room": "a", "text": "x"}, headers=JSON).status_code == 200


def test_nothing_is_left_of_streams_that_ended(process: Process, client: httpx.Client) -> None:
    """After many streams have come and gone, the server counts none of them, and the next is told its events."""
    for _ in range(10):
        with watching(client, "a") as stream:
            assert stream.next()[0] == "connected"
    wait_until(lambda: "reactive_rpc_streams 0.0" in client.get("/rpc/metrics").text)
    assert "reactive_rpc_watched_queries 0.0" in client.get("/rpc/metrics").text
    with watching(client, "a") as stream:
        cursor, id = stream.next()[2], ""
        process.write("a", "x")
        id = stream.next()[2]
        assert int(id.partition(":")[2]) > int(cursor.partition(":")[2])


@pytest.mark.anyio
async def test_a_server_killed_between_commit_and_answer(process: Process) -> None:
    """Whoever sends the mutation again under its key is answered by another worker what the dead one had answered."""
    note, headers = {"room": "a", "text": "x"}, {"idempotency-key": "8e03978e-40d5-43dd-bc93-6894a57f9324"}
    async with httpx.AsyncClient() as client:
        with pytest.raises(httpx.TransportError):
            await client.post(f"{process.url}/rpc/notes.add", json=note, headers={**headers, "x-die": "1"})
    async with serving(process.database, ROOMS) as server:
        assert server.rows() == [("a", "x")]
        again = await server.call("notes.add", note, **headers)
        assert (again.status_code, again.headers["reactive-replayed"]) == (200, "true"), again.text
        assert again.json()["text"] == "x"
        assert server.rows() == [("a", "x")]
