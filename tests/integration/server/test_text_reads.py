"""A query written as text is kept until a table that it reads is written; what cannot be told is not kept."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import literal_column, text
from sqlmodel import Session, select
from sqlmodel.ext.asyncio.session import AsyncSession

from reactive_rpc import define_reactive_function

from .rooms import Note, serving

pytestmark = pytest.mark.anyio

COUNT = text("SELECT count(*) FROM busy")
MADE = "CREATE VIEW busy AS SELECT id FROM note WHERE room = 'a'"


@define_reactive_function
async def count_async(db: AsyncSession) -> int:
    """Count through a view, in a coroutine."""
    return int((await (await db.connection()).execute(COUNT)).scalar_one())


@define_reactive_function
def count_sync(db: Session) -> int:
    """The same in a thread."""
    return int(db.connection().execute(COUNT).scalar_one())


@define_reactive_function
async def shouted(db: AsyncSession) -> list[str]:
    """Read with a column that is text."""
    return list((await db.exec(select(literal_column("upper(text)", Note.text.type)).select_from(Note))).all())  # type: ignore[attr-defined]  # a column, not a str


@define_reactive_function
async def by_chance(db: AsyncSession) -> int:
    """Read what no write tells."""
    return int((await (await db.connection()).execute(text("SELECT count(*) + random() FROM visit"))).scalar_one())


FUNCTIONS = {"text": {"count_async": count_async, "count_sync": count_sync, "shouted": shouted, "by_chance": by_chance}}


@pytest.mark.parametrize("name", ["count_async", "count_sync"])
async def test_a_text_is_kept_until_its_table_is_written(file: Path, name: str) -> None:
    """Through a view: another table's writes leave it in place, its own table's drop it."""
    async with serving(file, FUNCTIONS) as server:
        server.write(MADE)
        for expected in (0, 0):
            assert (await server.client.get(f"/rpc/text.{name}")).json() == expected
        server.write("INSERT INTO visit(who) VALUES ('somebody')")
        assert (await server.client.get(f"/rpc/text.{name}")).json() == 0
        assert server.rpc.admin.stats()["hits"] == 2
        server.write("INSERT INTO note(tenant, room, text) VALUES ('t', 'a', 'one')")
        assert (await server.client.get(f"/rpc/text.{name}")).json() == 1
        assert server.rpc.admin.stats()["hits"] == 2


async def test_text_within_a_statement_is_kept(file: Path) -> None:
    """The whole rendered text is looked at."""
    async with serving(file, FUNCTIONS) as server:
        for _ in range(2):
            assert (await server.client.get("/rpc/text.shouted")).json() == []
        server.write("INSERT INTO note(tenant, room, text) VALUES ('t', 'a', 'one')")
        assert (await server.client.get("/rpc/text.shouted")).json() == ["ONE"]
        assert server.rpc.admin.stats()["hits"] == 1


async def test_chance_is_not_kept_and_the_reason_is_logged_once(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The log names the procedure, the construct and the way out."""
    async with serving(file, FUNCTIONS) as server:
        for _ in range(2):
            assert (await server.client.get("/rpc/text.by_chance")).status_code == 200
        assert server.rpc.admin.stats()["stored"] == 0
    reasons = [record.getMessage() for record in caplog.records if "text.by_chance" in record.getMessage()]
    assert len(reasons) == 1
    assert "calls random()" in reasons[0]
    assert "in text()" in reasons[0]
