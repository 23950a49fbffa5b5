"""An application with a bit of everything: rooms of notes, kept apart by tenant."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import httpx
from fastapi import Depends, FastAPI, HTTPException
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel
from sqlalchemy.orm import registry
from sqlmodel import Field, Session, SQLModel, select
from sqlmodel.ext.asyncio.session import AsyncSession

from reactive_rpc import Login, NotFoundError, ReactiveRPC, Settings, define_reactive_function
from reactive_rpc.clock import Clock
from reactive_rpc.procedures.registry import Functions
from reactive_rpc.testing.fakes import faked

JSON = {"content-type": "application/json"}


class Base(SQLModel, registry=registry()):
    """Keeps these tables out of the metadata that all of a test run's modules share."""


class Note(Base, table=True):
    id: int | None = Field(default=None, primary_key=True)
    tenant: str = "t"
    room: str
    text: str = Field(unique=True)


class Visit(Base, table=True):
    id: int | None = Field(default=None, primary_key=True)
    who: str


METADATA = Base.metadata


class InRoom(BaseModel):
    room: str


class NewNote(BaseModel):
    room: str
    text: str


class NoteId(BaseModel):
    id: int


class Several(BaseModel):
    rooms: list[str]


@define_reactive_function
async def in_room(db: AsyncSession, input: InRoom) -> list[Note]:
    """The notes of a room, oldest first."""
    return list((await db.exec(select(Note).where(Note.room == input.room).order_by(Note.text))).all())


@define_reactive_function
def in_room_sync(db: Session, input: InRoom) -> list[Note]:
    """The same from a thread."""
    return list(db.exec(select(Note).where(Note.room == input.room).order_by(Note.text)).all())


@define_reactive_function
async def in_rooms(db: AsyncSession, input: Several) -> list[Note]:
    """The notes of several rooms."""
    return list((await db.exec(select(Note).where(Note.room.in_(input.rooms)).order_by(Note.text))).all())  # type: ignore[attr-defined]  # a column, not a str


@define_reactive_function
async def one(db: AsyncSession, input: NoteId) -> Note:
    """One note."""
    note = await db.get(Note, input.id)
    if note is None:
        raise NotFoundError(f"no note {input.id}")
    return note


@define_reactive_function.mutation
async def add(db: AsyncSession, input: NewNote) -> Note:
    """Add a note."""
    note = Note(room=input.room, text=input.text)
    db.add(note)
    return note


@define_reactive_function
async def broken(db: AsyncSession) -> str:
    """Fail by accident."""
    raise ValueError("the password is hunter2")


ROOMS: Mapping[str, Any] = {
    "notes": {
        "in_room": in_room,
        "in_room_sync": in_room_sync,
        "in_rooms": in_rooms,
        "one": one,
        "add": add,
        "broken": broken,
    }
}

bearer = HTTPBearer(auto_error=False)


def who(credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]) -> Login:
    """Read `Bearer user@tenant`; `expired` and nothing at all are refused."""
    if credentials is None or credentials.credentials == "expired":
        raise HTTPException(401, "log in again", headers={"www-authenticate": "Bearer"})
    user, _, tenant = credentials.credentials.partition("@")
    return Login(identity=user, tenant=tenant)


@dataclass
class Opened:
    """An application that is open, and a client that calls it in this process."""

    rpc: ReactiveRPC
    app: FastAPI
    client: httpx.AsyncClient

    async def call(self, name: str, input: object = None, /, **headers: str) -> httpx.Response:
        """POST an input as JSON; None is an empty body."""
        content = b"" if input is None else json.dumps(input, separators=(",", ":")).encode()
        return await self.client.post(f"/rpc/{name}", content=content, headers=JSON | headers)


@dataclass
class Server(Opened):
    """An application on a file, and what a test asks of it."""

    path: Path

    def rows(self, query: str = "SELECT room, text FROM note ORDER BY id") -> list[Any]:
        """Read the file by another connection."""
        with closing(sqlite3.connect(self.path)) as connection:
            return connection.execute(query).fetchall()

    def write(self, statement: str, *values: object) -> None:
        """Write to the file by another connection."""
        with closing(sqlite3.connect(self.path)) as connection, connection:
            connection.execute(statement, values)


def rpc_on(path: Path, functions: Functions = ROOMS, *, clock: Clock | None = None, **options: Any) -> ReactiveRPC:
    """Return the procedures on a file, quick to give up on a lock."""
    settings: Mapping[str, Any] = {"busy_timeout_seconds": 0.2, **options.pop("settings", {})}
    url = f"sqlite+aiosqlite:///{path}"
    return faked(clock=clock)(url, functions=functions, metadata=METADATA, settings=Settings(**settings), **options)


def app_of(rpc: ReactiveRPC) -> FastAPI:
    """Return an application with the router at its root."""
    app = FastAPI(title="Rooms", lifespan=rpc.lifespan)
    app.include_router(rpc.router)
    return app


@asynccontextmanager
async def opened(rpc: ReactiveRPC, make_app: Callable[[ReactiveRPC], FastAPI]) -> AsyncIterator[Opened]:
    """Open an application and give a client that calls it in this process."""
    app = make_app(rpc)
    # As under a real server: what escapes the application is its answer 500, not an exception of the client's.
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with rpc.lifespan(app), httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield Opened(rpc, app, client)


@asynccontextmanager
async def serving(
    path: Path, functions: Functions = ROOMS, *, make_app: Callable[[ReactiveRPC], FastAPI] = app_of, **options: Any
) -> AsyncIterator[Server]:
    """Open an application on `path` and give a client that calls it in this process."""
    async with opened(rpc_on(path, functions, **options), make_app) as found:
        yield Server(found.rpc, found.app, found.client, path)


def error_of(response: httpx.Response) -> dict[str, Any]:
    """Return the error that an envelope tells."""
    error = response.json()["error"]
    assert isinstance(error, dict)
    assert set(error) == {"code", "type", "message", "details", "path", "request_id"}
    return error


def lines(response: httpx.Response) -> Iterator[str]:
    """Yield the texts of the notes in an answer."""
    assert response.status_code == 200, response.text
    return (note["text"] for note in response.json())


def write(file: Path, *statements: str) -> None:
    """Commit statements together, as another process does."""
    with closing(sqlite3.connect(file)) as connection, connection:
        for statement in statements:
            connection.execute(statement)
