"""A route of FastAPI's whose result cashews keeps in memory for an hour, whatever is written meanwhile."""

from __future__ import annotations

from cashews import cache
from fastapi import FastAPI

from benchmarks.peers.rows import Row, rows_of

cache.setup("mem://")
app = FastAPI()


@app.get("/notes")
@cache(ttl="1h", key="notes:{room}")
async def notes(room: str) -> list[Row]:
    """Return the notes of a room."""
    return rows_of(room)
