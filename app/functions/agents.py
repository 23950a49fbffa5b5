"""The agents of an organization."""

from __future__ import annotations

from typing import Annotated, TypeVar

from pydantic import BaseModel, Field, StringConstraints, field_validator
from sqlalchemy import delete as sql_delete
from sqlalchemy import func, or_
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from app.functions.tenancy import AgentRef, OrganizationRef, find_agent, require_tenant
from app.models import Agent, Memory, Message, new_id, now
from reactive_rpc import Context, define_reactive_function

__all__ = ["create", "delete", "get_all", "get_one", "get_with_stats", "update"]

T = TypeVar("T")
ShortText = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=100)]
Description = Annotated[str, StringConstraints(max_length=1000)]


class AgentCreate(OrganizationRef):
    """A new agent."""

    name: ShortText
    role: ShortText = "assistant"
    description: Description | None = None


class AgentUpdate(AgentRef):
    """What to change of an agent: a field that is left out stays as it is."""

    name: ShortText | None = None
    role: ShortText | None = None
    description: Description | None = Field(default=None, description="null removes it.")
    is_active: bool | None = None

    @field_validator("name", "role", "is_active")
    @classmethod
    def refuse_null(cls, value: T | None) -> T:
        """Refuse a null that was sent; pydantic asks nothing about a field that was left out."""
        if value is None:
            raise ValueError("null is no value of this field: leave it out to keep what is there")
        return value


class AgentStats(BaseModel):
    """An agent, and how much it has done."""

    agent: Agent
    message_count: int = Field(description="How many messages it has sent.")
    memory_count: int = Field(description="How many memories it has.")


class AgentDeleted(BaseModel):
    """What went."""

    agent_id: str
    message_count: int = Field(description="How many messages, sent or received, went with it.")
    memory_count: int = Field(description="How many memories went with it.")


@define_reactive_function(scope="tenant")
async def get_all(input: OrganizationRef, db: AsyncSession, ctx: Context) -> list[Agent]:
    """The agents of your organization, by name."""
    require_tenant(input.organization_id, ctx)
    agents = select(Agent).where(Agent.organization_id == input.organization_id)
    return list((await db.exec(agents.order_by(col(Agent.name), col(Agent.id)))).all())


@define_reactive_function(scope="tenant")
async def get_one(input: AgentRef, db: AsyncSession, ctx: Context) -> Agent:
    """One agent."""
    return await find_agent(db, input.agent_id, ctx)


@define_reactive_function(
    scope="tenant",
    dependencies=[Agent, Message, Memory],
    invalidate_when={
        Message: lambda change, input: input.agent_id in change.keys,
        Memory: lambda change, input: input.agent_id in change.keys,
    },
)
async def get_with_stats(input: AgentRef, db: AsyncSession, ctx: Context) -> AgentStats:
    """One agent, with the number of messages it has sent and of memories it has."""
    agent = await find_agent(db, input.agent_id, ctx)
    messages = select(func.count()).select_from(Message).where(Message.from_agent_id == agent.id)
    memories = select(func.count()).select_from(Memory).where(Memory.agent_id == agent.id)
    return AgentStats(
        agent=agent,
        message_count=(await db.exec(messages)).one(),
        memory_count=(await db.exec(memories)).one(),
    )


@define_reactive_function(kind="mutation")
async def create(input: AgentCreate, db: AsyncSession, ctx: Context) -> Agent:
    """Add an agent to your organization."""
    require_tenant(input.organization_id, ctx)
    agent = Agent(**input.model_dump(), id=new_id("agent"), is_active=True, created_at=now())
    db.add(agent)
    return agent


@define_reactive_function(kind="mutation")
async def update(input: AgentUpdate, db: AsyncSession, ctx: Context) -> Agent:
    """Change an agent: only the fields that are given."""
    agent = await find_agent(db, input.agent_id, ctx)
    return agent.sqlmodel_update(input.model_dump(exclude_unset=True, exclude={"agent_id"}))


@define_reactive_function(kind="mutation")
async def delete(input: AgentRef, db: AsyncSession, ctx: Context) -> AgentDeleted:
    """Delete an agent with its memories and with every message it has sent or received."""
    agent = await find_agent(db, input.agent_id, ctx)
    either = or_(col(Message.from_agent_id) == agent.id, col(Message.to_agent_id) == agent.id)
    messages = await db.exec(sql_delete(Message).where(either))
    memories = await db.exec(sql_delete(Memory).where(col(Memory.agent_id) == agent.id))
    await db.delete(agent)
    return AgentDeleted(agent_id=agent.id, message_count=messages.rowcount, memory_count=memories.rowcount)
