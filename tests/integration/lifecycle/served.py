"""Notes, and which worker answers: `LIFECYCLE_URL=... uvicorn tests.integration.lifecycle.served:app`."""

from __future__ import annotations

import os
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel
from sqlalchemy import MetaData
from sqlmodel import Field, SQLModel
from sqlmodel.ext.asyncio.session import AsyncSession
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from reactive_rpc import Cache, ReactiveRPC, define_reactive_function

METADATA = MetaData()


class Note(SQLModel, table=True):
    """A text under a number."""

    metadata = METADATA
    __tablename__ = "note"
    id: int = Field(primary_key=True)
    text: str


class NoteId(BaseModel):
    """Names a note."""

    id: int


class NewText(NoteId):
    """What a note is to say."""

    text: str


@define_reactive_function
async def get(db: AsyncSession, input: NoteId) -> str:
    """The text of a note; empty where there is none."""
    note = await db.get(Note, input.id)
    return "" if note is None else note.text


@define_reactive_function(cache=Cache(push="result"))
async def pushed(db: AsyncSession, input: NoteId) -> str:
    """The same, and streams are sent the text itself."""
    note = await db.get(Note, input.id)
    return "" if note is None else note.text


@define_reactive_function.mutation
async def write(db: AsyncSession, input: NewText) -> int:
    """Write a note and return the process that did."""
    await db.merge(Note(id=input.id, text=input.text))
    return os.getpid()


class Named:
    """Says in every answer which process gives it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""

        async def send_named(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"x-worker", b"%d" % os.getpid())]
            await send(message)

        await self._app(scope, receive, send_named)


rpc = ReactiveRPC(
    os.environ.get("LIFECYCLE_URL", "sqlite+aiosqlite:///notes.db"),
    functions={"notes": {"get": get, "pushed": pushed, "write": write}},
    metadata=METADATA,
)
app = FastAPI(lifespan=rpc.lifespan)
app.include_router(rpc.router)
app.add_middleware(Named)


@app.get("/worker")
async def worker() -> dict[str, Any]:
    """Which process this is, and its counters."""
    return {"pid": os.getpid(), **rpc.admin.stats()}
