"""The rooms of notes on PostgreSQL: an application that is open, and somebody else who writes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import psycopg
from fastapi import FastAPI
from sqlalchemy import make_url

from reactive_rpc import ReactiveRPC, Settings
from reactive_rpc.procedures.registry import Functions

from .rooms import METADATA, ROOMS, Opened, app_of, opened

DRIVERS: Final = ("postgresql+asyncpg", "postgresql+psycopg")


def with_driver(url: str, driver: str) -> str:
    """Return `url` for another driver; `postgresql` for psycopg itself, and asyncpg itself."""
    return make_url(url).set(drivername=driver).render_as_string(hide_password=False)


@dataclass
class Server(Opened):
    """An application on a database, and what a test asks of it."""

    url: str

    async def answer(self, name: str, input: object = None, /) -> Any:
        """Return what a call answers, which must be a success."""
        response = await self.call(name, input)
        assert response.status_code == 200, response.text
        return response.json()

    def connect(self) -> psycopg.Connection[Any]:
        """Connect as somebody who knows nothing of the application."""
        return psycopg.connect(with_driver(self.url, "postgresql"), autocommit=True)

    def write(self, statement: str, *values: object) -> None:
        """Write by another connection."""
        with self.connect() as connection:
            connection.execute(statement.encode(), values or None)

    def rows(self, query: str = "SELECT room, text FROM note ORDER BY id") -> list[Any]:
        """Read by another connection."""
        with self.connect() as connection:
            return connection.execute(query.encode()).fetchall()

    @property
    def hits(self) -> int:
        """How many answers came from the store."""
        return int(self.rpc.admin.stats()["hits"])


def rpc_on(url: str, functions: Functions = ROOMS, **options: Any) -> ReactiveRPC:
    """Return the procedures on a database, with few connections, and quick to give up on one."""
    settings = Settings(**{"pool_size": 4, "pool_timeout_seconds": 0.5, **options.pop("settings", {})})
    return ReactiveRPC(url, functions=functions, settings=settings, **{"metadata": METADATA, **options})


@asynccontextmanager
async def serving(
    url: str, functions: Functions = ROOMS, *, make_app: Callable[[ReactiveRPC], FastAPI] = app_of, **options: Any
) -> AsyncIterator[Server]:
    """Open an application on the database at `url` and give a client that calls it in this process."""
    async with opened(rpc_on(url, functions, **options), make_app) as found:
        yield Server(found.rpc, found.app, found.client, url)
