"""Results that are stored and found by their inputs alone: the same answers as ever, never stale, each counted once."""

from __future__ import annotations

import json
import random
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from fastapi import Depends, FastAPI
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from reactive_rpc import NotFoundError, ReactiveRPC, define_reactive_function
from reactive_rpc.cache.reader import Reader

from .desk import PROCEDURES, Memo, rpc_on

pytestmark = pytest.mark.anyio

DESKS = ("a", "b", "c")
HEADERS_OF_A_RESULT = {"etag", "reactive-version", "reactive-cursor", "cache-control", "vary", "content-type"}


@define_reactive_function(public=True)
async def texts_on(db: AsyncSession, desk: str) -> list[str]:
    """The texts of a desk."""
    memos = (await db.exec(select(Memo).where(Memo.desk == desk).order_by(col(Memo.id)))).all()
    if not memos:
        raise NotFoundError(f"nothing is on {desk}")
    return [memo.text for memo in memos]


@dataclass(frozen=True)
class Served:
    """The desk with a public query, and a plain connection to its database."""

    rpc: ReactiveRPC
    client: httpx.AsyncClient
    path: Path

    def write(self, statement: str, *values: str) -> None:
        """Write as another process would, unknown to the application."""
        with closing(sqlite3.connect(self.path)) as connection, connection:
            connection.execute(statement, values)

    def texts(self, desk: str) -> list[str]:
        """Read the truth."""
        with closing(sqlite3.connect(self.path)) as connection:
            return [text for (text,) in connection.execute("SELECT text FROM memo WHERE desk = ? ORDER BY id", [desk])]

    async def batch(self, *desks: str, prefix: str = "/trpc") -> list[Any]:
        """Return the envelopes of a batch that asks for desks."""
        inputs = quote(json.dumps({str(number): {"desk": desk} for number, desk in enumerate(desks)}))
        answer = await self.client.get(f"{prefix}/{','.join(['desk.texts_on'] * len(desks))}?batch=1&input={inputs}")
        return answer.json()  # type: ignore[no-any-return]  # of JSON

    @property
    def hits(self) -> float:
        """How often a stored result was served."""
        return self.rpc.admin.stats()["hits"]


@asynccontextmanager
async def serving(path: Path) -> AsyncIterator[Served]:
    rpc = rpc_on(path, functions={"desk": {**PROCEDURES["desk"], "texts_on": texts_on}})
    app = FastAPI(lifespan=rpc.lifespan)
    app.include_router(rpc.router)
    app.include_router(rpc.trpc_router(prefix="/super", transformer="superjson"))
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with rpc.lifespan(app), httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield Served(rpc, client, path)


@pytest.fixture
async def desk(tmp_path: Path, anyio_backend: str) -> AsyncIterator[Served]:
    async with serving(tmp_path / "desk.db") as served:
        served.write("INSERT INTO memo (desk, text, author) VALUES ('a', 'one', ''), ('b', 'two', '')")
        yield served


async def test_stored_and_computed_results_stand_in_one_batch(desk: Served) -> None:
    """Each in its place, also an error that lasts; a stored one is a hit, once."""
    first = await desk.batch("a", "c", "b")
    assert [each.get("result") for each in first] == [{"data": ["one"]}, None, {"data": ["two"]}]
    assert first[1]["error"]["data"]["code"] == "NOT_FOUND"
    hits = desk.hits
    assert [without_id(each) for each in await desk.batch("b", "c", "a")] == [
        without_id(first[number]) for number in (2, 1, 0)
    ]
    assert desk.hits == hits + 3
    desk.write("INSERT INTO memo (desk, text, author) VALUES ('c', 'three', '')")
    assert [each["result"]["data"] for each in await desk.batch("a", "c", "b")] == [["one"], ["three"], ["two"]]
    assert desk.hits == hits + 5


def without_id(envelope: dict[str, Any]) -> dict[str, Any]:
    """Return an envelope whose request id, which is another each time, is left out."""
    if "error" in envelope:
        envelope["error"]["data"].pop("request_id")
    return envelope


async def test_one_query_says_of_its_result_what_it_says_when_computed(desk: Served) -> None:
    """The headers of a hit are those of `/rpc`, and the client that has the result is told so."""
    url = f"/trpc/desk.texts_on?input={quote(json.dumps({'desk': 'a'}))}"
    computed = await desk.client.get(url)
    stored = await desk.client.get(url)
    plain = await desk.client.get("/rpc/desk.texts_on?desk=a")
    assert stored.text == computed.text == '{"result":{"data":["one"]}}'
    for name in HEADERS_OF_A_RESULT:
        assert stored.headers[name] == computed.headers[name]
    for name in HEADERS_OF_A_RESULT - {"vary"}:
        assert stored.headers[name] == plain.headers[name]
    held = await desk.client.get(url, headers={"if-none-match": stored.headers["etag"]})
    assert (held.status_code, held.content) == (304, b"")


async def test_a_mount_with_a_transformer_spells_stored_results_its_own_way(desk: Served) -> None:
    """The bytes that are stored are those of JSON, and shared by all mounts."""
    superjson = [{"result": {"data": {"json": ["one"]}}}]
    spelled = quote('{"0":{"json":{"desk":"a"}}}')
    await desk.batch("a")
    for _ in range(2):
        answer = await desk.client.get(f"/super/desk.texts_on?batch=1&input={spelled}")
        assert answer.json() == superjson
    assert await desk.batch("a") == [{"result": {"data": ["one"]}}]


async def test_whoever_may_not_call_is_not_answered_by_what_is_stored(tmp_path: Path) -> None:
    """Dependencies of the application, which may refuse, run before each call."""

    async def refuse(authorization: str = "") -> None:
        if authorization != "yes":
            raise NotFoundError("there is nothing here")

    rpc = rpc_on(tmp_path / "guarded.db", functions={"desk": {"texts_on": texts_on}})
    app = FastAPI(lifespan=rpc.lifespan)
    app.include_router(rpc.router, dependencies=[Depends(refuse)])
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    url = f"/trpc/desk.texts_on?batch=1&input={quote(json.dumps({'0': {'desk': 'a'}}))}"
    async with rpc.lifespan(app), httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        Served(rpc, client, tmp_path / "guarded.db").write(
            "INSERT INTO memo (desk, text, author) VALUES ('a', 'secret', '')"
        )
        for _ in range(2):
            assert "secret" in (await client.get(f"{url}&authorization=yes")).text
        assert (await client.get(url)).status_code == 404


async def search(desk: Served, *, rounds: int) -> None:
    """Write at random, unknown to the application, and hold each batch against the database."""
    chance = random.Random(rounds)
    for number in range(rounds):
        if chance.random() < 0.5:
            statement = chance.choice(
                ["INSERT INTO memo (desk, text, author) VALUES (?, 'x', '')", "DELETE FROM memo WHERE desk = ?"]
            )
            desk.write(statement, chance.choice(DESKS))
        asked = [chance.choice(DESKS) for _ in range(chance.randint(1, 4))]
        answered = [each.get("result", {}).get("data", []) for each in await desk.batch(*asked)]
        assert answered == [desk.texts(each) for each in asked], number


async def test_no_batch_is_stale(desk: Served) -> None:
    """Whatever was committed before it was sent shows in each of its answers."""
    await search(desk, rounds=300)


@pytest.mark.seeded_bug
async def test_a_batch_that_does_not_read_the_log_is_found(desk: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """The search above can fail."""

    async def read_log(self: Reader, freshness: object) -> None:
        pass

    monkeypatch.setattr(Reader, "read_log", read_log)
    with pytest.raises(AssertionError):
        await search(desk, rounds=300)
