"""TeamHub: the application that a server serves, `app`, and what stands behind it, `rpc`."""

from __future__ import annotations

from fastapi_offline import FastAPIOffline
from sqlmodel import SQLModel

from app.database import database_url
from app.functions import agents, memory, messages, organizations, search, tools
from app.pages import add_page
from app.security import get_context
from app.security import router as login_router
from app.settings import get_settings
from reactive_rpc import ReactiveRPC

__all__ = ["app", "rpc"]

DESCRIPTION = """Organizations, their agents, and what these say, remember and use.

Press **Authorize** and log in as `ada@org-01.example` with the password `teamhub`; then try every procedure."""

rpc = ReactiveRPC(
    database_url(get_settings().database),
    functions=[agents, messages, memory, search, tools, organizations],
    context=get_context,
    metadata=SQLModel.metadata,
)

app = FastAPIOffline(title="TeamHub", version="1.0.0", description=DESCRIPTION, lifespan=rpc.lifespan)
app.include_router(login_router)
app.include_router(rpc.router)
add_page(app, get_settings().page)
