"""SQLAlchemy's asyncio driver for SQLite, with one hand-over to a thread a statement, or none.

aiosqlite hands each step to the connection's thread: making a cursor, executing, fetching, closing. Here a statement
runs to its last row in one step (`OneStepCursor`), unless its rows are asked for as they come. Statements that wait for
nobody, and short ones that read, run on the event loop. What a handler reaches for (`driver_connection`) is
aiosqlite's own connection still.

`docs/internals/capture-sqlite.md` argues which statements these are ("The driver").
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from time import perf_counter
from typing import Any, Final, NamedTuple, TypeVar

import aiosqlite
from sqlalchemy.dialects.sqlite.aiosqlite import AsyncAdapt_aiosqlite_connection, AsyncAdapt_aiosqlite_dbapi
from sqlalchemy.util import await_only

from reactive_rpc.compat.aiosqlite import SoftClosed, raw_connection, start_in_driver
from reactive_rpc.tasks import to_its_end

__all__ = ["Driver", "LongStatements", "OneStepConnection", "OneStepCursor", "ReadingConnection"]

T = TypeVar("T")

Execution = Callable[[sqlite3.Cursor], object]
"""Executes one statement on a cursor."""


BUDGET_SECONDS: Final = 0.001
"""How long a statement may keep the event loop."""

STEPS: Final = 500
"""So often, in steps of SQLite's virtual machine, the budget is looked at. Between two looks a step may read a page."""

MAX_REMEMBERED: Final = 1_000
"""How many long statements are remembered."""

MAX_RESTS: Final = 1_024
"""So often at most a long statement is run in the thread before it is tried again on the event loop."""


class _Ready:
    """Is there when it is awaited: SQLAlchemy takes a driver that awaits nothing for one that blocks."""

    def __await__(self) -> Generator[Any, Any, None]:
        yield from ()


_READY: Final = _Ready()


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
        given = () if parameters is None else parameters
        return self._run(operation, lambda cursor: cursor.execute(operation, given))

    def executemany(self, operation: str, seq_of_parameters: Any) -> OneStepCursor:
        """Run a statement once for each set of parameters."""
        return self._run(operation, lambda cursor: cursor.executemany(operation, seq_of_parameters))

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

    def _run(self, operation: str, execute: Execution) -> OneStepCursor:
        if self._is_closed:
            raise sqlite3.ProgrammingError("Cannot operate on a closed cursor.")
        self._ran = self._connection.run(operation, partial(_run_to_end, execute))
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

    def run(self, operation: str, work: Callable[[sqlite3.Connection], T]) -> T:
        """Return the result of `work`, which runs the statement `operation`; called in a greenlet."""
        return self.in_thread(work)

    def trace(self, callback: Callable[[str], object]) -> None:
        """Have SQLite tell of each statement as it begins; called in a greenlet."""
        self.in_thread(lambda raw: raw.set_trace_callback(callback))

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
        return _first_row(statement, self._raw)

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
    def _raw(self) -> sqlite3.Connection:
        raw = raw_connection(self.driver_connection)
        if raw is None:
            raise sqlite3.OperationalError("Connection closed")
        return raw

    @property
    def _may_be_in_transaction(self) -> bool:
        """Whether a transaction is open; a closed connection has none, and it is no fault to end it again."""
        # INVARIANT (what is abandoned may be a BEGIN): the answer is true only when the thread has nothing to do.
        raw = raw_connection(self.driver_connection)
        return raw is not None and (self._is_abandoned or raw.in_transaction)


class ReadingConnection(OneStepConnection):
    """A connection that cannot write, of a database in WAL mode, whose writers keep no reader waiting.

    What begins and ends its transactions runs in the calling thread. So does a statement that is short, within a budget
    of time: SQLite interrupts one that takes longer, and it is run again, whole, in the connection's thread.
    """

    __slots__ = ("_runs_again",)

    def __init__(self, dbapi: Any, connection: Any) -> None:
        super().__init__(dbapi, connection)
        self._runs_again = False

    def run(self, operation: str, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do so in the calling thread, if that is short."""
        long_statements: LongStatements = self.dbapi.long_statements
        if self._is_abandoned or not long_statements.are_tried(operation):
            return self.in_thread(work)
        try:
            ran = long_statements.within_budget(self._raw, work)
        except sqlite3.OperationalError as exc:
            if getattr(exc, "sqlite_errorcode", None) != sqlite3.SQLITE_INTERRUPT:
                raise
            long_statements.add(operation)
            # INVARIANT (the same snapshot): interrupting a statement that reads ends neither it nor its transaction.
            return self.in_thread(partial(self._run_again, work))
        long_statements.discard(operation)
        await_only(_READY)
        return ran

    def trace(self, callback: Callable[[str], object]) -> None:
        """Do so, but for a statement that is run again: it has been told of."""
        super().trace(lambda statement: self._runs_again or callback(statement))

    def first_row(self, statement: str) -> Any:
        """Do so in the calling thread."""
        return self.here(statement)

    def rollback(self) -> None:
        """Do so in the calling thread, unless the connection's own is at work."""
        if self._is_abandoned:
            super().rollback()
        elif self._may_be_in_transaction:
            self.here("ROLLBACK")

    def _run_again(self, work: Callable[[sqlite3.Connection], T], raw: sqlite3.Connection) -> T:
        self._runs_again = True
        try:
            return work(raw)
        finally:
            self._runs_again = False


@dataclass(slots=True)
class _Rest:
    """How often a statement is still run in the thread before it is tried again, and how often the next time."""

    left: int = 0
    next: int = 1


class LongStatements:
    """The statements that have taken longer than the event loop may be kept, by their texts.

    One may have found its pages on disk, or its thread without a core: so it is tried again, at first after one run
    in the thread, then after two, after four, and so on.

    Args:
        clock: tells seconds.
    """

    def __init__(self, clock: Callable[[], float] = perf_counter) -> None:
        self._clock = clock
        self._rests: dict[str, _Rest] = {}

    def are_tried(self, text: str) -> bool:
        """Tell whether this run of a statement may be tried on the event loop."""
        rest = self._rests.get(text)
        if rest is None or rest.left == 0:
            return True
        rest.left -= 1
        return False

    def add(self, text: str) -> None:
        """Note that a statement was interrupted."""
        if len(self._rests) >= MAX_REMEMBERED:
            self._rests.clear()  # they are found again
        rest = self._rests.setdefault(text, _Rest())
        rest.left, rest.next = rest.next, min(rest.next * 2, MAX_RESTS)

    def discard(self, text: str) -> None:
        """Note that a statement was short."""
        if self._rests:
            self._rests.pop(text, None)

    def within_budget(self, connection: sqlite3.Connection, work: Callable[[sqlite3.Connection], T]) -> T:
        """Return the result of `work`.

        Raises:
            sqlite3.OperationalError: SQLITE_INTERRUPT, where it takes too long.
        """
        clock, deadline = self._clock, self._clock() + BUDGET_SECONDS
        connection.set_progress_handler(lambda: clock() > deadline, STEPS)
        try:
            return work(connection)
        finally:
            # A statement in the thread has no deadline, and would be a quarter slower for being asked for one.
            connection.set_progress_handler(None, STEPS)


class Driver(AsyncAdapt_aiosqlite_dbapi):
    """The module that SQLAlchemy connects by, `create_async_engine(module=...)`.

    Args:
        kind: of its connections.

    Attributes:
        long_statements: those that are not run on the event loop.
    """

    def __init__(self, kind: type[OneStepConnection]) -> None:
        super().__init__(aiosqlite, sqlite3)
        self.long_statements = LongStatements()
        self._kind = kind

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
