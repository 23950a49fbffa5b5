"""The row that peers return: as bytes, it is what `benchmarks/servers.py` answers."""

from __future__ import annotations

from pydantic import BaseModel


class Row(BaseModel):
    """A note."""

    id: int
    room: str
    text: str


def rows_of(room: str) -> list[Row]:
    """Return the notes of a room; nothing is read, as a cache would have it only once."""
    return [Row(id=1, room=room, text="x" * 300)]
