"""Predicates (`invalidate_when`) on a running server: none can overlook a change that concerns its query."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import BaseModel
from sqlalchemy import NullPool, create_engine
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel
from sqlmodel.ext.asyncio.session import AsyncSession

from reactive_rpc import define_reactive_function

from .rooms import serving

pytestmark = pytest.mark.anyio


class Own(SQLModel, registry=registry()):
    """Keeps this table out of the metadata of the other tests."""


class LongKeyed(Own, table=True):
    id: str = Field(primary_key=True)
    n: int = 0


class LongId(BaseModel):
    id: str


@define_reactive_function(invalidate_when={LongKeyed: lambda change, input: not change.keys.isdisjoint({input.id})})
async def by_long_key(db: AsyncSession, input: LongId) -> int:
    found = await db.get(LongKeyed, input.id)
    return -1 if found is None else found.n


async def test_a_predicate_cannot_overlook_a_key_that_was_not_captured(file: Path) -> None:
    """`change.keys` raises for every question that an uncaptured key leaves open, not only for `in`."""
    key = "https://example.org/" + "x" * 60
    Own.metadata.create_all(create_engine(f"sqlite:///{file}", poolclass=NullPool))
    async with serving(file, {"n": {"q": by_long_key}}) as server:
        server.write("INSERT INTO longkeyed(id, n) VALUES (?, 1)", key)
        assert (await server.client.get("/rpc/n.q", params={"id": key})).json() == 1
        server.write("UPDATE longkeyed SET n = 2")
        assert (await server.client.get("/rpc/n.q", params={"id": key})).json() == 2
