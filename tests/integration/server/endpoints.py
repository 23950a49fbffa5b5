"""An application that has had endpoints before: seats of organizations, its own engines, and its users' rights."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import httpx
from fastapi import APIRouter, Depends, FastAPI, Header, HTTPException, Request
from sqlalchemy import Engine, create_engine, make_url
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import registry
from sqlmodel import Field, Session, SQLModel, select
from sqlmodel.ext.asyncio.session import AsyncSession

from reactive_rpc import ReactiveRPC, Settings, reactive

from .rooms import Opened

__all__ = [
    "METADATA", "AsyncSessionDep", "CurrentUser", "Existing", "Seat", "SeatPublic", "SessionDep", "User", "existing",
    "get_current_user", "get_db", "ran", "router",
]  # fmt: skip


SYNC_DRIVERS = {"sqlite": "sqlite", "postgresql": "postgresql+psycopg"}


class Kept(SQLModel, registry=registry()):
    """Keeps these tables out of the metadata that all of a test run's modules share."""


METADATA = Kept.metadata


class User(Kept, table=True):
    id: str = Field(primary_key=True)
    org: str
    is_superuser: bool = False


class Seat(Kept, table=True):
    id: int | None = Field(default=None, primary_key=True)
    org: str
    name: str
    secret: str = "s3cret"


class SeatPublic(SQLModel):
    id: int
    name: str


def get_db(request: Request) -> Iterator[Session]:
    with Session(request.app.state.engine) as session:
        yield session


async def get_async_db(request: Request) -> AsyncIterator[AsyncSession]:
    async with AsyncSession(request.app.state.async_engine) as session:
        yield session


SessionDep = Annotated[Session, Depends(get_db)]
AsyncSessionDep = Annotated[AsyncSession, Depends(get_async_db)]


def get_current_user(session: SessionDep, x_user: Annotated[str | None, Header()] = None) -> User:
    user = None if x_user is None else session.get(User, x_user)
    if user is None:
        raise HTTPException(403, "who are you?", headers={"x-why": "no user"})
    return user


CurrentUser = Annotated[User, Depends(get_current_user)]

ran: list[str] = []
"""The endpoints that have run, in order."""

router = APIRouter(prefix="/seats", tags=["seats"])


@router.get("", response_model=list[SeatPublic])
@reactive
def read_seats(session: SessionDep, user: CurrentUser, skip: int = 0) -> list[Seat]:
    """The seats of the caller's organization; for a superuser, of all."""
    ran.append("read_seats")
    found = select(Seat).order_by(Seat.id).offset(skip)  # type: ignore[arg-type]  # a column, not an int
    return list(session.exec(found if user.is_superuser else found.where(Seat.org == user.org)).all())


@router.get("/{id}")
@reactive
async def read_seat(session: AsyncSessionDep, user: CurrentUser, id: int) -> SeatPublic:
    """One seat."""
    ran.append("read_seat")
    seat = await session.get(Seat, id)
    if seat is None:
        raise HTTPException(404, "no such seat")
    if seat.org != user.org and not user.is_superuser:
        raise HTTPException(403, {"reason": "another organization"}, headers={"x-why": "rights"})
    return SeatPublic.model_validate(seat, from_attributes=True)


@router.post("")
def create_seat(session: SessionDep, user: CurrentUser, name: str) -> Seat:
    """Add a seat, by the application's own engine."""
    seat = Seat(org=user.org, name=name)
    session.add(seat)
    session.commit()
    session.refresh(seat)
    return seat


@dataclass
class Existing(Opened):
    """An application that is open, and what a test asks of it."""

    engine: Engine
    runs: list[str] = field(default_factory=list)

    def write(self, *rows: SQLModel) -> None:
        """Write rows by the application's engine."""
        with Session(self.engine) as session:
            for row in rows:
                session.merge(row)
            session.commit()

    def delete(self, kind: type[SQLModel], key: object) -> None:
        """Delete a row by the application's engine."""
        with Session(self.engine) as session:
            session.delete(session.get_one(kind, key))
            session.commit()

    async def get(self, url: str, user: str | None = "ada", **headers: str) -> httpx.Response:
        """GET a URL, and keep which endpoints ran for it."""
        ran.clear()
        named = {} if user is None else {"x-user": user}
        answer = await self.client.get(url, headers={**named, **headers})
        self.runs = [*ran]
        return answer


def application(rpc: ReactiveRPC) -> FastAPI:
    """Return the application with its endpoints and the router of procedures."""
    app = FastAPI(title="Seats", lifespan=rpc.lifespan)
    app.include_router(router, prefix="/api/v1")
    app.include_router(rpc.router)
    return app


@asynccontextmanager
async def existing(
    file: Path,
    make_app: Callable[[ReactiveRPC], FastAPI] = application,
    *,
    functions: Mapping[str, Any] | None = None,
    **options: Any,
) -> AsyncIterator[Existing]:
    """Open an application on a file, or on the database of `url`, with users of two organizations and seats."""
    url = make_url(options.pop("url", f"sqlite+aiosqlite:///{file}"))
    engine = create_engine(url.set(drivername=SYNC_DRIVERS[url.get_backend_name()]))
    async_engine = create_async_engine(url)
    settings = Settings(busy_timeout_seconds=0.2, **options.pop("settings", {}))
    rpc = ReactiveRPC(
        url.render_as_string(hide_password=False),
        functions=functions or {},
        metadata=METADATA,
        settings=settings,
        **options,
    )
    app = make_app(rpc)
    app.state.engine, app.state.async_engine = engine, async_engine
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    try:
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://test") as client,
        ):
            opened = Existing(rpc, app, client, engine)
            opened.write(User(id="ada", org="a"), User(id="al", org="a"), User(id="bob", org="b"))
            opened.write(Seat(id=1, org="a", name="one"), Seat(id=2, org="b", name="two"))
            yield opened
    finally:
        engine.dispose()
        await async_engine.dispose()
