"""Values that JSON alone cannot carry, over the wire: told apart alike wherever they are read, or refused by place."""

from __future__ import annotations

import logging
from datetime import UTC, date, datetime, time
from math import nan
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from pydantic import BaseModel, ConfigDict
from sqlmodel import Field, Session, col, create_engine, select
from sqlmodel.ext.asyncio.session import AsyncSession

from reactive_rpc import define_reactive_function
from reactive_rpc.procedures.call import decode_json_input
from tests.support.calls import by_path

from .rooms import Base, error_of, serving


class When(BaseModel):
    model_config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")
    at: datetime | str
    content: bytes = b""


class Invoice(Base, table=True):
    id: int | None = Field(default=None, primary_key=True)
    due: date
    at: time
    reference: UUID
    content: bytes | None = None
    model_config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")  # type: ignore[assignment]  # SQLModel's own


class Statistics(BaseModel):
    name: str
    means: dict[str, float | None]


pytestmark = pytest.mark.anyio
SEEN: list[When] = []


@define_reactive_function
async def echo(input: When) -> When:
    """Give back what came."""
    SEEN.append(input)
    return input


@define_reactive_function
async def statistics() -> list[Statistics]:
    """Means, one of them of nothing."""
    return [Statistics(name="a", means={"x": 1.5, "y": None}), Statistics(name="b", means={"x": nan})]


@define_reactive_function
async def loose() -> dict[str, Any]:
    """A moment where anything may stand."""
    return {"at": datetime(2026, 1, 2, tzinfo=UTC)}


class Ordered(BaseModel):
    fields: dict[str, int]


@define_reactive_function
async def order(input: Ordered) -> list[str]:
    """The keys as they came."""
    return list(input.fields)


@define_reactive_function.mutation
async def bill(db: AsyncSession) -> Invoice:
    """Store one invoice."""
    invoice = Invoice(due=date(2026, 1, 2), at=time(3), reference=UUID(int=7), content=b"\xff")
    db.add(invoice)
    return invoice


@define_reactive_function
async def invoices(db: AsyncSession) -> dict[str, list[Invoice]]:
    """All invoices."""
    return {"all": list((await db.exec(select(Invoice))).all())}


async def test_a_call_in_this_process_returns_rows_as_they_were_stored(file: Path) -> None:
    """Typed as the columns are, and usable as what they are: to be merged into a session, and added to one."""
    async with serving(file, {"test": {"bill": bill, "invoices": invoices}}) as server:
        call = server.rpc.caller()
        made = await call(bill)
        (read,) = (await call(invoices))["all"]
        expected = (date(2026, 1, 2), time(3), UUID(int=7), b"\xff")
        for invoice in (made, read):
            assert (invoice.due, invoice.at, invoice.reference, invoice.content) == expected
    with Session(create_engine(f"sqlite:///{file}")) as session:
        read.due = date(2027, 1, 2)
        session.merge(read)
        made.id = None
        session.add(made)
        session.commit()
        assert [invoice.due for invoice in session.exec(select(Invoice).order_by(col(Invoice.id)))] == [
            date(2027, 1, 2), date(2026, 1, 2),
        ]  # fmt: skip


async def test_the_order_of_a_mapping_is_part_of_the_input(file: Path) -> None:
    """A handler sees the order of a dict, so two orders are two results."""
    async with serving(file, {"maps": {"order": order}}) as server:
        first = await server.call("maps.order", {"fields": {"a": 1, "b": 2}})
        second = await server.call("maps.order", {"fields": {"b": 2, "a": 1}})
    assert (first.json(), second.json()) == (["a", "b"], ["b", "a"])


async def test_a_text_beside_moments_stays_one(file: Path) -> None:
    """In the body of a call, in its answer, in this process, and in what a stream watches: "2020" is no moment."""
    async with serving(file, {"test": {"echo": echo}}) as server:
        for text, expected in [("2020", "2020"), ("2020-01-02T00:00:00Z", datetime(2020, 1, 2, tzinfo=UTC))]:
            SEEN.clear()
            answer = await server.call("test.echo", {"at": text, "content": "_w=="})
            assert (answer.json(), SEEN[0].at, SEEN[0].content) == ({"at": text, "content": "_w=="}, expected, b"\xff")
            assert (await by_path(server.rpc)("test.echo", at=expected)).at == expected
    watched = decode_json_input("test.echo", echo, b'{"at": "2020"}')
    assert isinstance(watched, When)
    assert watched.at == "2020"


async def test_a_text_that_is_spelled_like_a_moment_is_refused(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Nobody could tell it from one: the handler that returns it is told where."""
    caplog.set_level(logging.CRITICAL, "reactive_rpc.web")

    @define_reactive_function
    async def returned() -> When:
        return When(at="2020-01-02T00:00:00Z")

    async with serving(file, {"test": {"returned": returned}}) as server:
        answer = await server.client.get("/rpc/test.returned")
    assert (answer.status_code, error_of(answer)["message"]) == (
        500, "returned returned what would arrive as another value, at at",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("function", "where"), [(statistics, "[1].means['x']: nan is no number"), (loose, "['at']: a datetime")]
)
async def test_what_json_has_no_number_or_type_for_is_refused_by_place(
    file: Path, caplog: pytest.LogCaptureFixture, function: Any, where: str
) -> None:
    """One NaN does not cost the client its list with advice to generate again; the log says where it stands."""
    async with serving(file, {"test": {"read": function}}) as server:
        answer = await server.client.get("/rpc/test.read")
    assert answer.status_code == 500
    assert where in caplog.text
