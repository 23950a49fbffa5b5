"""Capture on SQLite: install, verify, prune.

Capture looks at everything without a lock first, and again under `BEGIN IMMEDIATE` if anything is to be done. Rows are
decoded by the state that was verified at the same schema version (`backends/sqlite/log.py`).

`docs/internals/capture-sqlite.md` lists what is installed, what ends an epoch, the limits, and the rejected ways.
"""

from __future__ import annotations

import json
import logging
import sqlite3
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, NamedTuple

from reactive_rpc.backends.sqlite.capture.images import quoted
from reactive_rpc.backends.sqlite.capture.tables import META, OUTBOX, PREFIX, READS, SQLiteTable, read_tables
from reactive_rpc.backends.sqlite.capture.triggers import BASE_TABLES, coalescing, triggers_of
from reactive_rpc.backends.sqlite.capture.views import names_of, read_views
from reactive_rpc.changes.captured_schema import CaptureState, TableCapture, digest_of
from reactive_rpc.changes.image_policy import EVERY_TABLE, READ_TABLES, READS_KEPT_SECONDS, ImagePolicy
from reactive_rpc.clock import IdSource
from reactive_rpc.dependencies.schema import View
from reactive_rpc.errors import CaptureError, ServiceUnavailableError

__all__ = ["POSITION", "SQLiteCapture"]

MINIMUM_VERSION = (3, 35, 0)
PRUNE_CHUNK_ROWS = 1_000
WAL_RETRY_SECONDS = 0.02
NOTE_MILLISECONDS = 250

POSITION = f"SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = '{OUTBOX}'), 0)"
"""SQL that returns the highest id given out: the version that a snapshot shows."""

_log = logging.getLogger(__name__)


class _SchemaFingerprint(NamedTuple):
    """How often the schema was changed, and how many objects it has: tables, indexes, views and triggers."""

    version: int
    objects: int

    def adds_only_objects_to(self, before: _SchemaFingerprint) -> bool:
        """Tell whether nothing was done since `before` but to create objects.

        Each DDL statement adds at least 1 to the version. Creating adds one object where dropping takes at least one
        away, so both grow by the same amount only if nothing was dropped.
        """
        return self.version - before.version == self.objects - before.objects


_NO_SCHEMA: Final = _SchemaFingerprint(0, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Meta:
    """The content of the meta table; empty if nothing was installed."""

    epoch: str = ""
    schema_fingerprint: _SchemaFingerprint = _NO_SCHEMA
    digests: Mapping[str, str]
    policy: ImagePolicy | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _SQLiteFindings:
    """The objects that stand in the database, and those that should.

    Attributes:
        meta: the last record.
        policy: which values images are to hold.
        schema_fingerprint: as it is now.
        tables: every table, captured or not.
        views: every view, by name.
        expected: `{table: {trigger: SQL}}` of the tables to capture.
        existing: `{object: SQL}` of our own tables and triggers.
    """

    meta: _Meta
    policy: ImagePolicy
    schema_fingerprint: _SchemaFingerprint
    tables: tuple[SQLiteTable, ...]
    views: Mapping[str, View]
    expected: Mapping[str, Mapping[str, str]]
    existing: Mapping[str, str]

    @property
    def wanted(self) -> dict[str, str]:
        """Everything that should stand, `{object: SQL}`."""
        triggers = {name: sql for of_table in self.expected.values() for name, sql in of_table.items()}
        return BASE_TABLES | coalescing() | triggers

    @property
    def statements(self) -> list[str]:
        """The DDL that is missing, in an order that works; empty if all is in place."""
        wanted, existing = self.wanted, self.existing
        wrong = [name for name, sql in existing.items() if wanted.get(name) != sql]
        drops = [f"DROP {'TABLE' if name in BASE_TABLES else 'TRIGGER'} {quoted(name)}" for name in wrong]
        return drops + [sql for name, sql in wanted.items() if existing.get(name) != sql]

    @property
    def incomplete(self) -> frozenset[str]:
        """The tables whose triggers are not as they should be."""
        return frozenset(
            table
            for table, triggers in self.expected.items()
            if any(self.existing.get(name) != sql for name, sql in triggers.items())
        )

    @property
    def digests(self) -> dict[str, str]:
        """`{table: digest}` of the triggers and columns expected of each captured table.

        It leaves out the indexed columns, which only decide what a look-up costs.
        """
        captures = {table.name: replace(table.capture, indexed=frozenset()) for table in self.tables}
        return {name: digest_of(captures[name], triggers) for name, triggers in self.expected.items()}

    @property
    def invalidation_reason(self) -> str | None:
        """Why writes may have gone unseen since the recorded fingerprint; None if none can have."""
        if not self.meta.epoch or any(self.existing.get(name) != sql for name, sql in BASE_TABLES.items()):
            return "capture was not installed"
        digests, incomplete = self.digests, self.incomplete
        for table, digest in self.meta.digests.items():
            if digests.get(table) != digest:
                return f"table {table!r} was altered or dropped"
            if table in incomplete:
                return f"the triggers of table {table!r} were dropped or altered"
        if not self.schema_fingerprint.adds_only_objects_to(self.meta.schema_fingerprint):
            return "the schema was changed by more than new objects"
        return None

    @property
    def is_recorded(self) -> bool:
        """Tell whether nothing is left to write, DDL or meta."""
        is_same = self.meta.digests == self.digests and self.meta.policy == self.policy
        return self.invalidation_reason is None and not self.statements and is_same

    def state(self) -> CaptureState:
        """Return the state as it stands, tables with missing triggers marked as not captured."""
        return CaptureState(
            epoch=self.meta.epoch,
            schema_fingerprint=self.schema_fingerprint.version,
            tables={table.name: self._capture(table) for table in self.tables},
            names=names_of(table.name for table in self.tables),
            views=self.views,
        )

    def _capture(self, table: SQLiteTable) -> TableCapture:
        if table.name not in self.incomplete:
            return table.capture
        return replace(table.capture, captured=False, reason="its triggers are missing")


class SQLiteCapture:
    """Capture of one SQLite file. Every call opens a connection of its own and closes it; safe in any thread.

    Args:
        path: the database's file; it is created by `install` if there is none.
        ids: names new epochs.
        busy_timeout_seconds: how long to wait for a writer.
        manage: False if an administrator owns the schema: no DDL is run, and `install` is `verify`.
        policy: which values images hold; None takes the recorded one.

    Raises:
        CaptureError: `path` names no file.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        ids: IdSource,
        busy_timeout_seconds: float = 5.0,
        manage: bool = True,
        policy: ImagePolicy | None = EVERY_TABLE,
    ) -> None:
        text = str(path)
        if not text or text.startswith("file:") or ":memory:" in text:
            raise CaptureError(
                f"{text!r} is no database file: other connections cannot see an in-memory database. Give the plain"
                " path of a file; for tests, one in a temporary directory"
            )
        self.path = Path(text).absolute()
        self.busy_timeout_seconds = busy_timeout_seconds
        self.manage = manage
        self.policy = policy
        self._ids = ids

    def install(self) -> CaptureState:
        """Put everything in place and return the state; idempotent, and safe when several processes start at once.

        Raises:
            CaptureError: SQLite is too old, the file system refuses WAL, or (`manage=False`) something is missing.
            ServiceUnavailableError: the database cannot be read or stays locked.
        """
        if not self.manage:
            return self.verify()
        with self._connected(create=True) as connection:
            self._use_wal(connection)
            state = self._reconcile(connection, self.policy, run_ddl=True)
        self._warn_of_uncaptured(state)
        return state

    def verify(self) -> CaptureState:
        """Check that everything is in place, run no DDL, and return the state.

        Raises:
            CaptureError: something is missing; the message holds the SQL to run.
            ServiceUnavailableError: the database cannot be read or stays locked.
        """
        with self._connected() as connection:
            if _journal_mode(connection) != "wal":
                raise CaptureError(f"{self.path} is not in WAL mode. Run:", statements=["PRAGMA journal_mode=WAL"])
            self._refuse_missing(_inspect(connection, self.policy))
            return self._reconcile(connection, self.policy, run_ddl=False)

    def refresh(self, *, renew: bool = False, at_least: int = 0) -> CaptureState:
        """Verify again after a schema change. Repair it if `manage` is on; else count incomplete tables as uncaptured.

        Args:
            renew: begin a new epoch in any case.
            at_least: a version that the new epoch must exceed.

        Raises:
            CaptureError: the outbox is gone and `manage` is off, or WAL is refused.
            ServiceUnavailableError: the database is gone, cannot be read or stays locked.
        """
        with self._connected() as connection:
            if self.manage:
                self._use_wal(connection)
            state = self._reconcile(connection, None, run_ddl=self.manage, renew=renew, at_least=at_least)
        self._warn_of_uncaptured(state)
        return state

    @property
    def guarantee(self) -> str:
        """Whose writes are seen."""
        return "triggers see every write to the file, whoever wrote it"

    def script(self) -> str:
        """Return the SQL that `install` would run now; empty if all is in place.

        Raises:
            ServiceUnavailableError: the database cannot be read or stays locked.
        """
        with self._connected() as connection:
            return _script(_inspect(connection, self.policy).statements)

    def uninstall(self) -> None:
        """Drop the triggers, the outbox and the meta table; idempotent.

        Raises:
            CaptureError: `manage` is off; the message holds the SQL to run.
            ServiceUnavailableError: the database cannot be read or stays locked.
        """
        with self._connected() as connection:
            if not self.manage:
                raise CaptureError("an administrator must run:", statements=_drops(connection))
            with _transaction(connection, "BEGIN IMMEDIATE"):
                for statement in _drops(connection):
                    connection.execute(statement)

    def note_reads(self, tables: Collection[str]) -> None:
        """Have triggers copy the values of these tables from now on, for as long as somebody repeats this.

        Raises:
            ServiceUnavailableError: the database cannot be read or stays locked; a query is not made to wait for long.
        """
        with self._connected() as connection:
            now = _now(connection)
            connection.execute(f"PRAGMA busy_timeout={NOTE_MILLISECONDS}")
            with _transaction(connection, "BEGIN IMMEDIATE"):
                connection.executemany(
                    f'INSERT OR REPLACE INTO "{READS}"(tbl, at) VALUES (?, ?)', [(name, now) for name in sorted(tables)]
                )

    def noted_reads(self) -> frozenset[str]:
        """Return the tables whose values triggers copy now.

        Raises:
            ServiceUnavailableError: the database cannot be read.
        """
        with self._connected() as connection:
            return frozenset(name for (name,) in connection.execute(f'SELECT tbl FROM "{READS}"'))

    def prune(self, older_than_seconds: float) -> int:
        """Delete the outbox's rows of before `older_than_seconds` ago and return how many.

        Rows go in chunks of 1,000, each in its own short transaction that also raises the retention floor, so no
        writer waits for more than one chunk, and a reader finds either a row or a floor above it.

        Raises:
            ServiceUnavailableError: the database cannot be read or stays locked; rows deleted so far stay deleted.
        """
        deleted = 0
        with self._connected() as connection:
            _forget_reads(connection, _now(connection) - READS_KEPT_SECONDS)
            last = _last_older(connection, _now(connection) - older_than_seconds)
            while chunk := _prune_chunk(connection, last):
                deleted += chunk
        return deleted

    @contextmanager
    def _connected(self, *, create: bool = False) -> Iterator[sqlite3.Connection]:
        uri = f"{self.path.as_uri()}?mode={'rwc' if create else 'rw'}"
        try:
            with closing(
                sqlite3.connect(uri, uri=True, timeout=self.busy_timeout_seconds, isolation_level=None)
            ) as connection:
                _refuse_old_library(connection)
                yield connection
        except (sqlite3.Error, OSError) as exc:
            raise ServiceUnavailableError(f"{self.path} cannot be read or written: {exc}") from exc

    def _use_wal(self, connection: sqlite3.Connection) -> None:
        """Switch to WAL; SQLite does not call its busy handler for that, so wait here for other processes."""
        give_up = time.monotonic() + self.busy_timeout_seconds
        while _journal_mode(connection) != "wal":
            try:
                mode = connection.execute("PRAGMA journal_mode=WAL").fetchone()[0]
            except sqlite3.OperationalError:
                if time.monotonic() > give_up:
                    raise
                time.sleep(WAL_RETRY_SECONDS)
                continue
            if mode != "wal":
                raise CaptureError(
                    f"the file system of {self.path} refuses WAL mode (the journal stays {mode!r}): put the database"
                    " on a local disk"
                )

    def _reconcile(
        self,
        connection: sqlite3.Connection,
        policy: ImagePolicy | None,
        *,
        run_ddl: bool,
        renew: bool = False,
        at_least: int = 0,
    ) -> CaptureState:
        """Bring database and meta in line and return the state of the same transaction.

        Args:
            policy: to be imposed; None is the recorded one. If that is gone with our tables, it is this process's own:
                values that this leaves out must not be copied meanwhile.
        """
        fallback = self.policy or READ_TABLES
        with _transaction(connection, "BEGIN"):
            found = _inspect(connection, policy, fallback=fallback)
        if found.is_recorded and not renew:
            return found.state()
        with _transaction(connection, "BEGIN IMMEDIATE"):
            found = _inspect(connection, policy, fallback=fallback)
            if found.is_recorded and not renew:
                return found.state()
            return self._repair(connection, found, run_ddl=run_ddl, renew=renew, at_least=at_least)

    def _repair(
        self, connection: sqlite3.Connection, found: _SQLiteFindings, *, run_ddl: bool, renew: bool, at_least: int
    ) -> CaptureState:
        begins_epoch = renew or found.invalidation_reason is not None
        unseen = found.digests.keys() - found.meta.digests.keys()
        if run_ddl:
            for statement in found.statements:
                connection.execute(statement)
        elif any(name not in found.existing for name in BASE_TABLES):
            self._refuse_missing(found)
        if begins_epoch:
            _begin_epoch(connection, self._ids.new_id(), at_least)
        now = _inspect(connection, found.policy)
        # INVARIANT (a new table is logged in the transaction that makes its triggers): the bulk change lies after every
        # write that no trigger saw, and before every answer that counts on capture.
        for table in sorted(unseen - now.incomplete):
            connection.execute(f"INSERT INTO \"{OUTBOX}\"(tbl, op) VALUES (?, 'B')", (table,))
        _record(connection, now)
        return _inspect(connection).state()

    def _refuse_missing(self, found: _SQLiteFindings) -> None:
        if found.statements:
            raise CaptureError(
                f"capture is not in place on {self.path}. Run `reactive-rpc db install --rpc main:rpc`, or let an"
                " administrator run:",
                statements=found.statements,
            )

    def _warn_of_uncaptured(self, state: CaptureState) -> None:
        for table in state.tables.values():
            if not table.captured:
                _log.warning(
                    "table %r is not captured, so nothing that reads it is cached: %s", table.name, table.reason
                )


def _refuse_old_library(connection: sqlite3.Connection) -> None:
    if sqlite3.sqlite_version_info < MINIMUM_VERSION:
        raise CaptureError(f"SQLite {sqlite3.sqlite_version} is too old: 3.35 or newer is needed")
    try:
        connection.execute("SELECT json_array(1)").fetchone()
    except sqlite3.OperationalError as exc:
        if "no such function" not in str(exc):
            raise
        raise CaptureError("this SQLite has no JSON functions: use a build with JSON1 (standard since 3.38)") from exc


def _journal_mode(connection: sqlite3.Connection) -> str:
    return str(connection.execute("PRAGMA journal_mode").fetchone()[0]).lower()


@contextmanager
def _transaction(connection: sqlite3.Connection, begin: str) -> Iterator[None]:
    """Run a block in one transaction: committed on leaving, rolled back on an error."""
    connection.execute(begin)
    try:
        yield
    except BaseException:
        connection.rollback()
        raise
    connection.commit()


def _inspect(
    connection: sqlite3.Connection, policy: ImagePolicy | None = None, *, fallback: ImagePolicy = READ_TABLES
) -> _SQLiteFindings:
    """Compare the database with what should stand; by the recorded policy, or `fallback`, if none is imposed."""
    existing = dict(
        connection.execute(
            "SELECT name, sql FROM sqlite_schema WHERE (type = 'trigger' AND substr(name, 1, ?) = ?)"
            " OR (type = 'table' AND name IN (?, ?, ?, ?))",
            (len(PREFIX), PREFIX, *BASE_TABLES),
        )
    )
    version = connection.execute("PRAGMA main.schema_version").fetchone()[0]
    objects = connection.execute("SELECT count(*) FROM sqlite_schema WHERE substr(name, 1, 7) <> 'sqlite_'").fetchone()[
        0
    ]
    meta = _read_meta(connection) if existing.get(META) == BASE_TABLES[META] else _Meta(digests={})
    policy = policy or meta.policy or fallback
    tables = read_tables(connection, policy)
    return _SQLiteFindings(
        meta=meta,
        policy=policy,
        schema_fingerprint=_SchemaFingerprint(version, objects),
        tables=tables,
        views=read_views(connection, [table.name for table in tables]),
        expected={
            table.name: triggers_of(table, only_read=policy.only_read) for table in tables if table.capture.captured
        },
        existing=existing,
    )


def _read_meta(connection: sqlite3.Connection) -> _Meta:
    values = dict(connection.execute(f'SELECT key, value FROM "{META}"'))
    if "epoch" not in values or "schema_fingerprint" not in values:
        return _Meta(digests={})
    return _Meta(
        epoch=values["epoch"],
        schema_fingerprint=_SchemaFingerprint(*json.loads(values["schema_fingerprint"])),
        digests=json.loads(values["tables"]),
        policy=ImagePolicy.from_json(json.loads(values.get("policy", "{}"))),
    )


def _set_meta(connection: sqlite3.Connection, key: str, value: str) -> None:
    connection.execute(f'INSERT OR REPLACE INTO "{META}"(key, value) VALUES (?, ?)', (key, value))


def _begin_epoch(connection: sqlite3.Connection, epoch: str, at_least: int) -> None:
    # INVARIANT (the row's id is above every id that anybody has used): versions grow across epochs, so whoever noted
    # one before the flush never finds that nothing happened since. A restored sequence goes back, hence `at_least`.
    last = max(connection.execute(POSITION).fetchone()[0], at_least)
    connection.execute(f"INSERT INTO \"{OUTBOX}\"(id, tbl, op) VALUES (?, '', 'E')", (last + 1,))
    _set_meta(connection, "epoch", epoch)


def _record(connection: sqlite3.Connection, found: _SQLiteFindings) -> None:
    """Note what stands now. A table whose triggers are missing is left out: once they come, it counts as new."""
    digests = {table: digest for table, digest in found.digests.items() if table not in found.incomplete}
    _set_meta(connection, "tables", json.dumps(digests))
    _set_meta(connection, "schema_fingerprint", json.dumps(found.schema_fingerprint))
    _set_meta(connection, "policy", json.dumps(found.policy.to_json()))


def _drops(connection: sqlite3.Connection) -> list[str]:
    existing = _inspect(connection).existing
    triggers = [f"DROP TRIGGER {quoted(name)}" for name in existing if name not in BASE_TABLES]
    return triggers + [f"DROP TABLE {quoted(name)}" for name in BASE_TABLES if name in existing]


def _now(connection: sqlite3.Connection) -> int:
    """Return the time by the clock that dates the outbox's rows."""
    return int(connection.execute("SELECT CAST(strftime('%s','now') AS INTEGER)").fetchone()[0])


def _script(statements: list[str]) -> str:
    return "\n".join(f"{statement};" for statement in statements)


def _forget_reads(connection: sqlite3.Connection, cutoff: float) -> None:
    """Forget tables that nobody has noted since `cutoff`; the write lock is taken only if there are some."""
    if connection.execute(f'SELECT EXISTS(SELECT 1 FROM "{READS}" WHERE at < ?)', (cutoff,)).fetchone()[0]:
        with _transaction(connection, "BEGIN IMMEDIATE"):
            connection.execute(f'DELETE FROM "{READS}" WHERE at < ?', (cutoff,))


def _last_older(connection: sqlite3.Connection, cutoff: float) -> int:
    """Return the last id before the first row that is younger; reads only as far as there is something to prune."""
    young = connection.execute(f'SELECT id FROM "{OUTBOX}" WHERE at >= ? ORDER BY id LIMIT 1', (cutoff,)).fetchone()
    return int(connection.execute(POSITION).fetchone()[0] if young is None else young[0] - 1)


def _prune_chunk(connection: sqlite3.Connection, last: int) -> int:
    with _transaction(connection, "BEGIN IMMEDIATE"):
        ids = connection.execute(
            f'SELECT id FROM "{OUTBOX}" WHERE id <= ? ORDER BY id LIMIT ?', (last, PRUNE_CHUNK_ROWS)
        ).fetchall()
        if ids:
            connection.execute(f'DELETE FROM "{OUTBOX}" WHERE id <= ?', ids[-1])
            _set_meta(connection, "floor", str(ids[-1][0]))
    return len(ids)
