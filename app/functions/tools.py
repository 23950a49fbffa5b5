"""What agents can use."""

from __future__ import annotations

from sqlmodel import Session, col, select

from app.functions.tenancy import OrganizationRef, require_tenant
from app.models import Tool
from reactive_rpc import Context, define_reactive_function

__all__ = ["available"]


@define_reactive_function(scope="tenant")
def available(input: OrganizationRef, db: Session, ctx: Context) -> list[Tool]:
    """The enabled tools of your organization, by name."""
    require_tenant(input.organization_id, ctx)
    enabled = select(Tool).where(Tool.organization_id == input.organization_id, col(Tool.is_enabled).is_(True))
    return list(db.exec(enabled.order_by(col(Tool.name), col(Tool.id))).all())
