"""The agents of an organization."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, TypeVar

from pydantic import BaseModel, Field, StringConstraints, field_validator
from sqlalchemy import delete as sql_delete
from sqlalchemy import func, or_
from sqlalchemy.orm import Mapped
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from app.functions.tenancy import AgentId, find_agent, procedure
from app.models import Agent, Memory, Message, new_id, now
from reactive_rpc import Tenant

__all__ = ["create", "delete", "get_all", "get_one", "get_overview", "get_with_stats", "update"]

T = TypeVar("T")
ShortText = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=100)]
Description = Annotated[str, StringConstraints(max_length=1000)]


class AgentUpdate(BaseModel):
    """What to change of an agent: a field that is left out stays as it is."""

    agent_id: AgentId
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


class AgentOverview(AgentStats):
    """An agent, how much it has done, and what it did last."""

    last_message: Message | None = Field(description="What it has said last.")
    last_memory_at: datetime | None = Field(description="When it has remembered something last.")


class AgentDeleted(BaseModel):
    """What went."""

    agent_id: str
    message_count: int = Field(description="How many messages, sent or received, went with it.")
    memory_count: int = Field(description="How many memories went with it.")


@procedure.query
async def get_all(db: AsyncSession, ctx: Tenant) -> list[Agent]:
    """The agents of your organization, by name."""
    agents = select(Agent).where(Agent.organization_id == ctx.tenant)
    return list((await db.exec(agents.order_by(col(Agent.name), col(Agent.id)))).all())


@procedure.query
async def get_overview(db: AsyncSession, ctx: Tenant) -> list[AgentOverview]:
    """The agents of your organization, by name, with how much each has done and what it did last.

    First the agents, then what belongs to them by their ids, so that only what they write computes it again.
    """
    agents = await get_all(db, ctx)
    ids = [agent.id for agent in agents]
    messages = await _counted(db, col(Message.from_agent_id), col(Message.created_at), ids)
    memories = await _counted(db, col(Memory.agent_id), col(Memory.created_at), ids)
    said = await _last_messages(db, {id: at for id, (_, at) in messages.items()})
    return [
        AgentOverview(
            agent=agent,
            message_count=messages[agent.id][0] if agent.id in messages else 0,
            memory_count=memories[agent.id][0] if agent.id in memories else 0,
            last_message=said.get(agent.id),
            last_memory_at=memories[agent.id][1] if agent.id in memories else None,
        )
        for agent in agents
    ]


@procedure.query
async def get_one(db: AsyncSession, ctx: Tenant, agent_id: AgentId) -> Agent:
    """One agent."""
    return await find_agent(db, ctx, agent_id)


@procedure.query(
    dependencies=[Agent, Message, Memory],
    invalidate_when={
        Message: lambda change, input: input.agent_id in change.keys,
        Memory: lambda change, input: input.agent_id in change.keys,
    },
)
async def get_with_stats(db: AsyncSession, ctx: Tenant, agent_id: AgentId) -> AgentStats:
    """One agent, with the number of messages it has sent and of memories it has."""
    agent = await find_agent(db, ctx, agent_id)
    messages = select(func.count()).select_from(Message).where(Message.from_agent_id == agent.id)
    memories = select(func.count()).select_from(Memory).where(Memory.agent_id == agent.id)
    return AgentStats(
        agent=agent,
        message_count=(await db.exec(messages)).one(),
        memory_count=(await db.exec(memories)).one(),
    )


@procedure.mutation
async def create(
    db: AsyncSession,
    ctx: Tenant,
    name: ShortText,
    role: ShortText = "assistant",
    description: Description | None = None,
) -> Agent:
    """Add an agent to your organization."""
    agent = Agent(
        id=new_id("agent"),
        organization_id=ctx.tenant,
        name=name,
        role=role,
        description=description,
        is_active=True,
        created_at=now(),
    )
    db.add(agent)
    return agent


@procedure.mutation
async def update(db: AsyncSession, ctx: Tenant, input: AgentUpdate) -> Agent:
    """Change an agent: only the fields that are given."""
    agent = await find_agent(db, ctx, input.agent_id)
    return agent.sqlmodel_update(input.model_dump(exclude_unset=True, exclude={"agent_id"}))


@procedure.mutation
async def delete(db: AsyncSession, ctx: Tenant, agent_id: AgentId) -> AgentDeleted:
    """Delete an agent with its memories and with every message it has sent or received."""
    agent = await find_agent(db, ctx, agent_id)
    either = or_(col(Message.from_agent_id) == agent.id, col(Message.to_agent_id) == agent.id)
    messages = await db.exec(sql_delete(Message).where(either))
    memories = await db.exec(sql_delete(Memory).where(col(Memory.agent_id) == agent.id))
    await db.delete(agent)
    return AgentDeleted(agent_id=agent.id, message_count=messages.rowcount, memory_count=memories.rowcount)


async def _counted(
    db: AsyncSession, owner: Mapped[str], moment: Mapped[datetime], agent_ids: Sequence[str]
) -> dict[str, tuple[int, datetime]]:
    """Return how many rows each agent has, and the moment of the newest: `{agent: (count, moment)}`."""
    rows = select(owner, func.count(), func.max(moment)).where(owner.in_(agent_ids)).group_by(owner)
    return {agent_id: (count, newest) for agent_id, count, newest in (await db.exec(rows)).all()}


async def _last_messages(db: AsyncSession, moments: Mapping[str, datetime]) -> dict[str, Message]:
    """Return the message that each agent has sent at a moment: `{agent: message}`."""
    sent = select(Message).where(
        col(Message.from_agent_id).in_(moments), col(Message.created_at).in_(set(moments.values()))
    )
    found = (await db.exec(sent)).all()
    return {each.from_agent_id: each for each in found if moments[each.from_agent_id] == each.created_at}
