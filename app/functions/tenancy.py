"""What every procedure asks first: does this belong to the caller's organization?

Another tenant's id is answered exactly as an id that does not exist: NOT_FOUND, with the same message. FORBIDDEN would
confirm to a stranger that the record is there. The tenant stands in the WHERE clause too, so that a cached result
depends on the rows of its own tenant alone.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field, StringConstraints
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession

from app.models import MAX_ID, Agent
from reactive_rpc import Context, NotFoundError

__all__ = ["AgentRef", "Id", "OrganizationRef", "find_agent", "require_tenant"]

Id = Annotated[str, StringConstraints(min_length=1, max_length=MAX_ID)]


class OrganizationRef(BaseModel):
    """An organization."""

    organization_id: Id = Field(description="Your own organization.", examples=["org-01"])


class AgentRef(BaseModel):
    """An agent."""

    agent_id: Id = Field(description="An agent of your organization.", examples=["agent-0001"])


def require_tenant(organization_id: str, ctx: Context) -> None:
    """Let only the caller's own organization through.

    Raises:
        NotFoundError: it is another's, or there is none.
    """
    if organization_id != ctx.tenant:
        raise NotFoundError(f"no organization {organization_id!r}")


async def find_agent(db: AsyncSession, agent_id: str, ctx: Context) -> Agent:
    """Return an agent of the caller's organization.

    Raises:
        NotFoundError: it is another's, or there is none.
    """
    wanted = select(Agent).where(Agent.id == agent_id, Agent.organization_id == ctx.tenant)
    agent = (await db.exec(wanted)).first()
    if agent is None:
        raise NotFoundError(f"no agent {agent_id!r}")
    return agent
