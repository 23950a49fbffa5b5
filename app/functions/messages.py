"""What agents say to each other."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints
from sqlalchemy import ColumnElement, and_, or_
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from app.functions.tenancy import AgentId, Id, find_agent, procedure
from app.models import Message, new_id, now
from reactive_rpc import NotFoundError, Tenant

__all__ = ["get_all", "send"]

Limit = Annotated[int, Field(ge=1, le=200, description="How many at most.")]
Before = Annotated[Id | None, Field(description="The last message of the page before this one.")]
Receiver = Annotated[
    Id | None,
    Field(description="Another agent of your organization; null: all of them.", examples=["agent-0002"]),
]
Body = Annotated[str, StringConstraints(min_length=1, max_length=4000)]


@procedure.query
async def get_all(
    db: AsyncSession, ctx: Tenant, agent_id: AgentId, limit: Limit = 50, before: Before = None
) -> list[Message]:
    """The messages that an agent has sent or received, newest first.

    For the next page, give the last message's id as `before`.
    """
    agent = await find_agent(db, ctx, agent_id)
    theirs = or_(col(Message.from_agent_id) == agent.id, col(Message.to_agent_id) == agent.id)
    page = select(Message).where(theirs)
    if before is not None:
        page = page.where(_older_than(await _find(db, before, theirs)))
    newest_first = page.order_by(col(Message.created_at).desc(), col(Message.id).desc())
    return list((await db.exec(newest_first.limit(limit))).all())


@procedure.mutation
async def send(
    db: AsyncSession, ctx: Tenant, from_agent_id: AgentId, body: Body, to_agent_id: Receiver = None
) -> Message:
    """Say something: to one agent, or to the whole organization."""
    await find_agent(db, ctx, from_agent_id)
    if to_agent_id is not None:
        await find_agent(db, ctx, to_agent_id)
    message = Message(
        id=new_id("message"), from_agent_id=from_agent_id, to_agent_id=to_agent_id, body=body, created_at=now()
    )
    db.add(message)
    return message


async def _find(db: AsyncSession, message_id: str, theirs: ColumnElement[bool]) -> Message:
    message = (await db.exec(select(Message).where(Message.id == message_id, theirs))).first()
    if message is None:
        raise NotFoundError(f"no message {message_id!r}")
    return message


def _older_than(message: Message) -> ColumnElement[bool]:
    """Compare by id where the moment is the same: a page border may fall between two such messages."""
    moment = col(Message.created_at)
    return or_(moment < message.created_at, and_(moment == message.created_at, col(Message.id) < message.id))
