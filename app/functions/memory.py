"""What agents remember."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from app.functions.tenancy import AgentRef, find_agent
from app.models import Memory, new_id, now
from reactive_rpc import Context, define_reactive_function

__all__ = ["add", "recent"]


class RecentMemories(AgentRef):
    """How far back to go."""

    limit: int = Field(default=20, ge=1, le=200, description="How many at most.")


class MemoryAdd(AgentRef):
    """Something to remember."""

    content: Annotated[str, StringConstraints(min_length=1, max_length=4000)]


@define_reactive_function(scope="tenant")
async def recent(input: RecentMemories, db: AsyncSession, ctx: Context) -> list[Memory]:
    """What an agent has remembered last, newest first."""
    agent = await find_agent(db, input.agent_id, ctx)
    memories = select(Memory).where(Memory.agent_id == agent.id)
    newest_first = memories.order_by(col(Memory.created_at).desc(), col(Memory.id).desc())
    return list((await db.exec(newest_first.limit(input.limit))).all())


@define_reactive_function(kind="mutation")
async def add(input: MemoryAdd, db: AsyncSession, ctx: Context) -> Memory:
    """Let an agent remember something."""
    agent = await find_agent(db, input.agent_id, ctx)
    memory = Memory(id=new_id("memory"), agent_id=agent.id, content=input.content, created_at=now())
    db.add(memory)
    return memory
