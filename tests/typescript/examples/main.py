"""The server of the examples: notes of rooms. Its `written_at` is a `Date` in TypeScript, which JSON has not."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from fastapi import FastAPI
from pydantic import BaseModel
from sqlmodel import Field, SQLModel, col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from reactive_rpc import ReactiveRPC, define_reactive_function


class Row(SQLModel, table=True):
    """A note, as it is stored."""

    __tablename__ = "note"

    id: int | None = Field(default=None, primary_key=True)
    room: str = Field(index=True)
    text: str
    written_at: float = Field(default_factory=time.time)


class Note(BaseModel):
    """A note, as clients see it."""

    id: int
    text: str
    written_at: datetime


def seen(row: Row) -> Note:
    """Return what clients see of a row."""
    return Note(id=row.id or 0, text=row.text, written_at=datetime.fromtimestamp(row.written_at, UTC))


@define_reactive_function
async def get_all(db: AsyncSession, room: str) -> list[Note]:
    """The notes of a room, oldest first."""
    rows = await db.exec(select(Row).where(Row.room == room).order_by(col(Row.id)))
    return [seen(row) for row in rows]


@define_reactive_function.mutation
async def add(db: AsyncSession, room: str, text: str) -> Note:
    """Put a note into a room."""
    row = Row(room=room, text=text)
    db.add(row)
    await db.flush()
    return seen(row)


functions = {"notes": {"get_all": get_all, "add": add}}
rpc = ReactiveRPC("sqlite+aiosqlite:///notes.db", functions=functions, metadata=SQLModel.metadata)
app = FastAPI(title="Notebook", lifespan=rpc.lifespan)
app.include_router(rpc.router)
