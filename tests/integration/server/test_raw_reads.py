"""What a handler reads below SQLAlchemy is not analysed, so its answer, even an error, is not kept."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlmodel import Session, select
from sqlmodel.ext.asyncio.session import AsyncSession

from reactive_rpc import NotFoundError, define_reactive_function

from .rooms import Visit, serving

pytestmark = pytest.mark.anyio


@define_reactive_function
async def first_async(db: AsyncSession) -> str:
    """Look at one table as SQLAlchemy does, and at another behind its back."""
    await db.exec(select(Visit))
    raw = await (await db.connection()).get_raw_connection()
    assert raw.driver_connection is not None
    cursor = await raw.driver_connection.execute("SELECT text FROM note")
    row = await cursor.fetchone()
    await cursor.close()
    if row is None:
        raise NotFoundError("no note yet")
    return str(row[0])


@define_reactive_function
def first_sync(db: Session) -> str:
    """The same in a thread."""
    db.exec(select(Visit))
    row = db.connection().connection.cursor().execute("SELECT text FROM note").fetchone()
    if row is None:
        raise NotFoundError("no note yet")
    return str(row[0])


@pytest.mark.parametrize("name", ["first_async", "first_sync"])
async def test_an_answer_that_rests_on_a_raw_read_is_not_kept(file: Path, name: str) -> None:
    """Neither the error nor the value outlives the call; the next one sees what was written."""
    async with serving(file, {"raw": {"first_async": first_async, "first_sync": first_sync}}) as server:
        assert (await server.client.get(f"/rpc/raw.{name}")).status_code == 404
        server.write("INSERT INTO note(tenant, room, text) VALUES ('t', 'a', 'one')")
        assert (await server.client.get(f"/rpc/raw.{name}")).json() == "one"
        server.write("UPDATE note SET text = 'two'")
        assert (await server.client.get(f"/rpc/raw.{name}")).json() == "two"
