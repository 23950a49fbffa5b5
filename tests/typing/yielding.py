"""How handlers that yield are declared and called: each line marked `# error` is wrong, all others are right."""

# pyright: reportDeprecated=true

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from typing import TYPE_CHECKING, assert_type

from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel, select
from sqlmodel.ext.asyncio.session import AsyncSession

from reactive_rpc import (
    Cache,
    Caller,
    Login,
    NotFoundError,
    Subscription,
    Tenant,
    Tracked,
    current_caller,
    define_reactive_function,
    tracked,
)


class Base(SQLModel, registry=registry()):
    """Keeps the table out of the shared metadata."""


class Agent(Base, table=True):
    id: str = Field(primary_key=True)


@define_reactive_function
async def page(db: AsyncSession, ctx: Login, limit: int = 50) -> list[Agent]:
    return list((await db.exec(select(Agent).limit(limit))).all())


@define_reactive_function.mutation
async def book(db: AsyncSession, seat: str) -> int:
    return 1


@define_reactive_function.subscription
async def events(ctx: Login, room: str, last_event_id: str | None = None) -> AsyncIterator[Tracked[Agent]]:
    async for agents in current_caller().live(page, limit=2):
        assert_type(agents, list[Agent])
        for agent in agents:
            yield tracked(agent.id, agent)


@define_reactive_function.subscription(public=True, raises=[NotFoundError])
async def ticks() -> AsyncGenerator[int, None]:
    yield 1


@define_reactive_function.query(cache=False)
async def export(db: AsyncSession, ctx: Login, year: int) -> AsyncIterator[Agent]:
    async for agent in await db.stream_scalars(select(Agent)):
        yield agent


async def right(call: Caller, db: AsyncSession, ctx: Login) -> None:
    _: Subscription[..., ..., Tracked[Agent]] = events
    async for event in call.stream(events, room="r"):
        assert_type(event, Tracked[Agent])
        assert_type(event.data.id, str)
    async for event in call.stream(events, "r", last_event_id="7"):
        assert_type(event.id, str)
    async for tick in call.stream(ticks):
        assert_type(tick, int)
    async for row in call.stream(export, year=2026):
        assert_type(row, Agent)
    async for found in call.live(page, limit=2):
        assert_type(found, list[Agent])
    async for row in export(db, ctx, 2026):
        assert_type(row, Agent)


async def wrong(call: Caller, event: Tracked[Agent]) -> None:
    await call(events, room="r")  # error: a subscription is streamed
    await call(export, year=1)  # error: a streamed query is streamed
    call.live(book, seat="4B")  # error: a mutation is not followed
    call.live(events, room="r")  # error: a subscription is streamed
    call.live(page, limit="2")  # error: wrong type
    call.stream(page, limit=2)  # error: it has one result
    call.stream(book, seat="4B")  # error: a mutation has one result
    call.stream(events)  # error: room is missing
    call.stream(export, year="2026")  # error: wrong type
    call.stream(export, month=1)  # error: no such input
    _ = event.data.name  # error: no such field
    event.id = "8"  # error: frozen
    tracked(7, "x")  # error: an id is a text


async def one_result(room: str) -> int:
    return 1


def plain_generator(room: str) -> Iterator[int]:
    yield 1


async def with_session(db: AsyncSession, room: str) -> AsyncIterator[int]:
    yield 1


async def of_tenant(ctx: Tenant) -> AsyncIterator[int]:
    yield 1


if TYPE_CHECKING:
    define_reactive_function.subscription(one_result)  # error: a subscription is an async generator
    define_reactive_function.subscription(plain_generator)  # error: it cannot wait for the client
    define_reactive_function.subscription(with_session)  # error: no session for hours
    define_reactive_function.subscription(of_tenant)  # error: a Login is no Tenant
    define_reactive_function.subscription(cache=False)  # error: never cached
    define_reactive_function.subscription(cache=Cache())  # error: never cached
    define_reactive_function.subscription(isolation="serializable")  # error: no transaction
