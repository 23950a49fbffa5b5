"""What agents say to each other."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field, StringConstraints
from sqlalchemy import ColumnElement, and_, or_
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from app.functions.tenancy import AgentRef, Id, find_agent
from app.models import Message, new_id, now
from reactive_rpc import Context, NotFoundError, define_reactive_function

__all__ = ["get_all", "send"]


class MessagePage(AgentRef):
    """A page of an agent's messages."""

    limit: int = Field(default=50, ge=1, le=200, description="How many at most.")
    before: Id | None = Field(default=None, description="The last message of the page before this one.")


class MessageSend(BaseModel):
    """A new message."""

    from_agent_id: Id = Field(description="An agent of your organization.", examples=["agent-0001"])
    to_agent_id: Id | None = Field(
        default=None, description="Another agent of your organization; null: all of them.", examples=["agent-0002"]
    )
    body: Annotated[str, StringConstraints(min_length=1, max_length=4000)]


@define_reactive_function(scope="tenant")
async def get_all(input: MessagePage, db: AsyncSession, ctx: Context) -> list[Message]:
    """The messages that an agent has sent or received, newest first.

    For the next page, give the last message's id as `before`.
    """
    agent = await find_agent(db, input.agent_id, ctx)
    theirs = or_(col(Message.from_agent_id) == agent.id, col(Message.to_agent_id) == agent.id)
    page = select(Message).where(theirs)
    if input.before is not None:
        page = page.where(_older_than(await _find(db, input.before, theirs)))
    newest_first = page.order_by(col(Message.created_at).desc(), col(Message.id).desc())
    return list((await db.exec(newest_first.limit(input.limit))).all())


@define_reactive_function(kind="mutation")
async def send(input: MessageSend, db: AsyncSession, ctx: Context) -> Message:
    """Say something: to one agent, or to the whole organization."""
    await find_agent(db, input.from_agent_id, ctx)
    if input.to_agent_id is not None:
        await find_agent(db, input.to_agent_id, ctx)
    message = Message(**input.model_dump(), id=new_id("message"), created_at=now())
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
