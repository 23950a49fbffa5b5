"""Requests that nobody's client sends: none is answered by a 5xx, or by a body that the official client cannot read."""

from __future__ import annotations

import asyncio
import json
from base64 import b64encode
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_from_bytes

import pytest
from fastapi import FastAPI
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from reactive_rpc.web.trpc import inputs
from reactive_rpc.web.trpc.transformers import PLAIN
from tests.support.node import TYPESCRIPT, run_node

from .desk import PROCEDURES, rpc_on

ENDLESS = ("wait", "silent", "added", "broken")
"""Those that never end, and the one that fails by itself."""

FUNCTIONS = {"desk": {name: each for name, each in PROCEDURES["desk"].items() if name not in ENDLESS}}
PATHS = [f"desk.{name}" for name in FUNCTIONS["desk"]]

NESTED = b"[" * 10_000
NO_VALUE = b'{"json":1,"meta":{"values":{"a":["Date"]}}}'
TWICE = b'{"0":{"id":1},"0":{"id":"x","id":2},"__proto__":1,"1":null}'


@dataclass(frozen=True)
class Sent:
    """One request, as it goes over the wire."""

    method: str
    path: str
    query: bytes
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes


@dataclass
class Received:
    """Its answer."""

    status: int
    media_type: str
    body: bytes


def fault_of(sent: Sent, received: Received) -> str | None:
    """Return why the official client could not read an answer; None if it can."""
    if received.status >= 500:
        return f"status {received.status}: {received.body[:300]!r}"
    if received.status in (204, 304):
        return None if not received.body else "a body where none may be"
    if received.media_type.startswith("text/event-stream"):
        return _fault_of_events(received.body)
    if b'"0":[[0],[null' in received.body[:40]:
        return _fault_of_lines(received.body, is_wrapped=sent.path.startswith("/super/"))
    try:
        found = json.loads(received.body)
    except ValueError:
        return f"no JSON: {received.body[:300]!r}"
    return next(filter(None, map(_fault_of_envelope, found if isinstance(found, list) else [found])), None)


def _fault_of_envelope(found: Any) -> str | None:
    if not isinstance(found, dict) or not ({"result", "error"} & set(found)):
        return f"no envelope: {found!r}"
    if "error" in found:
        shape = found["error"].get("json", found["error"])
        return None if isinstance(shape.get("code"), int) else f"an error without a number: {found!r}"
    return None if isinstance(found["result"], dict) else f"no result: {found!r}"


def _fault_of_lines(body: bytes, *, is_wrapped: bool) -> str | None:
    if not body.endswith(b"\n"):
        return "the last line has no end"
    found = [json.loads(line) for line in body.splitlines()]
    head, *lines = [line["json"] for line in found] if is_wrapped else found
    kept = {line[0] for line in lines}
    return None if {int(each) for each in head} <= kept else f"calls without an answer: {body[:300]!r}"


def _fault_of_events(body: bytes) -> str | None:
    events = body.split(b"\n\n")[:-1]
    if not events or not events[0].startswith(b"event: connected\n"):
        return f"no connected first: {body[:300]!r}"
    if any(b"data:" not in event for event in events):
        return f"an event without data: {body[:300]!r}"
    return None


@asynccontextmanager
async def serving(path: Path) -> AsyncIterator[FastAPI]:
    rpc = rpc_on(path, functions=FUNCTIONS)
    app = FastAPI(lifespan=rpc.lifespan)
    app.include_router(rpc.router)
    app.include_router(rpc.trpc_router(prefix="/super", transformer="superjson", allow_method_override=True))
    async with rpc.lifespan(app):
        yield app


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.Runner]:
    """Run all on one loop: hypothesis calls a test many times, each time without one."""
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="module")
def app(loop: asyncio.Runner, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FastAPI]:
    context = serving(tmp_path_factory.mktemp("desk") / "desk.db")
    opened = loop.run(context.__aenter__())
    yield opened
    loop.run(context.__aexit__(None, None, None))


async def answer_to(app: FastAPI, sent: Sent) -> Received:
    """Send a request past every client library, each of which would put it right."""
    scope = {
        "type": "http", "method": sent.method, "path": sent.path, "raw_path": quote(sent.path).encode(),
        "query_string": sent.query, "headers": [*sent.headers], "client": ("127.0.0.1", 1), "scheme": "http",
        "server": ("test", 80), "root_path": "", "http_version": "1.1",
    }  # fmt: skip
    messages = [{"type": "http.request", "body": sent.body, "more_body": False}]
    received = Received(0, "", b"")

    async def receive() -> Any:
        return messages.pop() if messages else await asyncio.Event().wait()

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            received.status = message["status"]
            received.media_type = dict(message["headers"]).get(b"content-type", b"").decode()
        else:
            received.body += message.get("body", b"")

    async with asyncio.timeout(60):
        await app(scope, receive, send)
    return received


names = st.one_of(st.sampled_from([*PATHS, "reactive.eventz", "", "desk", "__proto__"]), st.text(max_size=8))
json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=4), inner, max_size=3)),
    max_leaves=8,
)
batches = st.dictionaries(st.sampled_from(["0", "1", "2", "-1", "00", "x"]), json_values, max_size=3)
texts = st.one_of(
    st.binary(max_size=40),
    json_values.map(lambda value: json.dumps(value).encode()),
    batches.map(lambda value: json.dumps(value).encode()),
    batches.map(lambda value: json.dumps({"json": value, "meta": {"values": value}}).encode()),
    st.sampled_from(
        [
            NESTED,
            TWICE,
            b"{",
            b"\xff",
            b"null",
            b'{"0":1e999}',
            b"9" * 5000,
            b'{"id":NaN}',
        ]
    ),
)
parameters = st.lists(
    st.tuples(
        st.sampled_from(["input", "batch", "batch", "connectionParams", "lastEventId", "x"]),
        st.one_of(st.just(b"1"), texts),
    ),
    max_size=4,
).map(lambda pairs: "&".join(f"{name}={quote_from_bytes(value[:4000])}" for name, value in pairs).encode())
headers = st.lists(
    st.one_of(
        st.tuples(
            st.just(b"content-type"),
            st.sampled_from(
                [
                    b"application/json",
                    b"application/json; charset=x",
                    b"multipart/form-data",
                    b"text/plain",
                    b"\xff",
                    b"application/octet-stream",
                ]
            ),
        ),
        st.tuples(st.sampled_from([b"trpc-accept", b"accept"]), st.sampled_from([b"application/jsonl", b"*/*", b","])),
        st.tuples(st.just(b"authorization"), st.sampled_from([b"Bearer ada", b"\xe9"])),
        st.tuples(st.just(b"reactive"), st.just(b"1")),
        st.tuples(
            st.sampled_from(
                [
                    b"reactive-etags",
                    b"reactive-keys",
                    b"reactive-exact",
                    b"reactive-scope",
                    b"last-event-id",
                    b"idempotency-key",
                    b"if-none-match",
                ]
            ),
            st.one_of(st.just(b'{"0":"a"}'), st.binary(max_size=10)),
        ),
    ),
    max_size=5,
).map(tuple)
requests = st.builds(
    Sent,
    method=st.sampled_from(["GET", "GET", "GET", "POST", "POST", "HEAD", "PUT", "BREW"]),
    path=st.tuples(st.sampled_from(["/trpc/", "/super/"]), st.lists(names, min_size=1, max_size=4)).map(
        lambda each: each[0] + ",".join(each[1])
    ),
    query=st.one_of(parameters, parameters.map(lambda query: b"batch=1&" + query), st.binary(max_size=30)),
    headers=st.one_of(headers, headers.map(lambda few: ((b"trpc-accept", b"application/jsonl"), *few))),
    body=texts,
)

JSON = ((b"content-type", b"application/json"), (b"authorization", b"Bearer ada"))
WORST = [
    Sent("GET", "/trpc/desk.one", b"input=" + NESTED, JSON, b""),
    Sent("POST", "/trpc/desk.add", b"", JSON, NESTED),
    Sent("POST", "/trpc/desk.add,desk.add", b"batch=1", JSON, b'{"0":' + NESTED),
    Sent("POST", "/trpc/desk.add,desk.add", b"batch=1", JSON, TWICE),
    Sent("GET", "/trpc/" + ",".join(["desk.ping"] * 3000), b"batch=1", JSON, b""),
    Sent("GET", "/trpc/desk.ticks", b"connectionParams=" + NESTED, JSON, b""),
    Sent("POST", "/trpc/desk.touch", b"", (*JSON, (b"idempotency-key", b"k")), b"{"),
    Sent("GET", "/trpc/desk.memos", b"input=%7B%22desk%22:%22%5Cud800%22%7D", JSON, b""),
    Sent("POST", "/trpc/desk.attach", b"", ((b"content-type", b"multipart/form-data; boundary=\xff"), JSON[1]), b"--"),
]


@pytest.mark.parametrize("sent", WORST, ids=lambda sent: sent.path[:30])
def test_the_worst_are_refused(app: FastAPI, loop: asyncio.Runner, sent: Sent) -> None:
    """10,000 nested arrays, a name given twice, 3,000 calls, half a body under an idempotency key."""
    assert fault_of(sent, loop.run(answer_to(app, sent))) is None


def search(app: FastAPI, loop: asyncio.Runner, *, cases: int) -> list[dict[str, Any]]:
    """Draw requests until one is answered by something that the official client cannot read; return the answers."""
    found: list[dict[str, Any]] = []

    @settings(max_examples=cases, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(requests)
    @example(WORST[2])
    @example(Sent("GET", "/trpc/desk.ping", b"batch=1", ((b"trpc-accept", b"application/jsonl"),), b""))
    def hold(sent: Sent) -> None:
        received = loop.run(answer_to(app, sent))
        assert (fault := fault_of(sent, received)) is None, fault
        if received.status not in (204, 304) and not received.media_type.startswith("text/event-stream"):
            found.append(_as_link_reads_it(sent, received))

    hold()
    return found


def test_no_request_is_answered_by_something_that_a_client_cannot_read(
    app: FastAPI, loop: asyncio.Runner, tmp_path: Path
) -> None:
    """Random methods, paths, parameters, headers and bodies; the answers are given to the official client, too."""
    found = search(app, loop, cases=400)
    assert {each["link"] for each in found} == {"http", "batch", "stream"}
    assert read_by_client(found, tmp_path) == []


def _as_link_reads_it(sent: Sent, received: Received) -> dict[str, Any]:
    calls, link = 1, "http"
    if b'"0":[[0],[null' in received.body[:40]:
        calls, link = received.body.splitlines()[0].count(b"[[0],"), "stream"
    elif received.body.startswith(b"["):
        calls, link = len(json.loads(received.body)), "batch"
    return {
        "link": link,
        "calls": calls,
        "isTransformed": sent.path.startswith("/super/"),
        "status": received.status,
        "type": received.media_type,
        "body": b64encode(received.body).decode(),
    }


def read_by_client(answers: list[dict[str, Any]], folder: Path) -> list[str]:
    """Return what the official client could not read."""
    file = folder / "answers.jsonl"
    file.write_text("\n".join(map(json.dumps, answers)))
    *faults, last = run_node(TYPESCRIPT / "trpc/readable.ts", str(file)).splitlines()
    assert last == f"{len(answers)} were read"
    return faults


@pytest.mark.seeded_bug
def test_an_error_that_the_official_client_cannot_read_is_found(
    app: FastAPI, loop: asyncio.Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One without its number, which the client needs."""
    monkeypatch.setattr("reactive_rpc.web.trpc.calls.shape_of", lambda error, marks: b'{"message":"no"}')
    found = [_as_link_reads_it(sent, loop.run(answer_to(app, sent))) for sent in WORST[:3]]
    assert len(read_by_client(found, tmp_path)) > 2


@pytest.mark.seeded_bug
@pytest.mark.parametrize("bug", ["nesting", "number", "line"])
def test_a_seeded_bug_is_found(app: FastAPI, loop: asyncio.Runner, monkeypatch: pytest.MonkeyPatch, bug: str) -> None:
    """Nesting that escapes as an exception of its own, an error without its number, a line that is not ended."""
    if bug == "nesting":
        monkeypatch.setattr(inputs, "RecursionError", KeyError, raising=False)
        monkeypatch.setattr(inputs, "ValueError", KeyError, raising=False)
    elif bug == "number":
        monkeypatch.setattr("reactive_rpc.web.trpc.calls.shape_of", lambda error, marks: b'{"message":"no"}')
    else:
        monkeypatch.setattr(PLAIN, "line", lambda before, data, after, **_: before + data + after, raising=False)
    with pytest.raises((AssertionError, BaseExceptionGroup)):
        search(app, loop, cases=400)
