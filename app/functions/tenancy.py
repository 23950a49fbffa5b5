"""What every procedure asks first: does this belong to the caller's organization?

Another tenant's id is answered exactly as an id that does not exist: NOT_FOUND, with the same message. FORBIDDEN would
confirm to a stranger that the record is there. The tenant stands in the WHERE clause too, so that a cached result
depends on the rows of its own tenant alone.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession

from app.models import MAX_ID, Agent
from reactive_rpc import DeclaredError, NotFoundError, Tenant, by_tenant, define_reactive_function

__all__ = ["AgentId", "AgentNotFound", "Id", "find_agent", "procedure"]


class AgentNotFound(DeclaredError, code="NOT_FOUND"):
    """no agent {agent_id!r}"""

    agent_id: str


procedure = define_reactive_function.use(by_tenant).defaults(raises=[AgentNotFound, NotFoundError])
"""Handlers get the tenant and nothing else of who calls: their results are shared by the whole organization."""

Id = Annotated[str, StringConstraints(min_length=1, max_length=MAX_ID)]
AgentId = Annotated[Id, Field(description="An agent of your organization.", examples=["agent-0001"])]


async def find_agent(db: AsyncSession, ctx: Tenant, agent_id: str) -> Agent:
    """Return an agent of the caller's organization.

    Raises:
        AgentNotFound: it is another's, or there is none.
    """
    wanted = select(Agent).where(Agent.id == agent_id, Agent.organization_id == ctx.tenant)
    agent = (await db.exec(wanted)).first()
    if agent is None:
        raise AgentNotFound(agent_id=agent_id)
    return agent
