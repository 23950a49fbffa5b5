"""Where TeamHub's database is, and connections of its own for what is no procedure: logging in, and seeding."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Engine, NullPool, create_engine, make_url
from sqlalchemy.engine import URL

__all__ = ["database_url", "new_engine"]


def database_url(database: Path | str) -> URL:
    """Return the URL that the server is given.

    Args:
        database: a SQLite file, or a URL.
    """
    if "://" in str(database):
        return make_url(str(database))
    return URL.create("sqlite+aiosqlite", database=str(database))


def new_engine(database: Path | str, *, create: bool = False) -> Engine:
    """Return an engine, which holds no connection between two uses.

    Args:
        database: a SQLite file, or the URL of a PostgreSQL database.
        create: make the file where it is missing. Left out, connecting then fails: a database that is gone must not
            come back empty because somebody logs in.
    """
    url = database_url(database)
    if url.get_backend_name() == "sqlite":
        query = {"mode": "rwc" if create else "rw", "uri": "true"}
        url = URL.create("sqlite", database=Path(url.database or "").absolute().as_uri(), query=query)
    else:
        url = url.set(drivername="postgresql+psycopg")
    return create_engine(url, poolclass=NullPool, hide_parameters=True)
