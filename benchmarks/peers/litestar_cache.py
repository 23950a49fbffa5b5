"""Litestar's response cache: it keeps what a handler has returned for an hour, whatever is written meanwhile."""

from __future__ import annotations

from litestar import Litestar, get

from benchmarks.peers.rows import Row, rows_of


@get("/notes", cache=3600)
async def notes(room: str) -> list[Row]:
    """Return the notes of a room."""
    return rows_of(room)


app = Litestar([notes])
