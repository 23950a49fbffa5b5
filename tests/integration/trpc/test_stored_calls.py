"""The short way of a request that was read before, and the long one: the same messages, counts and route.

A mount with a dependency always goes the long way, as that may refuse; so the same request is sent to two mounts.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from fastapi import Depends, FastAPI
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession
from starlette.types import Message, Scope

from reactive_rpc import Cache, NotFoundError, ReactiveRPC, define_reactive_function
from reactive_rpc.cache.result import CachedResult
from reactive_rpc.web.routing.responses import Headers
from reactive_rpc.web.trpc import stored_calls
from reactive_rpc.web.trpc.envelopes import JSON
from reactive_rpc.web.trpc.stored_calls import StoredCall, StoredCalls
from tests.support.waiting import forever

from .desk import PROCEDURES, Memo, rpc_on
from .test_stored_results import Served

pytestmark = pytest.mark.anyio

MOUNTS = {"/trpc": "/long", "/super": "/long_super"}
"""Prefixes of mounts, and of those that answer the same by the long way."""

DESKS = ("a", "b", "c", "ä")
OFTEN = {b"accept": 0.3, b"if-none-match": 0.5, b"reactive-cursor": 0.3, b"reactive": 0.1, b"authorization": 0.2}
"""How often a request has a header."""

REQUEST_ID = re.compile(rb'"request_id":"[^"]*"')


async def _texts(db: AsyncSession, desk: str) -> list[str]:
    memos = (await db.exec(select(Memo).where(Memo.desk == desk).order_by(col(Memo.id)))).all()
    if not memos:
        raise NotFoundError(f"nothing is on {desk}")
    return [memo.text for memo in memos]


@define_reactive_function(public=True)
async def texts_on(db: AsyncSession, desk: str) -> list[str]:
    """The texts of a desk."""
    return await _texts(db, desk)


@define_reactive_function(public=True, cache=Cache(freshness="token"))
async def lately_on(db: AsyncSession, desk: str) -> list[str]:
    """The texts of a desk, for whoever has its cursor."""
    return await _texts(db, desk)


async def _let_through() -> None:
    """Refuse nobody."""


@dataclass(frozen=True)
class BothWays(Served):
    """An application that serves each request by both ways."""

    app: FastAPI

    async def said(self, scope: Scope) -> tuple[list[Any], Any]:
        """Return what is sent for a request, without ids, and the path of the route that it took."""
        sent: list[Any] = []
        body = iter([{"type": "http.request", "body": b"", "more_body": False}])

        async def receive() -> Message:
            for message in body:
                return message
            await forever()
            raise AssertionError("nobody waits for it")

        async def send(message: Message) -> None:
            body = message.get("body")
            sent.append({**message, "body": body and REQUEST_ID.sub(b"", body)})

        await self.app(scope, receive, send)
        return sent, getattr(scope.get("route"), "path", "")


@asynccontextmanager
async def serving(path: Path) -> AsyncIterator[BothWays]:
    added = {"texts_on": texts_on, "lately_on": lately_on}
    rpc: ReactiveRPC = rpc_on(path, functions={"desk": {**PROCEDURES["desk"], **added}})
    app = FastAPI(lifespan=rpc.lifespan)
    app.include_router(rpc.router)
    app.include_router(rpc.trpc_router(prefix="/super", transformer="superjson"))
    long = [Depends(_let_through)]
    app.include_router(rpc.trpc_router(prefix="/long"), dependencies=long)
    app.include_router(rpc.trpc_router(prefix="/long_super", transformer="superjson"), dependencies=long)
    async with rpc.lifespan(app):
        yield BothWays(rpc, None, path, app)  # type: ignore[arg-type]  # no client: each message is looked at


@pytest.fixture
async def desk(tmp_path: Path, anyio_backend: str) -> AsyncIterator[BothWays]:
    async with serving(tmp_path / "desk.db") as served:
        served.write("INSERT INTO memo (desk, text, author) VALUES ('a', 'one', ''), ('b', 'two', '')")
        yield served


class Requests:
    """Makes requests up, some of which were made before."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self.etags = ['"none"']
        self.cursors = ["none:1"]

    def strict(self, app: FastAPI) -> Scope:
        """Return a request that reads the log."""
        return self._get(app, "/trpc/desk.texts_on", 'input={"desk":"a"}')

    def scope(self, app: FastAPI, prefix: str) -> Scope:
        """Return the next one: GET mostly, of one call or several, with headers that clients send."""
        chance = self._chance
        is_batch = chance.random() < 0.4
        count = chance.randint(1, 4) if is_batch else 1
        names = [f"desk.{chance.choice(['texts_on', 'lately_on', 'ping'])}" for _ in range(count)]
        spelled = [self._input(name, prefix) for name in names]
        text = ("{" + ",".join(f'"{at}":{each}' for at, each in enumerate(spelled)) + "}") if is_batch else spelled[0]
        query = ("batch=1&" if is_batch else "") + f"input={quote(text)}"
        found = self._get(app, f"{prefix}/{','.join(names)}", query)
        method = chance.choice(["GET"] * 18 + ["POST", "HEAD"])
        return {**found, "method": method, "headers": [*found["headers"], *self._headers()]}

    def _get(self, app: FastAPI, path: str, query: str) -> Scope:
        return {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "server": ("test", 80),
            "client": ("127.0.0.1", 1),
            "root_path": "",
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "headers": [(b"host", b"test"), (b"content-type", b"application/json")],
            "app": app,
        }

    def _input(self, name: str, prefix: str) -> str:
        if name == "desk.ping":
            return "null"
        value = {"desk": self._chance.choice(DESKS)}
        given = json.dumps(value if self._chance.random() < 0.95 else {"table": 1})
        return given if "super" not in prefix else f'{{"json":{given}}}'

    def _headers(self) -> list[tuple[bytes, bytes]]:
        chance = self._chance
        etags = chance.sample(self.etags, min(2, len(self.etags)))
        offered = {
            b"accept": chance.choice(["*/*", "application/json", "text/html"]),
            b"if-none-match": chance.choice([etags[0], f"W/{etags[0]}", ", ".join(etags), "*"]),
            b"reactive-cursor": chance.choice(self.cursors),
            b"reactive": "1",
            b"authorization": "Bearer ada",
        }
        return [(name, value.encode()) for name, value in offered.items() if chance.random() < OFTEN[name]]

    def note(self, sent: list[Any]) -> None:
        """Remember what later requests may name."""
        said = dict(sent[0].get("headers", []))
        if b"etag" in said:
            self.etags = [*self.etags[-3:], said[b"etag"].decode()]
            self.cursors = [*self.cursors[-3:], said[b"reactive-cursor"].decode()]


async def play(desk: BothWays, *, rounds: int) -> int:
    """Send requests both ways, with writes between, and hold the answers against each other; return the hits."""
    chance = random.Random(rounds)
    requests = Requests(chance)
    first = desk.hits
    for number in range(rounds):
        if chance.random() < 0.1:
            statement = chance.choice(
                ["INSERT INTO memo (desk, text, author) VALUES (?, 'x', '')", "DELETE FROM memo WHERE desk = ?"]
            )
            desk.write(statement, chance.choice(DESKS))
            # By a query that reads the log: else it would depend on the time whether one with a cursor does.
            await desk.said(requests.strict(desk.app))
        prefix = chance.choice(list(MOUNTS))
        short = requests.scope(desk.app, prefix)
        long = {**short, "path": short["path"].replace(prefix, MOUNTS[prefix])}
        long["raw_path"] = long["path"].encode()
        await desk.said(dict(long))  # by which what is missing is computed
        found = []
        for scope in (short, long):
            before = desk.hits
            sent, route = await desk.said(scope)
            found.append((sent, route.rpartition("/")[2], desk.hits - before))
        requests.note(found[1][0])
        assert found[0] == found[1], f"round {number}: {short}"
    return int(desk.hits - first)


async def test_both_ways_answer_alike(desk: BothWays) -> None:
    """Results, errors and held results, alone and in batches, plain and transformed, while others write."""
    assert await play(desk, rounds=300) > 300


async def test_the_short_way_is_taken(desk: BothWays, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it, the test above would hold the long way against itself."""
    taken: list[int] = []
    answer = StoredCalls.answer

    def counted(self: StoredCalls, *given: Any) -> Any:
        found = answer(self, *given)
        taken.append(0 if found is None else found.status)
        return found

    monkeypatch.setattr(StoredCalls, "answer", counted)
    await play(desk, rounds=300)
    assert taken.count(200) > 50
    assert taken.count(304) > 1
    assert taken.count(0) > 10


def _headers_of_the_first_answer(self: StoredCall, result: CachedResult, token: str) -> Headers:
    if not self._headers:
        self._headers = (*JSON, (b"etag", result.etag.encode()), *self.endpoint.said_of(result))
    return self._headers


@pytest.mark.seeded_bug
@pytest.mark.parametrize(
    ("owner", "name", "wrong"),
    [
        (StoredCall, "headers", _headers_of_the_first_answer),
        (stored_calls, "is_held", lambda scope, etag: False),
        (StoredCalls, "_envelope", lambda self, call, body: b'{"result":{"data":%b}}' % body),
    ],
)
async def test_a_short_way_that_says_something_else_is_found(
    desk: BothWays, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, wrong: Any
) -> None:
    """Headers that are kept for too long, a condition that is not asked, and a transformer that is passed by."""
    monkeypatch.setattr(owner, name, wrong)
    with pytest.raises(AssertionError, match="round"):
        await play(desk, rounds=800)
