"""What aiosqlite does in one step, and has no public name for."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any, TypeVar

__all__ = ["run_in_driver"]

T = TypeVar("T")


def run_in_driver(driver: Any, work: Callable[..., T], *args: Any) -> T:
    """Run `work(connection, *args)` in aiosqlite's own thread, as one call.

    Nobody can be cancelled in the middle of it: between setting an authorizer and taking it away, say.

    Args:
        driver: SQLAlchemy's adapter of an aiosqlite connection; `connection` is its `sqlite3.Connection`.
    """
    found: T = driver.run_async(lambda proxy: proxy._execute(work, _connection(proxy), *args))
    return found


def _connection(proxy: Any) -> sqlite3.Connection:
    connection: sqlite3.Connection = proxy._conn
    return connection
