"""Count what a piece of work passes: our functions and modules, turns of other threads, statements and round trips.

Nothing here measures time, so nothing here is noisy: the same work passes the same functions and sends the same
statements each time, as long as no task runs beside it.
"""

from __future__ import annotations

import asyncio
import inspect
import sqlite3
import struct
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import reactive_rpc

PACKAGE = Path(reactive_rpc.__file__).parent
NOT_THE_WAY = f"{PACKAGE / 'testing'}/"
RESUMABLE = inspect.CO_COROUTINE | inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR
HANDOVER = asyncio.BaseEventLoop.call_soon_threadsafe.__code__
COMPREHENSIONS = {"<listcomp>", "<setcomp>", "<dictcomp>", "<genexpr>"}
"""A frame of its own in some Pythons, none in others."""


@dataclass(slots=True)
class Passed:
    """One pass.

    Attributes:
        modules: of the package, by their names within it, in the order in which they were first entered.
        functions: how many calls of the package's functions there were.
        statements: the SQL that the database was sent.
        round_trips: how often the database was asked and waited for. On SQLite, how often another thread handed a
            result to the event loop, as each call of aiosqlite does; a call in the loop's own thread waits for nobody.
    """

    modules: list[str] = field(default_factory=list)
    functions: int = 0
    statements: list[str] = field(default_factory=list)
    round_trips: int = 0


class Counter:
    """Counts while it is told to."""

    def __init__(self) -> None:
        self.passed: Passed | None = None
        self._resumed: set[FrameType] = set()
        self._names: dict[CodeType, str] = {}
        self._handovers_are_round_trips = False
        self._is_following = False

    @contextmanager
    def following_calls(self) -> Iterator[None]:
        """Follow what this thread calls meanwhile, and each thread that begins meanwhile."""
        self._is_following = True
        threading.setprofile(self._profile)
        sys.setprofile(self._profile)
        try:
            yield
        finally:
            self._is_following = False  # other threads stop at their next call
            sys.setprofile(None)
            threading.setprofile(None)

    @contextmanager
    def following_sqlite(self) -> Iterator[None]:
        """Follow the connections to SQLite that are opened meanwhile; only of those, a handover is a round trip."""
        connect = sqlite3.connect

        def counted(*args: Any, **options: Any) -> sqlite3.Connection:
            connection: CountedConnection = connect(*args, **options, factory=CountedConnection)
            connection.counter = self
            return connection

        sqlite3.connect = sqlite3.dbapi2.connect = counted  # type: ignore[assignment]  # without its overloads
        self._handovers_are_round_trips = True
        try:
            yield
        finally:
            sqlite3.connect = sqlite3.dbapi2.connect = connect
            self._handovers_are_round_trips = False

    @contextmanager
    def counting(self) -> Iterator[Passed]:
        """Count what happens meanwhile."""
        self.passed = passed = Passed()
        try:
            yield passed
        finally:
            self.passed = None
            self._resumed.clear()

    def _profile(self, frame: FrameType, event: str, _: Any) -> None:
        passed = self.passed
        if not self._is_following:
            sys.setprofile(None)
        if passed is None or event != "call":
            return
        code = frame.f_code
        if code is HANDOVER:
            passed.round_trips += self._handovers_are_round_trips
        elif name := self._module_of(code):
            if code.co_flags & RESUMABLE:
                if frame in self._resumed:
                    return
                self._resumed.add(frame)
            passed.functions += 1
            if name not in passed.modules:
                passed.modules.append(name)

    def _module_of(self, code: CodeType) -> str:
        """Return the name of a module of ours, "" for what is none, and for what is no function."""
        name = self._names.get(code)
        if name is None:
            path = Path(code.co_filename)
            is_ours = path.is_relative_to(PACKAGE) and not code.co_filename.startswith(NOT_THE_WAY)
            is_function = code.co_flags & inspect.CO_NEWLOCALS and code.co_name not in COMPREHENSIONS
            name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts) if is_ours and is_function else ""
            self._names[code] = name
        return name

    def note_statement(self, sql: str) -> None:
        """Count one."""
        if self.passed is not None:
            self.passed.statements.append(sql)


class CountedConnection(sqlite3.Connection):
    """Counts at the driver: SQLite's own trace tells a statement once more for each trigger that it runs."""

    counter: Counter

    def cursor(self, factory: Any = None) -> Any:
        """Return a cursor that counts."""
        return super().cursor(factory or CountedCursor)

    def execute(self, sql: str, parameters: Any = ()) -> sqlite3.Cursor:
        """Execute by such a cursor."""
        cursor: sqlite3.Cursor = self.cursor()
        return cursor.execute(sql, parameters)

    def commit(self) -> None:
        """Commit, which is a statement if there is a transaction."""
        if self.in_transaction:
            self.counter.note_statement("COMMIT")
        super().commit()

    def rollback(self) -> None:
        """Roll back, which is a statement if there is a transaction."""
        if self.in_transaction:
            self.counter.note_statement("ROLLBACK")
        super().rollback()


class CountedCursor(sqlite3.Cursor):
    """Tells the counter of each statement."""

    connection: CountedConnection

    def execute(self, sql: str, parameters: Any = ()) -> CountedCursor:
        """Execute one."""
        self.connection.counter.note_statement(sql)
        super().execute(sql, parameters)
        return self

    def executemany(self, sql: str, parameters: Any) -> CountedCursor:
        """Execute one for each set of parameters; it counts as one."""
        self.connection.counter.note_statement(sql)
        super().executemany(sql, parameters)
        return self


class Wire:
    """Forwards connections to a PostgreSQL server, and counts what clients send, by its protocol, version 3."""

    def __init__(self, counter: Counter, *, host: str, port: int) -> None:
        self._counter = counter
        self._address = host, port
        self._tasks: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[int]:
        """Listen on a port of this machine and give it."""
        server = await asyncio.start_server(self._connected, "127.0.0.1")
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(*self._address)
        for work in (self._forward_requests(reader, far_writer), _forward(far_reader, writer)):
            task = asyncio.create_task(work)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _forward_requests(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        session = _Session()
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                # Only what begins a connection has no type: the question for TLS, and the start itself.
                kind = b"" if not session.has_begun else await reader.readexactly(1)
                length = await reader.readexactly(4)
                body = await reader.readexactly(struct.unpack("!I", length)[0] - 4)
                session.note(kind, body, self._counter.passed)
                writer.write(kind + length + body)
        writer.close()


class _Session:
    """The statements of one connection, by the names that the client gave them."""

    def __init__(self) -> None:
        self.has_begun = False
        self._statements: dict[bytes, str] = {}
        self._bound = b""

    def note(self, kind: bytes, body: bytes, passed: Passed | None) -> None:
        """Take in one message of the client's."""
        executed: str | None = None
        if not kind:
            self.has_begun = struct.unpack("!I", body[:4])[0] >> 16 == 3
        elif kind == b"P":  # Parse: name, text
            name, text = body.split(b"\0")[:2]
            self._statements[name] = text.decode()
        elif kind == b"B":  # Bind: portal, name
            self._bound = body.split(b"\0")[1]
        elif kind == b"E":  # Execute
            executed = self._statements[self._bound]
        elif kind == b"Q":  # Query
            executed = body.rstrip(b"\0").decode()
        if passed is not None:
            passed.round_trips += kind in (b"Q", b"S", b"H")  # Query, Sync, Flush: the server answers these
            passed.statements += [] if executed is None else [executed]


async def _forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(65_536):
            writer.write(data)
    writer.close()
