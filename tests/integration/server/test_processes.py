"""A real uvicorn process: streams, disconnects in mid-answer, SIGTERM."""

from __future__ import annotations

import json
import socket
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.waiting import wait_until

from .rooms import JSON, ROOMS, serving
from .streams import DEADLINE_SECONDS, Heard, ServedRooms, in_rooms


@pytest.fixture
def process(tmp_path: Path) -> Iterator[ServedRooms]:
    with ServedRooms(tmp_path) as served:
        yield served


@pytest.fixture
def client(process: ServedRooms) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=process.url, timeout=DEADLINE_SECONDS) as opened:
        yield opened


@contextmanager
def watching(client: httpx.Client, *rooms: str, **request: Any) -> Iterator[Heard]:
    """Open a stream that shows these rooms."""
    headers = request.pop("headers", {})
    with client.stream("POST", "/rpc/events", json={**in_rooms(*rooms), **request}, headers=headers) as response:
        assert response.status_code == 200, response.read()
        yield Heard(response)


def test_a_stream_tells_of_writes_by_any_process(process: ServedRooms, client: httpx.Client) -> None:
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


def test_a_stream_resumes_where_it_was_cut(process: ServedRooms, client: httpx.Client) -> None:
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


def test_an_etag_tells_what_is_stale(process: ServedRooms, client: httpx.Client) -> None:
    """A client that holds the current result is told nothing; one that holds another is told at once."""
    etag = client.get("/rpc/notes.in_room?room=a").headers["etag"]
    query = {"path": "notes.in_room", "input": {"room": "a"}}
    for held, expected in [(etag, 0), ('"other"', 1)]:
        with client.stream("POST", "/rpc/events", json={"queries": [{**query, "etag": held}]}) as response:
            assert len(Heard(response).next()[1]["stale"]) == expected


def test_a_browser_names_a_stored_set(process: ServedRooms, client: httpx.Client) -> None:
    """`EventSource` can only GET: the set is stored under its hash, the same hash for the same set."""
    queries = {"queries": [{"path": "notes.in_room", "input": {"room": "a"}}]}
    names = {client.post("/rpc/events/sets", json=queries).json()["set"] for _ in range(2)}
    assert len(names) == 1
    with client.stream("GET", "/rpc/events", params={"set": names.pop()}) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        stream = Heard(response)
        stream.next()
        process.write("a", "x")
        assert stream.next()[0] == "invalidation"


def test_refused_queries_do_not_keep_the_others_from_being_watched(process: ServedRooms, client: httpx.Client) -> None:
    """An unknown procedure, a mutation, a wrong input and a handler that fails are each refused by name."""
    queries = [
        {"path": "notes.nope"},
        {"path": "notes.add", "input": {"room": "a", "text": "x"}},
        {"path": "notes.in_room", "input": {"room": 5}},
        {"path": "notes.broken"},
        {"path": "notes.in_room", "input": {"room": "a"}},
    ]
    with client.stream("POST", "/rpc/events", json={"queries": queries}) as response:
        stream = Heard(response)
        _, connected, _ = stream.next()
        assert [refused["error"]["code"] for refused in connected["errors"]] == [
            "NOT_FOUND", "METHOD_NOT_SUPPORTED", "BAD_REQUEST", "INTERNAL_SERVER_ERROR",
        ]  # fmt: skip
        assert "hunter2" not in json.dumps(connected)
        assert [key is None for key in connected["queries"]] == [True, True, True, True, False]
        process.write("a", "x")
        assert stream.next()[0] == "invalidation"


def test_a_database_that_is_replaced_is_a_gap(process: ServedRooms, client: httpx.Client) -> None:
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


def test_sigterm_ends_open_streams(process: ServedRooms) -> None:
    """Twenty open streams end completely, the process ends by itself, and its log has nothing of level ERROR."""
    with ExitStack() as stack:
        client = stack.enter_context(httpx.Client(base_url=process.url, limits=httpx.Limits(max_connections=None)))
        streams = [stack.enter_context(watching(client, "a", str(n))) for n in range(20)]
        for stream in streams:
            assert stream.next()[0] == "connected"
        process.end()
        assert [stream.rest() for stream in streams] == [[]] * 20
    log = process.logged()
    assert "ERROR" not in log
    assert "Traceback" not in log


def test_a_client_that_goes_away_in_mid_answer_is_forgotten(process: ServedRooms, client: httpx.Client) -> None:
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
    process.end()
    assert "ERROR" not in process.logged()


def test_ten_megabytes_are_refused_before_they_are_read(process: ServedRooms, client: httpx.Client) -> None:
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


def test_nothing_is_left_of_streams_that_ended(process: ServedRooms, client: httpx.Client) -> None:
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
async def test_a_server_killed_between_commit_and_answer(process: ServedRooms) -> None:
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
