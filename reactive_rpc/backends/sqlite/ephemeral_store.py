"""The ephemeral store of several processes on one SQLite database: a file of its own beside it.

It is no table of the user's database, because each batch of acknowledgements would wait for the user's write lock there
and make every worker look into the outbox. Whoever deletes the file loses no more than the store may lose.

Why an entry is taken once, whatever happens to the file, and what a crash leaves: docs/internals/ephemeral-store.md.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, TypeVar

from reactive_rpc.changes.ephemeral_store import KINDS, NOBODY, UNREACHABLE, Budget, EntryKind, count_content, weight_of
from reactive_rpc.changes.store_keys import by_name, name_of
from reactive_rpc.errors import ReactiveRPCError, ServiceUnavailableError

__all__ = ["SQLiteEphemeralStore"]

T = TypeVar("T")

SUFFIX: Final = "-ephemeral"
PRUNE_SECONDS: Final = 30.0
BUSY_SECONDS: Final = 5.0
PAGE_BYTES: Final = 4096
MIN_PAGES: Final = 256

_TABLE: Final = (
    "CREATE TABLE IF NOT EXISTS entry (kind TEXT NOT NULL, name TEXT NOT NULL, owner TEXT NOT NULL, size INTEGER NOT"
    " NULL, expires_at REAL NOT NULL, content BLOB NOT NULL, PRIMARY KEY (kind, name))",
    "CREATE INDEX IF NOT EXISTS entry_owner ON entry (kind, owner, expires_at, size, name)",
)
_PUT: Final = (
    "INSERT INTO entry(kind, name, owner, size, expires_at, content) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (kind, name)"
    " DO UPDATE SET size = excluded.size, expires_at = excluded.expires_at, content = excluded.content"
)
_OTHERS: Final = "kind = ?1 AND expires_at > ?3 AND name NOT IN (SELECT value FROM json_each(?4))"
_USED: Final = (
    f"SELECT coalesce(sum(CASE WHEN owner = ?2 THEN size END), 0), coalesce(sum(size), 0) FROM entry WHERE {_OTHERS}"
)
_FREE: Final = (
    "DELETE FROM entry WHERE kind = ?1 AND name IN (SELECT name FROM (SELECT name, sum(size) OVER (ORDER BY expires_at,"
    f" name) - size AS before FROM entry WHERE owner = ?2 AND {_OTHERS}) WHERE before < ?5)"
)
_AMONG: Final = "kind = ? AND name IN (SELECT value FROM json_each(?))"
_DAMAGED: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_IN_THE_WAY: Final = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)

_log = logging.getLogger(__name__)


class SQLiteEphemeralStore:
    """An `EphemeralStore` in the file `<database>-ephemeral`. Used on one event loop.

    Args:
        database: the path of the user's database. Whoever may read and write it may do so with the store.
        busy_timeout_seconds: how long an operation waits for those of other processes.
        budget: what may stand there; the file grows to a little more than that of all kinds.
        now: the wall clock, in seconds.

    Attributes:
        path: of the store's file.
    """

    def __init__(
        self,
        database: Path,
        *,
        busy_timeout_seconds: float = BUSY_SECONDS,
        budget: Budget | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.path = database.with_name(database.name + SUFFIX)
        self._database = database
        self._busy_timeout_seconds = busy_timeout_seconds
        self._budget = budget or Budget()
        self._max_pages = max(2 * len(KINDS) * self._budget.max_bytes // PAGE_BYTES, MIN_PAGES)
        self._now = now
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None
        self._pruned_at = 0.0
        self._thread: ThreadPoolExecutor | None = None

    async def open(self) -> None:
        """Make the file if it is missing, unless the database is: then the first entry does; idempotent.

        Raises:
            ServiceUnavailableError: it cannot be made.
        """
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="reactive_rpc ephemeral store")
        if self._database.exists():  # the store is for whoever may use the database, so that must be known
            await self._run(self._prune)

    async def aclose(self) -> None:
        """Close the file once what is under way is done; idempotent."""
        thread, self._thread = self._thread, None
        if thread is not None:
            await asyncio.get_running_loop().run_in_executor(thread, self._disconnect)
            thread.shutdown()

    async def put(
        self, kind: EntryKind, entries: Mapping[str, bytes], *, ttl_seconds: float, owner: str = NOBODY
    ) -> None:
        """Put `{key: content}`, each in the place of what was there, within the owner's budget.

        Raises:
            PayloadTooLargeError: it is more than the owner may have.
            ServiceUnavailableError: there is no room, or the file stays locked or cannot be written.
        """
        given = {name_of(key): content for key, content in entries.items()}
        await self._run(lambda connection: self._put(connection, kind, given, owner, ttl_seconds))

    async def get(self, kind: EntryKind, key: str) -> bytes | None:
        """Return the content at `key`; None where there is none, or where it has expired.

        Raises:
            ServiceUnavailableError: the file stays locked, or cannot be read.
        """
        name = name_of(key)
        return (await self._run(lambda connection: self._read(connection, kind, [name]))).get(name)

    async def take(self, kind: EntryKind, keys: Collection[str]) -> dict[str, bytes]:
        """Remove what stands at `keys` and return it.

        Raises:
            ServiceUnavailableError: the file stays locked, or cannot be written.
        """
        keys_by_name = by_name(keys)
        taken = await self._run(lambda connection: self._take(connection, kind, keys_by_name))
        return {keys_by_name[name]: content for name, content in taken.items()}

    async def count(self, key: str, more: int, *, ttl_seconds: float) -> int:
        """Add to the count at `key`, which begins at nought; return the sum.

        Raises:
            ServiceUnavailableError: the file stays locked or cannot be written.
        """
        name = name_of(key)
        return await self._run(lambda connection: self._add(connection, name, more, ttl_seconds=ttl_seconds))

    async def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        if self._thread is None:
            raise ServiceUnavailableError("the ephemeral store is not open: await open() first")
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, self._attempt, work)
        except (sqlite3.Error, OSError) as exc:
            raise ServiceUnavailableError(UNREACHABLE) from ReactiveRPCError(
                f"{self.path} cannot be read or written ({exc}): see that its folder is writable and its disk not full"
            )

    def _attempt(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do the work; once more on a new connection, or a new file, where this one may be to blame."""
        try:
            return work(self._connected())
        except sqlite3.Error as exc:
            code = _code(exc)
            if code in _IN_THE_WAY:
                raise
            if code in _DAMAGED:
                self._remove()
            self._disconnect()
            return work(self._connected())

    def _connected(self) -> sqlite3.Connection:
        """Return a connection to the file that stands at the path now."""
        if self._connection is not None and self._file == _identity(self.path):
            return self._connection
        self._disconnect()
        self._create()
        # INVARIANT (the identity is read before connecting): if the file is replaced in between, the next call notices.
        self._file = _identity(self.path)
        connection = self._connection = sqlite3.connect(
            f"{self.path.absolute().as_uri()}?mode=rw",
            uri=True,
            timeout=self._busy_timeout_seconds,
            isolation_level=None,
            check_same_thread=False,
        )
        # INVARIANT (no write-ahead log): connections to a file that was removed would share one with its successor, as
        # it is found by name; a rollback journal is opened anew for each transaction, and ignored by an empty database.
        for pragma in ("synchronous=OFF", "journal_mode=TRUNCATE", f"max_page_count={self._max_pages}"):
            connection.execute(f"PRAGMA {pragma}").close()
        for statement in _TABLE:
            connection.execute(statement)
        return connection

    def _create(self) -> None:
        """Make an empty file that the same people may use as the database; leave one that is there."""
        with suppress(FileExistsError):
            created = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
            try:
                self._share(created)
            finally:
                os.close(created)

    def _share(self, file: int) -> None:
        with suppress(OSError):  # no database yet, or a group that is not ours: the file stays our own
            database = self._database.stat()
            os.fchown(file, -1, database.st_gid)
            os.fchmod(file, database.st_mode & 0o666)
            os.fchown(file, database.st_uid, -1)

    def _remove(self) -> None:
        """Remove the damaged file, unless somebody has replaced it."""
        _log.warning("%s is damaged and made anew: what stood on it is forgotten", self.path)
        if self._file == _identity(self.path):
            self.path.unlink(missing_ok=True)

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _put(
        self,
        connection: sqlite3.Connection,
        kind: EntryKind,
        entries: Mapping[str, bytes],
        owner: str,
        ttl_seconds: float,
    ) -> None:
        self._prune_in_time(connection)
        now = self._now()
        try:
            with _transaction(connection):
                self._write(connection, kind, entries, owner, now + ttl_seconds)
        except sqlite3.OperationalError as exc:
            if _code(exc) != sqlite3.SQLITE_FULL:
                raise
            self._prune(connection)  # what has expired takes pages, and counts for nobody
            with _transaction(connection):
                self._write(connection, kind, entries, owner, now + ttl_seconds)

    def _write(
        self,
        connection: sqlite3.Connection,
        kind: EntryKind,
        entries: Mapping[str, bytes],
        owner: str,
        expires_at: float,
    ) -> None:
        whose = name_of(owner)
        rows = [
            (kind, name, whose, weight_of(content), expires_at, content) for name, content in sorted(entries.items())
        ]
        chosen = (kind, whose, self._now(), json.dumps(list(entries)))
        own, all_of_kind = connection.execute(_USED, chosen).fetchone()
        given = sum(weight_of(content) for content in entries.values())
        excess = self._budget.to_free(owner, given, own=own, all_of_kind=all_of_kind)
        if excess:
            connection.execute(_FREE, (*chosen, excess))
        connection.executemany(_PUT, rows)

    def _read(self, connection: sqlite3.Connection, kind: EntryKind, names: Collection[str]) -> dict[str, bytes]:
        found = connection.execute(
            f"SELECT name, content FROM entry WHERE {_AMONG} AND expires_at > ?",
            (kind, json.dumps(list(names)), self._now()),
        )
        return dict(found.fetchall())

    def _take(self, connection: sqlite3.Connection, kind: EntryKind, names: Collection[str]) -> dict[str, bytes]:
        if not self._read(connection, kind, names):
            return {}
        # INVARIANT (read again in the transaction that deletes): of all who take an entry one gets it. The look above
        # only spares the lock, as nearly always nothing is there.
        with _transaction(connection):
            found = self._read(connection, kind, names)
            connection.execute(f"DELETE FROM entry WHERE {_AMONG}", (kind, json.dumps(list(names))))
        return found

    def _add(self, connection: sqlite3.Connection, name: str, more: int, *, ttl_seconds: float) -> int:
        self._prune_in_time(connection)
        with _transaction(connection):
            found = self._read(connection, "count", [name])
            if found:
                total = int(found[name]) + more
                counted = (count_content(total), name)
                connection.execute("UPDATE entry SET content = ? WHERE kind = 'count' AND name = ?", counted)
                return total
            self._write(connection, "count", {name: count_content(more)}, NOBODY, self._now() + ttl_seconds)
        return more

    def _prune_in_time(self, connection: sqlite3.Connection) -> None:
        now = self._now()
        if now >= self._pruned_at + PRUNE_SECONDS or now < self._pruned_at:
            self._prune(connection)

    def _prune(self, connection: sqlite3.Connection) -> None:
        self._pruned_at = self._now()
        connection.execute("DELETE FROM entry WHERE expires_at <= ?", (self._pruned_at,))


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _code(error: sqlite3.Error) -> int:
    """Return the primary result code; 0 where the driver gives none. Source: sqlite.org/rescode.html."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
