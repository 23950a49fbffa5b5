"""What agents remember."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from app.functions.tenancy import AgentId, find_agent, procedure
from app.models import Memory, new_id, now
from reactive_rpc import Tenant

__all__ = ["add", "recent"]

Limit = Annotated[int, Field(ge=1, le=200, description="How many at most.")]
Content = Annotated[str, StringConstraints(min_length=1, max_length=4000)]


@procedure.query
async def recent(db: AsyncSession, ctx: Tenant, agent_id: AgentId, limit: Limit = 20) -> list[Memory]:
    """What an agent has remembered last, newest first."""
    agent = await find_agent(db, ctx, agent_id)
    memories = select(Memory).where(Memory.agent_id == agent.id)
    newest_first = memories.order_by(col(Memory.created_at).desc(), col(Memory.id).desc())
    return list((await db.exec(newest_first.limit(limit))).all())


@procedure.mutation
async def add(db: AsyncSession, ctx: Tenant, agent_id: AgentId, content: Content) -> Memory:
    """Let an agent remember something."""
    agent = await find_agent(db, ctx, agent_id)
    memory = Memory(id=new_id("memory"), agent_id=agent.id, content=content, created_at=now())
    db.add(memory)
    return memory
