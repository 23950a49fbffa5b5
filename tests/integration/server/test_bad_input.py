"""What bad input gets: a clear, typed error with the right status, nothing half-written, and a server that goes on."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from .rooms import JSON, Server, error_of, serving, who

pytestmark = pytest.mark.anyio


class Bad(NamedTuple):
    """A request, and what it must be answered with."""

    method: str
    path: str
    body: bytes | None
    headers: dict[str, str]
    status: int
    code: str


BAD = {
    "unknown procedure": Bad("POST", "notes.nope", b"{}", JSON, 404, "NOT_FOUND"),
    "unknown path below": Bad("GET", "notes.in_room/x", None, {}, 404, "NOT_FOUND"),
    "nothing after the prefix": Bad("GET", "", None, {}, 404, "NOT_FOUND"),
    "malformed JSON": Bad("POST", "notes.add", b'{"room": ', JSON, 400, "PARSE_ERROR"),
    "no JSON at all": Bad("POST", "notes.add", b"\xff\xfe", JSON, 400, "PARSE_ERROR"),
    "JSON too deep": Bad("POST", "notes.in_rooms", b"[" * 50_000, JSON, 400, "PARSE_ERROR"),
    "an unpaired surrogate": Bad("POST", "notes.add", b'{"room":"\\ud800","text":"x"}', JSON, 400, "PARSE_ERROR"),
    "a list for an object": Bad("POST", "notes.add", b"[]", JSON, 400, "BAD_REQUEST"),
    "null for an object": Bad("POST", "notes.add", b"null", JSON, 400, "BAD_REQUEST"),
    "wrong types": Bad("POST", "notes.add", b'{"room": 5, "text": ["x"]}', JSON, 400, "BAD_REQUEST"),
    "a missing field": Bad("POST", "notes.add", b'{"room": "a"}', JSON, 400, "BAD_REQUEST"),
    "an empty body": Bad("POST", "notes.add", b"", JSON, 400, "BAD_REQUEST"),
    "10 MB": Bad("POST", "notes.add", b'"%s"' % (b"x" * 10_000_000), JSON, 413, "PAYLOAD_TOO_LARGE"),
    "a form": Bad(
        "POST", "notes.add", b"room=a&text=x", {"content-type": "application/x-www-form-urlencoded"},
        415, "UNSUPPORTED_MEDIA_TYPE",
    ),
    "JSON that says it is text": Bad(
        "POST", "notes.add", b'{"room":"a","text":"x"}', {"content-type": "text/plain"}, 415, "UNSUPPORTED_MEDIA_TYPE"
    ),
    "JSON that says nothing": Bad("POST", "notes.add", b'{"room":"a","text":"x"}', {}, 415, "UNSUPPORTED_MEDIA_TYPE"),
    "a mutation by GET": Bad("GET", "notes.add?room=a&text=x", None, {}, 405, "METHOD_NOT_SUPPORTED"),
    "PUT": Bad("PUT", "notes.add", b"{}", JSON, 405, "METHOD_NOT_SUPPORTED"),
    "DELETE": Bad("DELETE", "notes.in_room?room=a", None, {}, 405, "METHOD_NOT_SUPPORTED"),
    "a list by GET": Bad("GET", "notes.in_rooms?rooms=a", None, {}, 405, "METHOD_NOT_SUPPORTED"),
    "no parameter": Bad("GET", "notes.in_room", None, {}, 400, "BAD_REQUEST"),
    "a parameter twice": Bad("GET", "notes.in_room?room=a&room=b", None, {}, 400, "BAD_REQUEST"),
    "bytes that are no UTF-8": Bad("GET", "notes.in_room?room=%ff", None, {}, 400, "BAD_REQUEST"),
    "a name without a value": Bad("GET", "notes.in_room?room", None, {}, 400, "BAD_REQUEST"),
    "a query string too long": Bad("GET", f"notes.in_room?room={'a' * 20_000}", None, {}, 400, "BAD_REQUEST"),
    "no number": Bad("GET", "notes.one?id=one", None, {}, 400, "BAD_REQUEST"),
    "an empty number": Bad("GET", "notes.one?id=", None, {}, 400, "BAD_REQUEST"),
    "events: malformed": Bad("POST", "events", b"{", JSON, 400, "PARSE_ERROR"),
    "events: queries of no shape": Bad("POST", "events", b'{"queries": [1]}', JSON, 400, "BAD_REQUEST"),
    "events: no cursor": Bad("POST", "events", b'{"queries": [], "cursor": "yesterday"}', JSON, 400, "BAD_REQUEST"),
    "events: no last id": Bad("POST", "events", b'{"queries": []}', {**JSON, "last-event-id": "7"}, 400, "BAD_REQUEST"),
    "events: no set": Bad("GET", "events", None, {}, 400, "BAD_REQUEST"),
    "events: unknown set": Bad("GET", "events?set=abc", None, {}, 404, "NOT_FOUND"),
    "events: a mutating method": Bad("DELETE", "events", None, {}, 405, "METHOD_NOT_SUPPORTED"),
    "events: too many queries": Bad(
        "POST", "events", b'{"queries": [%s]}' % b",".join([b'{"path": "x"}'] * 1001), JSON, 413, "PAYLOAD_TOO_LARGE"
    ),
    "ack: of nothing": Bad("POST", "events/ack", b"{}", JSON, 400, "BAD_REQUEST"),
    "ack: no cursor": Bad(
        "POST", "events/ack", b'{"stream": "s", "cursor": "yesterday"}', JSON, 400, "BAD_REQUEST"
    ),
    "ack: by GET": Bad("GET", "events/ack", None, {}, 405, "METHOD_NOT_SUPPORTED"),
    "sets: by GET": Bad("GET", "events/sets", None, {}, 405, "METHOD_NOT_SUPPORTED"),
    "sets: too many queries": Bad(
        "POST", "events/sets", b'{"queries": [%s]}' % b",".join([b'{"path": "notes.nope"}'] * 1001), JSON,
        413, "PAYLOAD_TOO_LARGE",
    ),
    "ticket: none such": Bad("GET", "events?set=abc&ticket=x", None, {}, 401, "UNAUTHORIZED"),
    "ticket: two": Bad("GET", "events?ticket=x&ticket=y", None, {}, 400, "BAD_REQUEST"),
    "ticket: no JSON": Bad("POST", "events/ticket", b"{}", {}, 415, "UNSUPPORTED_MEDIA_TYPE"),
    "ticket: by GET": Bad("GET", "events/ticket", None, {}, 405, "METHOD_NOT_SUPPORTED"),
    "poll: malformed": Bad("POST", "events/poll", b"{", JSON, 400, "PARSE_ERROR"),
    "poll: back in time": Bad("POST", "events/poll", b'{"queries": [], "wait": -1}', JSON, 400, "BAD_REQUEST"),
    "poll: no set": Bad("GET", "events/poll", None, {}, 400, "BAD_REQUEST"),
    "poll: unknown set": Bad("GET", "events/poll?set=abc", None, {}, 404, "NOT_FOUND"),
}  # fmt: skip


async def assert_serves(server: Server) -> None:
    """Read and write as if nothing had happened."""
    added = await server.call("notes.add", {"room": "after", "text": "all is well"})
    assert added.status_code == 200, added.text
    read = await server.client.get("/rpc/notes.in_room", params={"room": "after"})
    assert [note["text"] for note in read.json()] == ["all is well"]


@pytest.mark.parametrize("fault", BAD)
async def test_bad_input_is_refused_with_a_typed_error(server: Server, fault: str) -> None:
    """Each fault has its status and its code, in an envelope that names the procedure; nothing is written by it."""
    bad = BAD[fault]
    answer = await server.client.request(bad.method, f"/rpc/{bad.path}", content=bad.body, headers=bad.headers)
    error = error_of(answer)
    assert (answer.status_code, error["code"]) == (bad.status, bad.code)
    assert error["message"]
    assert error["request_id"]
    assert (error["path"] or "") == bad.path.partition("?")[0]
    assert server.rows() == []
    await assert_serves(server)


async def test_the_faults_of_an_input_are_listed(server: Server) -> None:
    """`details` names each field, what is wrong with it, and the kind of fault."""
    error = error_of(await server.call("notes.add", {"room": 5}))
    assert [(fault["loc"], fault["type"]) for fault in error["details"]] == [
        (["room"], "string_type"),
        (["text"], "missing"),
    ]
    assert all(fault["message"] for fault in error["details"])


@pytest.mark.parametrize("id", [2**63, -(2**63) - 1, 10**30])
async def test_a_number_beyond_the_database_is_the_callers_fault(server: Server, id: int) -> None:
    """An integer that no SQLite column can hold answers 4xx: it came from outside."""
    answer = await server.client.get("/rpc/notes.one", params={"id": id})
    assert 400 <= answer.status_code < 500


async def test_a_wrong_method_is_told_the_right_ones(server: Server) -> None:
    """405 comes with `Allow`, also to HEAD, whose answer has no body, and to OPTIONS."""
    for method in ("HEAD", "OPTIONS", "PATCH"):
        answer = await server.client.request(method, "/rpc/notes.in_room?room=a")
        assert (answer.status_code, answer.headers["allow"]) == (405, "GET, POST"), method
    assert (await server.client.get("/rpc/notes.add")).headers["allow"] == "POST"


async def test_a_body_without_a_length_is_counted(server: Server) -> None:
    """10 MB in chunks, with no content length, are refused once they are over the limit."""
    sent = 0

    async def chunks() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(100):
            sent += 100_000
            yield b"x" * 100_000

    answer = await server.client.post("/rpc/notes.add", content=chunks(), headers=JSON)
    assert (answer.status_code, error_of(answer)["code"]) == (413, "PAYLOAD_TOO_LARGE")
    assert sent < 2_000_000
    await assert_serves(server)


async def test_a_percent_sign_is_taken_as_browsers_take_it(server: Server) -> None:
    """`%zz` is no escape, so it stands for itself."""
    await server.call("notes.add", {"room": "%zz", "text": "x"})
    answer = await server.client.get("/rpc/notes.in_room?room=%zz")
    assert [note["room"] for note in answer.json()] == ["%zz"]


@pytest.mark.parametrize("token", [None, "Bearer expired", "Basic dTpw", "Bearer"])
async def test_a_missing_or_expired_token_answers_401(file: Path, token: str | None) -> None:
    """The context's own refusal arrives as an envelope, with the header that names the scheme; nothing is called."""
    headers = {} if token is None else {"authorization": token}
    async with serving(file, context=who) as server:
        for path, body in [("notes.add", {"room": "a", "text": "x"}), ("notes.in_room", {"room": "a"})]:
            answer = await server.call(path, body, **headers)
            assert (answer.status_code, error_of(answer)["code"]) == (401, "UNAUTHORIZED")
            assert error_of(answer)["message"] == "log in again"
            assert answer.headers["www-authenticate"] == "Bearer"
        assert server.rows() == []


@pytest.mark.parametrize("path", ["events", "events/sets"])
async def test_streams_ask_who_listens(file: Path, path: str) -> None:
    """Nobody who is not logged in opens a stream or stores a set."""
    async with serving(file, context=who) as server:
        answer = await server.call(path, {"queries": [{"path": "notes.in_room", "input": {"room": "a"}}]})
    assert (answer.status_code, error_of(answer)["code"]) == (401, "UNAUTHORIZED")


async def test_an_accident_is_logged_and_never_described(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    """The caller gets a request id; the log has the exception under that id."""
    with caplog.at_level(logging.ERROR):
        answer = await server.client.get("/rpc/notes.broken")
    error = error_of(answer)
    assert (answer.status_code, error["code"], error["details"]) == (500, "INTERNAL_SERVER_ERROR", None)
    assert "hunter2" not in answer.text
    assert "ValueError" not in answer.text
    [record] = [record for record in caplog.records if error["request_id"] in record.getMessage()]
    assert record.exc_info is not None
    assert "hunter2" in str(record.exc_info[1])
    await assert_serves(server)


async def test_a_conflict_answers_409_without_the_drivers_words(server: Server) -> None:
    """A unique key that is taken is the caller's to resolve."""
    await server.call("notes.add", {"room": "a", "text": "same"})
    answer = await server.call("notes.add", {"room": "b", "text": "same"})
    assert (answer.status_code, error_of(answer)["code"]) == (409, "CONFLICT")
    assert "note.text" not in answer.text
    assert server.rows() == [("a", "same")]


async def test_reading_goes_on_while_another_process_holds_the_write_lock(server: Server) -> None:
    """A lock keeps writers out, not readers: a mutation that does not get it in time is to be tried again, and works
    once it is gone.
    """
    with closing(sqlite3.connect(server.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        read = await server.client.get("/rpc/notes.in_room", params={"room": "a"})
        refused = await server.call("notes.add", {"room": "a", "text": "x"})
        other.execute("ROLLBACK")
    assert read.status_code == 200
    assert (refused.status_code, error_of(refused)["code"]) == (503, "SERVICE_UNAVAILABLE")
    assert refused.headers["retry-after"] == "1"
    assert server.rows() == []
    await assert_serves(server)


async def test_a_database_that_is_gone_answers_503_and_comes_back(server: Server) -> None:
    """While the file is away nothing is answered from memory; when it is back, everything works without a restart."""
    await server.call("notes.add", {"room": "a", "text": "x"})
    read: Any = {"params": {"room": "a"}}
    assert (await server.client.get("/rpc/notes.in_room", **read)).status_code == 200
    away = server.path.with_suffix(".away")
    server.path.rename(away)
    for answer in [
        await server.client.get("/rpc/notes.in_room", **read),
        await server.call("notes.add", {"room": "a", "text": "y"}),
        await server.call("events", {"queries": [{"path": "notes.in_room", "input": {"room": "a"}}]}),
    ]:
        assert (answer.status_code, error_of(answer)["code"]) == (503, "SERVICE_UNAVAILABLE")
        assert answer.headers["retry-after"] == "1"
    assert not server.path.exists()
    away.rename(server.path)
    assert [note["text"] for note in (await server.client.get("/rpc/notes.in_room", **read)).json()] == ["x"]
    await assert_serves(server)


async def test_another_tenants_stream_set_grants_nothing(file: Path) -> None:
    """A stored set is named by its content: whoever names it subscribes on their own behalf, after logging in."""
    async with serving(file, context=who) as server:
        ann = {"authorization": "Bearer ann@a"}
        stored = await server.call(
            "events/sets", {"queries": [{"path": "notes.in_room", "input": {"room": "a"}}]}, **ann
        )
        name = stored.json()["set"]
        assert (await server.client.get("/rpc/events", params={"set": name})).status_code == 401
