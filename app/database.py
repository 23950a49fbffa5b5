"""Connections of TeamHub's own, for what is no procedure: logging in, and seeding."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Engine, NullPool, create_engine
from sqlalchemy.engine import URL

__all__ = ["new_engine"]


def new_engine(database: Path, *, create: bool = False) -> Engine:
    """Return an engine on a SQLite file, which holds no connection between two uses.

    Args:
        database: the file.
        create: make the file where it is missing. Left out, connecting then fails: a database that is gone must not
            come back empty because somebody logs in.
    """
    query = {"mode": "rwc" if create else "rw", "uri": "true"}
    url = URL.create("sqlite", database=database.absolute().as_uri(), query=query)
    return create_engine(url, poolclass=NullPool)
