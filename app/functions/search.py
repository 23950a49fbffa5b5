"""Finding what agents are, say and remember."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import BaseModel, Field, StringConstraints
from sqlalchemy import func, or_
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from app.functions.tenancy import procedure
from app.models import Agent, Memory, Message
from reactive_rpc import Tenant

__all__ = ["find"]

MOST: Final = 50
"""How many of each kind are shown."""

Text = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=100), Field(examples=["contract"])
]


class SearchResult(BaseModel):
    """What was found; of messages and memories the newest."""

    agents: list[Agent]
    messages: list[Message]
    message_count: int = Field(description="How many messages there are in all.")
    memories: list[Memory]
    memory_count: int = Field(description="How many memories there are in all.")


@procedure.query
async def find(db: AsyncSession, ctx: Tenant, text: Text) -> SearchResult:
    """Find agents by name, role or description, and messages and memories by their text, whatever the case."""
    ours = list((await db.exec(select(Agent.id).where(Agent.organization_id == ctx.tenant))).all())
    has_text = [col(column).icontains(text, autoescape=True) for column in (Agent.name, Agent.role, Agent.description)]
    agents = select(Agent).where(Agent.organization_id == ctx.tenant, or_(*has_text)).order_by(col(Agent.name))
    said = [col(Message.from_agent_id).in_(ours), col(Message.body).icontains(text, autoescape=True)]
    kept = [col(Memory.agent_id).in_(ours), col(Memory.content).icontains(text, autoescape=True)]
    messages = select(Message).where(*said).order_by(col(Message.created_at).desc(), col(Message.id).desc())
    memories = select(Memory).where(*kept).order_by(col(Memory.created_at).desc(), col(Memory.id).desc())
    return SearchResult(
        agents=list((await db.exec(agents.limit(MOST))).all()),
        messages=list((await db.exec(messages.limit(MOST))).all()),
        message_count=(await db.exec(select(func.count()).select_from(Message).where(*said))).one(),
        memories=list((await db.exec(memories.limit(MOST))).all()),
        memory_count=(await db.exec(select(func.count()).select_from(Memory).where(*kept))).one(),
    )
