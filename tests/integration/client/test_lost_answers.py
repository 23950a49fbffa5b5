"""Mutations whose answer is cut off on its way, against the real server: made once, and answered."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from pydantic import BaseModel
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel
from sqlmodel.ext.asyncio.session import AsyncSession
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from reactive_rpc import ReactiveRPC, RPCError, define_reactive_function
from reactive_rpc.client import AsyncClient, Mutation, Procedure, SyncClient, SyncMutation
from reactive_rpc.errors import ConnectionFailedError
from reactive_rpc.testing import running

from .teamhub import play


class Base(SQLModel, registry=registry()):
    """Keeps this table out of the metadata that all of a test run's modules share."""


class Order(Base, table=True):
    id: int | None = Field(default=None, primary_key=True)
    item: str


class NewOrder(BaseModel):
    """What is ordered."""

    item: str


@define_reactive_function.mutation
async def order(db: AsyncSession, input: NewOrder) -> int:
    """Order something; return the number of the order."""
    row = Order(item=input.item)
    db.add(row)
    await db.flush()
    assert row.id is not None
    return row.id


ORDER: Procedure[int] = Procedure(
    path="orders.order", url="/rpc/orders.order", method="POST", input=NewOrder, output=int
)


class Cut:
    """A middleware that closes the connection in the place of the next `losses` answers to a POST."""

    losses = 0

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let everything through but those answers."""
        loses = scope["type"] == "http" and scope["method"] == "POST" and Cut.losses > 0
        Cut.losses -= loses

        async def cut(message: Message) -> None:
            if message["type"] == "http.response.start":
                await send({**message, "headers": [(b"content-length", b"1000")]})  # and never the thousand bytes

        await self._app(scope, receive, cut if loses else send)


@pytest.fixture(scope="module")
def orders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A server whose answers get lost; give its URL and its database."""
    path = tmp_path_factory.mktemp("orders") / "orders.db"
    rpc = ReactiveRPC(f"sqlite+aiosqlite:///{path}", functions={"orders": {"order": order}}, metadata=Order.metadata)
    app = FastAPI(lifespan=rpc.lifespan)
    app.include_router(rpc.router)
    app.add_middleware(Cut)
    with running(app) as url:
        yield url, path


def ordered(path: Path, item: str) -> list[int]:
    """Return the numbers of the orders of an item."""
    with closing(sqlite3.connect(path)) as connection:
        return [id for (id,) in connection.execute('SELECT id FROM "order" WHERE item = ?', (item,))]


@pytest.mark.parametrize("losses", [0, 1, 2])
def test_what_is_sent_again_is_made_once_and_answered(orders: tuple[str, Path], losses: int) -> None:
    """Under a key of the client's own or of the caller's: one row, whose number the caller is told."""
    url, path = orders

    async def scenario() -> None:
        for name, has_own in (("own", True), ("given", False)):
            async with AsyncClient(url, retry_mutations=has_own) as client:
                item = f"{name}-{losses}"
                mutation: Any = Mutation(client, ORDER)
                called = mutation if has_own else mutation.with_idempotency_key(f"a-key-of-the-callers-{losses}")
                Cut.losses = losses
                assert [await called._call({"item": item})] == ordered(path, item)
                assert Cut.losses == 0

    play(scenario)


def test_a_key_is_of_one_input(orders: tuple[str, Path]) -> None:
    """The synchronous client too is answered the same under it, and refused where the input is another."""
    url, path = orders
    with SyncClient(url) as client:
        mutation: Any = SyncMutation(client, ORDER).with_idempotency_key("another-key-of-the-callers")
        assert [mutation._call({"item": "tea"}), mutation._call({"item": "tea"})] == ordered(path, "tea") * 2
        with pytest.raises(RPCError) as refused:
            mutation._call({"item": "coffee"})
        assert refused.value.code == "UNPROCESSABLE_CONTENT"
    assert ordered(path, "coffee") == []


def test_without_a_key_the_caller_is_told_that_nobody_knows(orders: tuple[str, Path]) -> None:
    """It was made, and it is not sent again."""
    url, path = orders
    Cut.losses = 1
    with SyncClient(url) as client, pytest.raises(ConnectionFailedError):
        SyncMutation(client, ORDER)._call({"item": "once"})
    assert len(ordered(path, "once")) == 1
