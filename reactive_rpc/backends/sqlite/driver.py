"""SQLAlchemy's asyncio driver for SQLite, with one hand-over to a thread a statement.

aiosqlite hands each step to the connection's thread: making a cursor, executing, fetching, closing. Here a statement
runs to its last row in one step (`OneStepCursor`), unless its rows are asked for as they come. Statements that wait for
nobody run on the event loop. What a handler reaches for (`driver_connection`) is aiosqlite's own connection still.

`docs/internals/capture-sqlite.md` argues which statements these are ("The driver").
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Any, Final, NamedTuple, TypeVar

import aiosqlite
from sqlalchemy.dialects.sqlite.aiosqlite import AsyncAdapt_aiosqlite_connection, AsyncAdapt_aiosqlite_dbapi
from sqlalchemy.util import await_only

from reactive_rpc.compat.aiosqlite import SoftClosed, raw_connection, start_in_driver
from reactive_rpc.tasks import to_its_end

__all__ = ["Driver", "OneStepConnection", "OneStepCursor"]

T = TypeVar("T")

Execution = Callable[[sqlite3.Cursor], object]
"""Executes one statement on a cursor."""


class _Ran(NamedTuple):
    """A statement that has run to its end, as a cursor tells of it."""

    rows: list[Any]
    description: Any
    rowcount: int
    lastrowid: int | None


_NOTHING: Final = _Ran([], None, -1, None)


class OneStepCursor(SoftClosed):
    """A DBAPI cursor whose statement has run to its last row when `execute` returns."""

    __slots__ = ("_connection", "_is_closed", "_ran", "_rows", "arraysize")

    server_side = False

    def __init__(self, connection: OneStepConnection) -> None:
        self._connection = connection
        self.arraysize = 1
        self._is_closed = False
        self._ran = _NOTHING
        self._rows: Iterator[Any] = iter(())

    @property
    def description(self) -> Any:
        """The columns of the result; None if the statement has none."""
        return self._ran.description

    @property
    def rowcount(self) -> int:
        """How many rows were written; -1 for a statement that reads."""
        return self._ran.rowcount

    @property
    def lastrowid(self) -> int | None:
        """The row that was inserted last."""
        return self._ran.lastrowid

    def execute(self, operation: str, parameters: Any = None) -> OneStepCursor:
        """Run a statement."""
        return self._run(lambda cursor: cursor.execute(operation, () if parameters is None else parameters))

    def executemany(self, operation: str, seq_of_parameters: Any) -> OneStepCursor:
        """Run a statement once for each set of parameters."""
        return self._run(lambda cursor: cursor.executemany(operation, seq_of_parameters))

    def fetchone(self) -> Any:
        """Return the next row; None if there is none."""
        return next(self._rows, None)

    def fetchmany(self, size: int | None = None) -> Sequence[Any]:
        """Return so many further rows."""
        return list(islice(self._rows, self.arraysize if size is None else size))

    def fetchall(self) -> Sequence[Any]:
        """Return the other rows."""
        return list(self._rows)

    def __iter__(self) -> Iterator[Any]:
        return self._rows

    def close(self) -> None:
        """Let go of the rows that nobody has asked for, and run nothing more."""
        self._rows = iter(())
        self._is_closed = True

    def _run(self, execute: Execution) -> OneStepCursor:
        if self._is_closed:
            raise sqlite3.ProgrammingError("Cannot operate on a closed cursor.")
        self._ran = self._connection.in_thread(partial(_run_to_end, execute))
        self._rows = iter(self._ran.rows)
        return self


class OneStepConnection(AsyncAdapt_aiosqlite_connection):
    """A DBAPI connection around aiosqlite's own, which stays the `driver_connection`."""

    __slots__ = ("_is_abandoned",)

    def __init__(self, dbapi: Any, connection: Any) -> None:
        super().__init__(dbapi, connection)
        self._is_abandoned = False

    def cursor(self, server_side: bool = False) -> Any:
        """Return a cursor; on the server's side it fetches rows as they are asked for, each time in the thread."""
        return super().cursor(server_side=True) if server_side else OneStepCursor(self)

    def in_thread(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Return the result of `work` in the connection's thread; called in a greenlet."""
        future = start_in_driver(self.driver_connection, work)
        try:
            return await_only(future)
        finally:
            # Work goes on whose caller was cancelled; once later work has ended, so has that.
            self._is_abandoned = future.cancelled()

    def first_row(self, statement: str) -> Any:
        """Run a statement that is nobody's but ours, and return its first row; None if it has none."""
        return self.in_thread(partial(_first_row, statement))

    def here(self, statement: str) -> Any:
        """Do so in the calling thread, with a statement that waits for neither disk nor lock."""
        raw = raw_connection(self.driver_connection)
        if raw is None:
            raise sqlite3.OperationalError("Connection closed")
        return _first_row(statement, raw)

    def commit(self) -> None:
        """Commit, if there is a transaction; a caller who is cancelled meanwhile ends when COMMIT has."""
        if self._may_be_in_transaction:
            # INVARIANT (nothing is awaited before the thread has COMMIT): who is cancelled here has committed.
            await_only(to_its_end(start_in_driver(self.driver_connection, sqlite3.Connection.commit), "commit"))

    def rollback(self) -> None:
        """Roll back, if there is a transaction."""
        if self._may_be_in_transaction:
            self.in_thread(sqlite3.Connection.rollback)

    @property
    def _may_be_in_transaction(self) -> bool:
        """Whether a transaction is open; a closed connection has none, and it is no fault to end it again."""
        # INVARIANT (what is abandoned may be a BEGIN): the answer is true only when the thread has nothing to do.
        raw = raw_connection(self.driver_connection)
        return raw is not None and (self._is_abandoned or raw.in_transaction)


class ReadingConnection(OneStepConnection):
    """A connection that cannot write: what begins and ends its transactions runs in the calling thread.

    There is nothing to take back, and a writer keeps no reader waiting.
    """

    __slots__ = ()

    def first_row(self, statement: str) -> Any:
        """Do so in the calling thread."""
        return self.here(statement)

    def rollback(self) -> None:
        """Do so in the calling thread, unless the connection's own is at work."""
        if self._is_abandoned:
            super().rollback()
        elif self._may_be_in_transaction:
            self.here("ROLLBACK")


class Driver(AsyncAdapt_aiosqlite_dbapi):
    """The module that SQLAlchemy connects by, `create_async_engine(module=...)`.

    Args:
        writes: whether its connections write.
    """

    def __init__(self, *, writes: bool) -> None:
        super().__init__(aiosqlite, sqlite3)
        self._kind = OneStepConnection if writes else ReadingConnection

    def connect(self, *args: Any, **options: Any) -> OneStepConnection:
        """Connect by aiosqlite, to a connection that the event loop may use as well as its thread."""
        adapted = super().connect(*args, **options | {"check_same_thread": False})
        return self._kind(self, adapted.driver_connection)


def _run_to_end(execute: Execution, connection: sqlite3.Connection) -> _Ran:
    cursor = connection.cursor()
    try:
        execute(cursor)
        rows = cursor.fetchall() if cursor.description else []
        return _Ran(rows, cursor.description, cursor.rowcount, cursor.lastrowid)
    finally:
        # INVARIANT (no statement is left open): one would keep its snapshot past the end of the transaction.
        cursor.close()


def _first_row(statement: str, connection: sqlite3.Connection) -> Any:
    cursor = connection.execute(statement)
    try:
        return cursor.fetchone()
    finally:
        cursor.close()
