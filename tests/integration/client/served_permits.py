"""Agents that are shown to those alone who hold a permit: `uvicorn tests.integration.client.served_permits:app`."""

from __future__ import annotations

from datetime import UTC, datetime

from fastapi import FastAPI
from sqlalchemy.engine import URL
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel, select
from sqlmodel.ext.asyncio.session import AsyncSession

from app.functions.tenancy import AgentId
from app.models import Agent
from app.security import get_context
from app.security import router as login_router
from app.settings import get_settings
from reactive_rpc import ForbiddenError, Login, ReactiveRPC, define_reactive_function


class Base(SQLModel, registry=registry()):
    """Keeps the table out of TeamHub's metadata."""


class Permit(Base, table=True):
    """A permit to see the agent of the same name."""

    id: str = Field(primary_key=True)


@define_reactive_function
async def get_one(db: AsyncSession, ctx: Login, agent_id: AgentId) -> Agent:
    """An agent, where it is permitted."""
    if (await db.exec(select(Permit).where(Permit.id == agent_id))).first() is None:
        raise ForbiddenError(f"no permit for {agent_id!r}")
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    return Agent(
        id=agent_id,
        organization_id="org-01",
        name="permitted",
        role="tester",
        description=None,
        is_active=True,
        created_at=moment,
    )


rpc = ReactiveRPC(
    URL.create("sqlite+aiosqlite", database=str(get_settings().database)),
    functions={"agents": {"get_one": get_one}},
    context=get_context,
    metadata=Base.metadata,
)
app = FastAPI(lifespan=rpc.lifespan)
app.include_router(login_router)
app.include_router(rpc.router)
