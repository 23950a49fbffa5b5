"""What agents can use."""

from __future__ import annotations

from sqlmodel import Session, col, select

from app.functions.tenancy import procedure
from app.models import Tool
from reactive_rpc import Tenant

__all__ = ["available"]


@procedure.query
def available(db: Session, ctx: Tenant) -> list[Tool]:
    """The enabled tools of your organization, by name."""
    enabled = select(Tool).where(Tool.organization_id == ctx.tenant, col(Tool.is_enabled).is_(True))
    return list(db.exec(enabled.order_by(col(Tool.name), col(Tool.id))).all())
