"""The server under test: notes by room, watched by everybody. Its settings come from the environment."""

from __future__ import annotations

import os

from fastapi import FastAPI
from pydantic import BaseModel
from sqlmodel import Field, SQLModel, select
from sqlmodel.ext.asyncio.session import AsyncSession

from reactive_rpc import Cache, ReactiveRPC, define_reactive_function


class Message(SQLModel, table=True):
    """A row to watch."""

    id: int | None = Field(default=None, primary_key=True)
    room: str = Field(index=True)
    text: str


class Room(BaseModel):
    """Which messages."""

    room: str


@define_reactive_function(public=True)
async def get_all(db: AsyncSession, input: Room) -> list[Message]:
    """Return the messages of a room."""
    return list((await db.exec(select(Message).where(Message.room == input.room))).all())


@define_reactive_function(public=True, cache=Cache(push="result"))
async def get_pushed(db: AsyncSession, input: Room) -> list[Message]:
    """Return the same, to streams that are sent the result itself."""
    return list((await db.exec(select(Message).where(Message.room == input.room))).all())


rpc = ReactiveRPC(
    os.environ.get("BENCH_DATABASE_URL", "sqlite+aiosqlite:///bench.db"),
    functions={"messages": {"get_all": get_all, "get_pushed": get_pushed}},
    metadata=SQLModel.metadata,
)
app = FastAPI(lifespan=rpc.lifespan)
app.include_router(rpc.router)
