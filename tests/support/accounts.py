"""Counters in groups: the model that served applications share, and the same rows through the plain drivers."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from contextlib import closing

import psycopg
from sqlalchemy import MetaData, make_url
from sqlmodel import Field, SQLModel

__all__ = ["METADATA", "Account", "dsn_of", "file_of", "fill"]

METADATA = MetaData()


class Account(SQLModel, table=True):
    """A counter in a group."""

    metadata = METADATA
    __tablename__ = "acc"
    id: int = Field(primary_key=True)
    g: int = Field(index=True)
    n: int = 0


def file_of(url: str) -> str | None:
    """Return the file of a SQLite URL; None if it is of a server."""
    parsed = make_url(url)
    return str(parsed.database) if parsed.get_backend_name() == "sqlite" else None


def dsn_of(url: str) -> str:
    """Return the URL for psycopg."""
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)


def fill(url: str, groups: Iterable[tuple[int, int]]) -> None:
    """Make accounts that stand at 0, of `(id, group)`; those that are there already stay as they are."""
    file = file_of(url)
    if file is not None:
        with closing(sqlite3.connect(file, timeout=30)) as connection, connection:
            connection.executemany("INSERT INTO acc VALUES (?, ?, 0) ON CONFLICT DO NOTHING", groups)
        return
    with psycopg.connect(dsn_of(url)) as server:
        server.cursor().executemany("INSERT INTO acc VALUES (%s, %s, 0) ON CONFLICT DO NOTHING", groups)
