"""What aiosqlite does in one step, and has no public name for; what SQLAlchemy asks of a driver's cursor likewise."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from aiosqlite import Connection

__all__ = ["SoftClosed", "raw_connection", "run_in_driver", "start_in_driver"]

T = TypeVar("T")


def run_in_driver(driver: Any, work: Callable[..., T], *args: Any) -> T:
    """Run `work(connection, *args)` in aiosqlite's own thread, as one call.

    Nobody can be cancelled in the middle of it: between setting an authorizer and taking it away, say.

    Args:
        driver: SQLAlchemy's adapter of an aiosqlite connection; `connection` is its `sqlite3.Connection`.
    """
    found: T = driver.run_async(lambda proxy: proxy._execute(work, proxy._conn, *args))
    return found


def start_in_driver(connection: Connection, work: Callable[[sqlite3.Connection], T]) -> asyncio.Future[T]:
    """Have aiosqlite's thread run `work` after all that it has been given already.

    Raises:
        sqlite3.OperationalError: the connection is closed; SQLAlchemy knows it by these words.
    """
    raw = raw_connection(connection)
    if raw is None or not connection._running:
        raise sqlite3.OperationalError("Connection closed")
    future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
    connection._tx.put_nowait((future, partial(work, raw)))
    return future


def raw_connection(connection: Connection) -> sqlite3.Connection | None:
    """Return the `sqlite3.Connection` of aiosqlite's; None once it is closed."""
    return connection._connection


class SoftClosed:
    """A cursor whose rows are here already, so nothing has to be closed before they are taken."""

    __slots__ = ()

    async def _async_soft_close(self) -> None:
        return
