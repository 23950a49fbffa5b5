"""The application as a process of its own, which can be asked what it holds.

`SOAK_URL=... uvicorn tests.soak.served:app`

`SOAK_LEAK=1` keeps every stream that has ended, for the soak to find.
"""

from __future__ import annotations

import asyncio
import gc
import os
from typing import Any

import psutil  # type: ignore[import-untyped]  # it ships no types
from fastapi import FastAPI
from pydantic import BaseModel
from sqlalchemy import MetaData
from sqlmodel import Field, SQLModel, select
from sqlmodel.ext.asyncio.session import AsyncSession

from reactive_rpc import Cache, ReactiveRPC, define_reactive_function
from reactive_rpc.changes.history import History

HISTORY_CHANGES = 20
"""What the log remembers: so little that it is full before anything is measured."""

WIDE_BYTES = 50_000

METADATA = MetaData()


class Item(SQLModel, table=True):
    """A counter in a group."""

    metadata = METADATA
    id: int = Field(primary_key=True)
    g: int = Field(index=True)
    n: int = 0


class Group(BaseModel):
    """Which items."""

    g: int


@define_reactive_function
async def of_group(db: AsyncSession, input: Group) -> dict[int, int]:
    """Return `{id: n}`."""
    return {item.id: item.n for item in await db.exec(select(Item).where(Item.g == input.g))}


@define_reactive_function(cache=Cache(push="result"))
async def pushed(db: AsyncSession, input: Group) -> dict[int, int]:
    """Return what `of_group` does; streams are sent the result itself."""
    return {item.id: item.n for item in await db.exec(select(Item).where(Item.g == input.g))}


@define_reactive_function(cache=Cache(push="result"))
async def wide(db: AsyncSession, input: Group) -> str:
    """Return a long text, which soon fills what a connection holds for a reader that does not read."""
    items = await db.exec(select(Item).where(Item.g == input.g))
    return f"{sum(item.n for item in items)}".rjust(WIDE_BYTES, ".")


rpc = ReactiveRPC(
    os.environ.get("SOAK_URL", "sqlite+aiosqlite:///soak.db"),
    functions={"items": {"of_group": of_group, "pushed": pushed, "wide": wide}},
    metadata=METADATA,
)
app = FastAPI(lifespan=rpc.lifespan)
app.include_router(rpc.router)


@app.get("/streams")
async def streams() -> int:
    """Return how many streams are open."""
    return int(rpc.admin.stats()["streams"])


@app.get("/sample")
async def sample() -> dict[str, int]:
    """Return what the process holds."""
    gc.collect()
    process = psutil.Process()
    return {
        "rss_bytes": process.memory_info().rss,
        "descriptors": process.num_fds(),
        "tasks": len(asyncio.all_tasks()),
        "objects": len(gc.get_objects()),
    }


def prepare(rpc: Any) -> None:
    """Bound what may grow for a good reason, and put the leak in where it is asked for."""
    rpc._log._history = History(HISTORY_CHANGES)
    if os.environ.get("SOAK_LEAK"):
        kept: list[object] = []
        disconnect = rpc._hub.disconnect

        def keep(stream: object) -> None:
            kept.append(stream)
            disconnect(stream)

        rpc._hub.disconnect = keep


prepare(rpc)
