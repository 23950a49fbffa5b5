"""The caller's organization."""

from __future__ import annotations

from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession

from app.functions.tenancy import procedure
from app.models import Organization
from reactive_rpc import NotFoundError, Tenant

__all__ = ["get_mine"]


@procedure.query
async def get_mine(db: AsyncSession, ctx: Tenant) -> Organization:
    """The organization that you belong to."""
    organization = (await db.exec(select(Organization).where(Organization.id == ctx.tenant))).first()
    if organization is None:
        raise NotFoundError("your organization is gone")
    return organization
