"""What agents say to each other."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final

from pydantic import Field, StringConstraints
from sqlalchemy import ColumnElement, and_, func, or_
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from app.functions.tenancy import AgentId, Id, find_agent, procedure
from app.models import Agent, Message, new_id, now
from reactive_rpc import (
    BadRequestError,
    DeclaredError,
    NotFoundError,
    Page,
    PageCursor,
    PageLimit,
    Tenant,
    Tracked,
    current_caller,
    keyset,
    tracked,
)

__all__ = ["edit", "events", "export", "get_after", "get_all", "get_latest", "send"]

PAGE: Final = 200
"""How many messages a subscription reads at once."""

MOMENT: Final = timedelta(microseconds=1)
"""The least by which databases tell two moments apart."""

Limit = Annotated[int, Field(ge=1, le=200, description="How many at most.")]
After = Annotated[
    str | None,
    Field(
        max_length=200,
        description="Where to go on: `<created_at>/<id>` of the last message that is known, which may be deleted.",
        examples=["2026-01-02T03:04:05.678901+00:00/message-0001"],
    ),
]
Receiver = Annotated[
    Id | None,
    Field(description="Another agent of your organization; null: all of them.", examples=["agent-0002"]),
]
Body = Annotated[str, StringConstraints(min_length=1, max_length=4000)]
Expected = Annotated[str, Field(max_length=4000, description="What the message says as far as you know.")]


class MessageChanged(DeclaredError, code="CONFLICT"):
    """message {message_id!r} was changed meanwhile"""

    message_id: str
    body: str = Field(description="What it says now.")


@procedure.query
async def get_all(
    db: AsyncSession,
    ctx: Tenant,
    agent_id: AgentId,
    *,
    after: PageCursor = None,
    until: PageCursor = None,
    limit: PageLimit = 50,
) -> Page[Message]:
    """A page of the messages that an agent has sent or received, newest first.

    For the next page, give `next` as `after`.
    """
    agent = await find_agent(db, ctx, agent_id)
    newest_first = [col(Message.created_at).desc(), col(Message.id).desc()]
    theirs = select(Message).where(_of(agent.id))
    return await keyset(db, theirs, order_by=newest_first, after=after, until=until, limit=limit)


@procedure.query
async def get_after(
    db: AsyncSession, ctx: Tenant, agent_id: AgentId, after: After = None, limit: Limit = 50
) -> list[Message]:
    """The messages that an agent has sent or received, oldest first: those after one, or all from the first."""
    agent = await find_agent(db, ctx, agent_id)
    theirs = _of(agent.id)
    page = select(Message).where(theirs)
    if after is not None:
        page = page.where(_newer_than(after))
    oldest_first = page.order_by(col(Message.created_at), col(Message.id))
    return list((await db.exec(oldest_first.limit(limit))).all())


@procedure.query
async def get_latest(db: AsyncSession, ctx: Tenant, limit: Limit = 20) -> list[Message]:
    """What the agents of your organization have said last, newest first."""
    ours = list((await db.exec(select(Agent.id).where(Agent.organization_id == ctx.tenant))).all())
    sent = select(Message).where(col(Message.from_agent_id).in_(ours))
    newest_first = sent.order_by(col(Message.created_at).desc(), col(Message.id).desc())
    return list((await db.exec(newest_first.limit(limit))).all())


@procedure.subscription
async def events(ctx: Tenant, agent_id: AgentId, last_event_id: str | None = None) -> AsyncIterator[Tracked[Message]]:
    """The messages that an agent has sent or received, oldest first, and then each as it is sent.

    It goes on after the place that `last_event_id` names, which a client that comes back sends by itself: nothing is
    missed, and nothing told twice, also if that message is deleted.
    """
    after = last_event_id
    while True:
        following = current_caller().live(get_after, agent_id=agent_id, after=after, limit=PAGE)
        async with aclosing(following) as pages:
            page = await anext(pages)
            while not page:
                page = await anext(pages)
        for message in page:
            after = _place_of(message)
            yield tracked(after, message)


@procedure.query(cache=False)
async def export(db: AsyncSession, ctx: Tenant) -> AsyncIterator[Message]:
    """All messages that the agents of your organization have sent, oldest first, one a line."""
    ours = select(Agent.id).where(Agent.organization_id == ctx.tenant)
    sent = select(Message).where(col(Message.from_agent_id).in_(ours))
    async for message in await db.stream_scalars(sent.order_by(col(Message.created_at), col(Message.id))):
        yield message


@procedure.mutation
async def send(
    db: AsyncSession, ctx: Tenant, from_agent_id: AgentId, body: Body, to_agent_id: Receiver = None
) -> Message:
    """Say something: to one agent, or to the whole organization."""
    await find_agent(db, ctx, from_agent_id)
    if to_agent_id is not None:
        await find_agent(db, ctx, to_agent_id)
    message = Message(
        id=new_id("message"),
        from_agent_id=from_agent_id,
        to_agent_id=to_agent_id,
        body=body,
        created_at=await _next_moment(db, from_agent_id, to_agent_id),
    )
    db.add(message)
    return message


@procedure.mutation(raises=[MessageChanged])
async def edit(db: AsyncSession, ctx: Tenant, message_id: Id, body: Body, expected: Expected) -> Message:
    """Say something else in a message, unless somebody has changed it meanwhile."""
    ours = select(Message).join(Agent, col(Agent.id) == Message.from_agent_id)
    message = (await db.exec(ours.where(Message.id == message_id, Agent.organization_id == ctx.tenant))).first()
    if message is None:
        raise NotFoundError(f"no message {message_id!r}")
    if message.body != expected:
        raise MessageChanged(message_id=message_id, body=message.body)
    message.body = body
    return message


async def _next_moment(db: AsyncSession, *agent_ids: str | None) -> datetime:
    """Return the present, or a moment after the newest message of these agents, if a clock is behind.

    Mutations are serializable, and this one reads what another that runs beside it writes. So of the two messages of
    one agent, the later one is also committed later, and whoever has read up to it has missed nothing.
    """
    theirs = or_(*(_of(each) for each in agent_ids if each is not None))
    newest: datetime | None = (await db.exec(select(func.max(Message.created_at)).where(theirs))).one()
    return now() if newest is None else max(now(), newest + MOMENT)


def _of(agent_id: str) -> ColumnElement[bool]:
    return or_(col(Message.from_agent_id) == agent_id, col(Message.to_agent_id) == agent_id)


def _place_of(message: Message) -> str:
    return f"{message.created_at.isoformat()}/{message.id}"


def _newer_than(place: str) -> ColumnElement[bool]:
    """Compare by id where the moment is the same: the border may fall between two such messages."""
    spelled, _, id = place.partition("/")
    try:
        moment = datetime.fromisoformat(spelled)
        if moment.tzinfo is None:
            raise BadRequestError(f"after: {place!r} names no zone: give `created_at` as it was answered")
        moment = moment.astimezone(UTC)
    except (ValueError, OverflowError) as exc:
        raise BadRequestError(f"after: {place!r} is no place: give `<created_at>/<id>` of a message") from exc
    created_at = col(Message.created_at)
    return or_(created_at > moment, and_(created_at == moment, col(Message.id) > id))
