"""Capture on PostgreSQL: install, verify, prune.

**What stands in the database.** The schema `reactive_rpc`: the outbox, one meta table, the horizon (when which
transactions had ended, for pruning), and one trigger function for each relation. Meta holds the
epoch, the retention floor, and what was there when all was last verified: the *record*.

**The mark** is a fingerprint over the catalogs: row versions of relations, columns, triggers, views, policies, and the
server's identity and timeline. The log evaluates it in the statement that reads the outbox, and applies rows only by a
state that was verified at that mark. Here it is read before and after everything else; where the two agree, nothing
was committed in between that matters.

**When the epoch changes.** An epoch promises that no write between two of its places in the log went unseen, and that
rows are decoded by the columns they were written with. It ends when

- capture was not installed, or the database is another one (a restored dump, a copy, another timeline);
- the outbox was truncated (or rewritten, which looks the same): what was not read yet is gone;
- the server was restarted: it may have crashed, which empties unlogged tables and lets transaction ids be given out
  again, or be an older copy;
- a captured table was dropped, created anew or renamed, or its columns, row-level security or inheritance were altered:
  every ALTER TABLE on columns (also SET NOT NULL, SET DEFAULT, SET STATISTICS), and GRANT on single columns;
- one of its triggers or functions was dropped, disabled or replaced, or a unique constraint dropped;
- somebody defined a function or an operator that is also built in, as statements may mean it now;
- an enum's label or a composite type was altered (new labels and new types are harmless), a view replaced or dropped,
  or a name now means something else (a table that shadows another in the search path, an attached partition).

CREATE INDEX, CREATE TABLE, CREATE VIEW, ANALYZE, VACUUM, TRUNCATE, ADD FOREIGN KEY and GRANT on tables do not end it.

**New tables and partitions** are written to, unseen, between CREATE TABLE and the triggers. A reader may straddle the
two. So installing the triggers, which waits for every writer of the table, also logs a bulk change: it lies after every
unseen write, and before every answer that counts on capture. The same is logged for a table whose partitions, or whose
own catalog row, are not the recorded ones.

**Races.** Everything is looked at without a lock first, then again under an advisory lock if anything is to be done: of
two processes that start together, the second finds all in place and writes nothing. Locks on tables are waited for
shorter than PostgreSQL waits before it looks for a deadlock, so it is never a user's statement that is cancelled.
`install` begins again from nothing until its time is up; `refresh`, which answers wait for, leaves a busy table
uncaptured.

**Pruning.** An age in seconds says nothing of a transaction that is still open: its rows bear an old id and come late.
So each prune notes, beside the time, the oldest transaction still open then. All below a note had ended when it was
taken; so whoever has read the log since has seen it, and once the note is older than the retention, it may go. A reader
whose own snapshot begins below the floor may have missed some.

**Known limits.** Not seen: a superuser who writes the catalogs or drops to single-user mode; rows of the outbox that
are deleted by hand; functions that are redefined without touching a table, where a generated column rests on them.
Settings that are altered for a role, the database or the server (search_path, timezone), text search configurations,
and the roles that row-level security names count only once this process starts again. A user's operator that overloads
a sign of SQLAlchemy's own (`=`, `<<`), and a user's cast, are taken to depend on their arguments and on what they lock.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Final, LiteralString

import psycopg
from psycopg import errors
from sqlalchemy.engine import URL

from reactive_rpc.capture.postgresql_images import OutboxRow, decode, decode_value, quoted, value_sql
from reactive_rpc.capture.postgresql_tables import (
    FINGERPRINT,
    SCHEMA,
    Catalog,
    Table,
    read_catalog,
    read_redefined,
)
from reactive_rpc.capture.postgresql_triggers import (
    BASE,
    FUNCTION_SETTINGS,
    TRIGGER_PREFIX,
    RelationTriggers,
    base_statements,
    triggers_of,
)
from reactive_rpc.capture.postgresql_views import Views, read_insecure, read_views
from reactive_rpc.capture.schema import CaptureState, TableCapture
from reactive_rpc.clock import IdSource
from reactive_rpc.errors import CaptureError, ServiceUnavailableError
from reactive_rpc.sql.functions import pure_functions
from reactive_rpc.sql.postgresql_url import libpq_url

__all__ = ["FINGERPRINT", "INCARNATION", "OutboxRow", "PostgreSQLCapture", "decode", "decode_value", "value_sql"]

MINIMUM_VERSION: Final = 140000
LOCK_MILLISECONDS: Final = 400
"""Below PostgreSQL's `deadlock_timeout` of one second."""
INSTALL_SECONDS: Final = 30.0
REFRESH_SECONDS: Final = 2.0
CONNECT_SECONDS: Final = 5
PRUNE_CHUNK_ROWS: Final = 10_000
ADVISORY_LOCK: Final = 0x7265616374697665  # "reactive"

_log = logging.getLogger(__name__)

_PURE: Final = pure_functions("postgresql")

INCARNATION: Final[LiteralString] = """concat_ws('/', extract(epoch FROM pg_postmaster_start_time()),
  extract(epoch FROM pg_stat_get_bgwriter_stat_reset_time()))"""
"""SQL that names one run of the server: another after each start, and after each recovery from a crash, which drops the
statistics. A crash undoes what was not on disk yet, and gives the same transaction ids out again (see the log)."""

_SETTINGS: Final = """
SET default_transaction_read_only = off; SET statement_timeout = 0; SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0
"""
"""What role or database may set for others must not keep capture from its work; it bounds its own waits."""

_SERVER: Final[LiteralString] = f"""
SELECT (SELECT system_identifier FROM pg_control_system()) || '/' || d.oid,
  substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8) || '/' || {INCARNATION}
FROM pg_database d WHERE datname = current_database()
"""
# Enum labels and composite types: what they are now, whatever they are used in.
_TYPES: Final[LiteralString] = """
SELECT 'e' || oid, enumlabel::text FROM pg_enum
UNION ALL
SELECT 'c' || a.attrelid, string_agg(a.attname || '/' || a.xmin, ' ' ORDER BY a.attnum)
FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
WHERE c.relkind = 'c' AND c.oid >= 16384 AND a.attnum > 0
GROUP BY a.attrelid
ORDER BY 1
"""
_OURS: Final[LiteralString] = f"""
SELECT c.relname::text, c.oid || '/' || c.relfilenode FROM pg_class c
WHERE c.relnamespace = to_regnamespace('{SCHEMA}') AND c.relkind = 'r'
"""
_FUNCTIONS: Final[LiteralString] = f"""
SELECT p.proname::text, p.prosrc, p.prosecdef, coalesce(p.proconfig, '{{}}'), p.oid || '/' || p.xmin
FROM pg_proc p WHERE p.pronamespace = to_regnamespace('{SCHEMA}')
"""
_TRIGGERS: Final[LiteralString] = f"""
SELECT t.tgrelid::bigint, t.tgname::text, t.oid || '/' || t.xmin,
  CASE WHEN p.pronamespace = to_regnamespace('{SCHEMA}') THEN p.proname::text ELSE '' END,
  t.tgtype::int, t.tgenabled::text, t.tgoldtable::text, t.tgnewtable::text,
  t.tgqual IS NULL AND t.tgattr = '' AND t.tgnargs = 0, n.nspname::text, c.relname::text
FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid JOIN pg_class c ON c.oid = t.tgrelid
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE NOT t.tgisinternal AND starts_with(t.tgname::text, '{TRIGGER_PREFIX}') AND c.relpersistence <> 't'
"""
_NEWEST_HORIZON: Final[LiteralString] = f"""
SELECT xid::text, at FROM {SCHEMA}.horizon
WHERE at <= clock_timestamp() - make_interval(secs => %s) ORDER BY at DESC, xid DESC LIMIT 1
"""
_PRUNE_CHUNK: Final = f"""
DELETE FROM {SCHEMA}.outbox WHERE ctid = ANY(ARRAY(
  SELECT ctid FROM {SCHEMA}.outbox WHERE xid < %s::xid8 ORDER BY xid, id LIMIT {PRUNE_CHUNK_ROWS}))
"""
_BLOCKERS: Final[LiteralString] = """
SELECT DISTINCT l.relation::regclass::text, l.pid, a.state, date_trunc('second', now() - a.xact_start)::text
FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
WHERE l.locktype = 'relation' AND l.granted AND l.pid <> pg_backend_pid() AND l.relation = ANY(%s::oid[])
  AND l.mode NOT IN ('AccessShareLock', 'RowShareLock')
"""
_IS_OWNER: Final[LiteralString] = f"""
SELECT r.rolname, r.rolsuper OR CASE WHEN to_regnamespace('{SCHEMA}') IS NULL
  THEN has_database_privilege(current_database(), 'CREATE')
  ELSE (SELECT pg_has_role(n.nspowner, 'USAGE') FROM pg_namespace n WHERE n.nspname = '{SCHEMA}') END
FROM pg_roles r WHERE r.rolname = current_user
"""
_HAS_GRANTS: Final[LiteralString] = f"""
SELECT coalesce(has_schema_privilege(to_regnamespace('{SCHEMA}'), 'USAGE')
  AND bool_and(coalesce(has_table_privilege(c.oid, kind), false))
  AND has_function_privilege(to_regprocedure('{SCHEMA}.announce(text, jsonb)'), 'EXECUTE'), false)
FROM (VALUES ('outbox', 'SELECT'), ('outbox', 'INSERT'), ('outbox', 'DELETE'),
  ('horizon', 'SELECT'), ('horizon', 'INSERT'), ('horizon', 'DELETE'),
  ('meta', 'SELECT'), ('meta', 'INSERT'), ('meta', 'UPDATE')) AS needed(relation, kind)
LEFT JOIN pg_class c ON c.relname = relation AND c.relnamespace = to_regnamespace('{SCHEMA}')
"""


_Entry = tuple[str, list[str], dict[str, list[str]]]
"""`(digest, [unique column], {relation: [version and link, function and triggers]})` of a table."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Record:
    """What stood when all was last verified, as JSON keeps it.

    Attributes:
        epoch: empty where nothing was installed.
        server: `[system and database, timeline and incarnation, oids and files of our tables]`.
        tables: the complete ones.
        types: `{enum label or composite type: what it is}`.
        redefined: functions and operators, see `CaptureState.redefines`.
        names: `{other name of a table, or name of a view: what it means}`.
    """

    epoch: str = ""
    server: list[str]
    tables: dict[str, _Entry]
    types: dict[str, str]
    names: dict[str, str]
    redefined: list[str] = field(default_factory=list)


_Trigger = tuple[str, tuple[object, ...]]
"""`(version, signature)`."""


@dataclass(frozen=True, kw_only=True)
class _Findings:
    """What stands in the database, beside what should.

    Attributes:
        record: what was recorded last.
        mark: the fingerprint now.
        catalog: every table, captured or not.
        expected: `{table: what must stand on it and its partitions}` of the tables to capture.
        functions: `{function of ours: (version, body, is as it should be otherwise)}`.
        triggers: `{relation: {trigger of ours: (version, signature)}}`.
        relations: `{relation with triggers of ours: quoted name}`.
        ours: `{table of ours: oid and file}`; TRUNCATE, too, gives it another file.
    """

    record: _Record
    mark: str
    catalog: Catalog
    views: Views
    expected: Mapping[str, Sequence[RelationTriggers]]
    functions: Mapping[str, tuple[str, str, bool]]
    triggers: Mapping[int, Mapping[str, _Trigger]]
    relations: Mapping[int, str]
    ours: Mapping[str, str]
    server: tuple[str, str]
    types: Mapping[str, str]
    redefined: frozenset[str]

    @cached_property
    def base(self) -> list[str]:
        """The DDL that is missing of our own tables."""
        return base_statements(self.ours, has_announce="announce" in self.functions)

    @property
    def all_drops(self) -> list[list[str]]:
        """The DDL that takes everything away."""
        triggers = [
            [f"DROP TRIGGER {quoted(name)} ON {self.relations[oid]}" for name in on]
            for oid, on in self.triggers.items()
        ]
        return [*triggers, [f"DROP SCHEMA IF EXISTS {SCHEMA} CASCADE"]]

    @cached_property
    def drops(self) -> list[list[str]]:
        """The DDL that takes away triggers which stand where none should, a list for each relation."""
        wanted = {triggers.relation.oid for group in self.expected.values() for triggers in group}
        return [
            [f"DROP TRIGGER {quoted(name)} ON {self.relations[oid]}" for name in triggers]
            for oid, triggers in self.triggers.items()
            if oid not in wanted
        ]

    @cached_property
    def changes(self) -> list[list[str]]:
        """The DDL that is missing on tables, a list for each relation, in an order that works."""
        missing = [
            triggers.statements for group in self.expected.values() for triggers in group if not self._stands(triggers)
        ]
        return self.drops + missing

    @property
    def statements(self) -> list[str]:
        """All the DDL that is missing."""
        return self.base + [statement for group in self.changes for statement in group]

    def _stands(self, wanted: RelationTriggers) -> bool:
        _, body, is_right = self.functions.get(wanted.function, ("", "", False))
        existing = self.triggers.get(wanted.relation.oid, {})
        signatures = {name: signature for name, (_, signature) in existing.items()}
        return is_right and body == wanted.body and signatures == wanted.signatures

    @cached_property
    def incomplete(self) -> frozenset[str]:
        """The tables that should be captured and whose triggers are not as they should be.

        What writes to a part or an heir of a table must tell the table, so it shares the fate of each.
        """
        broken = {name for name, group in self.expected.items() if not all(map(self._stands, group))}
        above = {table.name: table.ancestors for table in self.catalog.tables}
        return frozenset(broken | {name for child in broken for name in above[child] if name in self.expected})

    @cached_property
    def entries(self) -> dict[str, _Entry]:
        """What the record would hold of each table to capture, with the triggers that stand."""
        return {
            table.name: (_digest(table), sorted(table.capture.unique), self._relations(table))
            for table in self.catalog.tables
            if table.name in self.expected
        }

    def _relations(self, table: Table) -> dict[str, list[str]]:
        found = {}
        for wanted in self.expected[table.name]:
            relation = wanted.relation
            function, _, _ = self.functions.get(wanted.function, ("", "", False))
            triggers = sorted(version for version, _ in self.triggers.get(relation.oid, {}).values())
            found[str(relation.oid)] = [f"{relation.version} {relation.link}", " ".join([function, *triggers])]
        return found

    @cached_property
    def now(self) -> _Record:
        """What should be recorded; a table that is incomplete is left out: once it is complete, it counts as new."""
        return _Record(
            epoch=self.record.epoch,
            server=[*self.server, json.dumps(dict(sorted(self.ours.items())))],
            tables={name: entry for name, entry in self.entries.items() if name not in self.incomplete},
            types=dict(self.types),
            names=dict(self.catalog.names) | {name: f"view {of}" for name, of in self.views.versions.items()},
            redefined=sorted(self.redefined),
        )

    @cached_property
    def is_elsewhere(self) -> bool:
        """Tell whether the record was made on another server or in another database, with other transactions."""
        return bool(self.record.epoch) and self.record.server[0] != self.server[0]

    @cached_property
    def doubt(self) -> str | None:
        """Why writes may have gone unseen since the record, or be read wrongly; None where neither can be."""
        if not self.record.epoch or self.base:
            return "capture was not installed"
        if self.record.server != self.now.server:
            return (
                "the server was restarted or promoted, the database restored or copied, or the outbox truncated or made"
                " anew"
            )
        return self._doubted_table or self._doubted_meaning

    @property
    def _doubted_table(self) -> str | None:
        for name, (digest, unique, relations) in self.record.tables.items():
            if name not in self.entries:
                return f"table {name!r} was dropped, or cannot be captured any more"
            now_digest, now_unique, now_relations = self.entries[name]
            if digest != now_digest or not set(unique) <= set(now_unique):
                return f"table {name!r} was altered"
            if any(now_relations.get(oid, found)[1] != found[1] for oid, found in relations.items()):
                return f"the triggers of table {name!r} were dropped or altered"
        return None

    @property
    def _doubted_meaning(self) -> str | None:
        for name, meaning in self.record.types.items():
            if self.types.get(name, meaning) != meaning:
                return f"a type was altered: {meaning!r} is now {self.types[name]!r}"
        if not self.redefined <= set(self.record.redefined):
            return "a function or operator that is built in was defined once more"
        for name, meaning in self.record.names.items():
            now = self.now.names.get(name, name if name in self.entries else None)
            if now != meaning and not (now is None and not meaning.startswith("view ")):
                return f"{name!r} was altered or means something else"
        return None

    @property
    def suspects(self) -> list[str]:
        """The tables of which something may have changed unseen while the record stands for the rest."""
        now, then = self.now.tables, self.record.tables
        return sorted(name for name, (_, _, found) in now.items() if name not in then or found != then[name][2])

    @cached_property
    def is_recorded(self) -> bool:
        """Tell whether nothing is left to write, DDL or record."""
        return self.doubt is None and not self.statements and self.record == self.now

    def state(self) -> CaptureState:
        """Return the state as it stands, tables with missing triggers marked as not captured."""
        return CaptureState(
            epoch=self.record.epoch,
            mark=self.mark,
            tables={table.name: self._capture(table) for table in self.catalog.tables},
            names=self.catalog.names,
            views=self.views.found,
            redefined=self.redefined,
        )

    def _capture(self, table: Table) -> TableCapture:
        if table.name not in self.incomplete:
            return table.capture
        return replace(table.capture, captured=False, reason="its triggers are missing")


class PostgreSQLCapture:
    """Capture of one PostgreSQL database. Every call opens a connection of its own and closes it; safe in any thread.

    Args:
        url: SQLAlchemy's, whatever the driver.
        ids: names new epochs.
        manage: False where an administrator owns the schema: no DDL is run, and `install` is `verify`.
    """

    def __init__(self, url: URL, *, ids: IdSource, manage: bool = True) -> None:
        self.url = url
        self.manage = manage
        self._ids = ids

    @property
    def guarantee(self) -> str:
        """What is seen of whose writes."""
        return "triggers see every write to the database, whoever wrote it"

    def install(self) -> CaptureState:
        """Put everything in place and return the state; idempotent, and safe when several processes start at once.

        Raises:
            CaptureError: rights are missing, the server is too old, a table stays locked, or (`manage=False`) something
                is missing.
            ServiceUnavailableError: the database cannot be reached, or is a standby.
        """
        if not self.manage:
            return self.verify()
        with self._connected() as connection:
            state = self._settle(connection, run_ddl=True, is_patient=True)
        self._warn_of_uncaptured(state)
        return state

    def verify(self) -> CaptureState:
        """Check that everything is in place, run no DDL, and return the state.

        Raises:
            CaptureError: something is missing; the message holds the SQL to run.
            ServiceUnavailableError: the database cannot be reached, or is a standby.
        """
        with self._connected() as connection:
            found = _inspect(connection)
            self._refuse_missing(connection, found)
            return self._settle(connection, run_ddl=False)

    def refresh(self, *, renew: bool = False, at_least: int = 0) -> CaptureState:
        """Look again after a schema change, and repair what `manage` allows; what it does not is marked uncaptured.

        Args:
            renew: begin a new epoch whatever is found.
            at_least: not heeded: versions are counted by the server's transaction ids, which nobody can move. Where
                they have gone back, the new epoch alone tells versions apart.

        Raises:
            CaptureError: the outbox is gone and cannot be put back.
            ServiceUnavailableError: the database cannot be reached, or is a standby.
        """
        with self._connected() as connection:
            state = self._settle(connection, run_ddl=self.manage, renew=renew)
        self._warn_of_uncaptured(state)
        return state

    def uninstall(self) -> None:
        """Drop the triggers and the schema `reactive_rpc`; idempotent.

        Raises:
            CaptureError: `manage` is off, or rights are missing; the message holds the SQL to run.
            ServiceUnavailableError: the database cannot be reached, or a table stays locked.
        """
        with self._connected() as connection:
            drops = [statement for group in _inspect(connection).all_drops for statement in group]
            if not self.manage:
                raise CaptureError("an administrator must run:\n" + _script(drops))
            with connection.transaction():
                _limit_locks(connection, INSTALL_SECONDS)
                for statement in drops:
                    _run(connection, statement)

    def script(self) -> str:
        """Return the SQL that `install` would run now; empty where all is in place.

        Raises:
            ServiceUnavailableError: the database cannot be reached, or is a standby.
        """
        with self._connected() as connection:
            return _script(_wanted_of_administrator(connection, _inspect(connection)))

    def prune(self, older_than_seconds: float) -> int:
        """Delete what everybody could read for `older_than_seconds`, and return how many rows went.

        Raises:
            ServiceUnavailableError: the database cannot be reached; what was deleted stays deleted.
        """
        with self._connected() as connection:
            floor = _raise_floor(connection, older_than_seconds)
            deleted = 0
            while floor is not None and (chunk := connection.execute(_PRUNE_CHUNK.encode(), [floor]).rowcount):
                deleted += chunk
            return deleted

    def decode(self, row: OutboxRow, state: CaptureState) -> tuple[Any, ...]:
        """Return the changes that a row of the outbox tells, see `postgresql_images.decode`."""
        return decode(row, state)

    @contextmanager
    def _connected(self) -> Iterator[psycopg.Connection[Any]]:
        try:
            with psycopg.connect(
                libpq_url(self.url),
                autocommit=True,
                prepare_threshold=None,
                connect_timeout=CONNECT_SECONDS,
                application_name="reactive_rpc capture",
                client_encoding="utf-8",
            ) as connection:
                _refuse_unfit(connection)
                _run(connection, _SETTINGS)
                yield connection
        except errors.InsufficientPrivilege as exc:
            raise self._not_allowed(exc) from exc
        except psycopg.Error as exc:
            raise ServiceUnavailableError(f"{self._name} cannot be read or written: {_first_line(exc)}") from exc

    @property
    def _name(self) -> str:
        return self.url.render_as_string()

    def _not_allowed(self, cause: Exception) -> CaptureError:
        """Return the error for missing rights; what the catalogs show, everybody may read."""
        way_out = ""
        with psycopg.connect(libpq_url(self.url), autocommit=True, client_encoding="utf-8") as connection:
            way_out = _script(_wanted_of_administrator(connection, _inspect(connection, may_read=False)))
        return CaptureError(
            f"rights are missing on {self._name}: {_first_line(cause)}. Let an administrator run, in one"
            f" transaction:\n{way_out}"
        )

    def _settle(
        self,
        connection: psycopg.Connection[Any],
        *,
        run_ddl: bool,
        renew: bool = False,
        is_patient: bool = False,
    ) -> CaptureState:
        """Bring database and record in line and return the state of the same transaction."""
        found = _inspect(connection)
        if found.is_recorded and not renew:
            return found.state()
        give_up = time.monotonic() + (INSTALL_SECONDS if is_patient else REFRESH_SECONDS)
        while True:
            try:
                with connection.transaction():
                    _lock(connection)
                    found = _inspect(connection)
                    if found.is_recorded and not renew:
                        return found.state()
                    return self._repair(connection, found, run_ddl=run_ddl, renew=renew, skip_busy=not is_patient)
            except (errors.LockNotAvailable, errors.DeadlockDetected) as exc:
                if time.monotonic() > give_up:
                    raise _busy(connection, found, exc) from exc
                time.sleep(0.05)

    def _repair(
        self, connection: psycopg.Connection[Any], found: _Findings, *, run_ddl: bool, renew: bool, skip_busy: bool
    ) -> CaptureState:
        doubt = "it was asked for" if renew else found.doubt
        if run_ddl:
            _run_all(connection, found, skip_busy=skip_busy)
        elif found.base:
            self._refuse_missing(connection, found)
        if found.is_elsewhere:
            _forget_transactions(connection)
        epoch = found.record.epoch
        if doubt is not None:
            epoch = self._ids.new_id()
            _log.info("a new epoch of %s: %s", self._name, doubt)
        now = replace(_inspect(connection), record=replace(found.record, epoch=epoch))
        for table in now.suspects:
            connection.execute(f"INSERT INTO {SCHEMA}.outbox(tbl, op) VALUES (%s, 'B')", [table])
        _write_record(connection, now.now)
        return now.state()

    def _refuse_missing(self, connection: psycopg.Connection[Any], found: _Findings) -> None:
        if found.statements:
            raise CaptureError(
                f"capture is not in place on {self._name}. Run `reactive-rpc db install`, or let an administrator"
                f" run, in one transaction:\n{_script(_wanted_of_administrator(connection, found))}"
            )

    def _warn_of_uncaptured(self, state: CaptureState) -> None:
        for table in state.tables.values():
            if not table.captured:
                _log.warning(
                    "table %r is not captured, so nothing that reads it is cached: %s", table.name, table.reason
                )


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


def _refuse_unfit(connection: psycopg.Connection[Any]) -> None:
    if connection.info.server_version < MINIMUM_VERSION:
        raise CaptureError(f"PostgreSQL {connection.info.server_version // 10000} is too old: 14 or newer is needed")
    row = connection.execute("SELECT pg_is_in_recovery()").fetchone()
    if row is None or row[0]:
        raise ServiceUnavailableError("the database is a standby, which cannot be written: give the primary's URL")


def _limit_locks(connection: psycopg.Connection[Any], seconds: float) -> None:
    connection.execute("SELECT set_config('lock_timeout', %s, true)", [f"{int(seconds * 1000)}ms"])


def _lock(connection: psycopg.Connection[Any]) -> None:
    """Wait for other installers, then limit the waits for tables; both end with the transaction."""
    _limit_locks(connection, INSTALL_SECONDS)
    connection.execute("SELECT pg_advisory_xact_lock(%s)", [ADVISORY_LOCK])
    _limit_locks(connection, LOCK_MILLISECONDS / 1000)


def _run(connection: psycopg.Connection[Any], statement: str) -> None:
    connection.execute(statement.encode())


def _run_all(connection: psycopg.Connection[Any], found: _Findings, *, skip_busy: bool) -> None:
    """Run the DDL that is missing; with `skip_busy`, leave out the relations that somebody holds."""
    for statement in found.base:
        _run(connection, statement)
    give_up = time.monotonic() + REFRESH_SECONDS
    for group in found.changes:
        if skip_busy and time.monotonic() > give_up:
            return
        try:
            with connection.transaction():
                for statement in group:
                    _run(connection, statement)
        except (errors.LockNotAvailable, errors.InsufficientPrivilege) as exc:
            if not skip_busy:
                raise
            _log.warning("left as it was: %s: %s", group[-1], _first_line(exc))


def _busy(connection: psycopg.Connection[Any], found: _Findings, cause: Exception) -> CaptureError:
    relations = [triggers.relation.oid for group in found.expected.values() for triggers in group]
    holders = "; ".join(
        f"{relation} by process {pid} ({state}, for {age})"
        for relation, pid, state, age in connection.execute(_BLOCKERS, [relations])
    )
    return CaptureError(
        f"triggers could not be installed within {INSTALL_SECONDS:.0f} s, because tables stay locked:"
        f" {holders or _first_line(cause)}. End those transactions, or install while nobody writes"
    )


def _inspect(connection: psycopg.Connection[Any], *, may_read: bool = True) -> _Findings:
    """Return what stands, of one moment of the catalogs.

    Args:
        may_read: whether our tables may be read.
    """
    while True:
        before = _fingerprint(connection)
        found = _look(connection, before, may_read=may_read)
        if _fingerprint(connection) == before:
            return found


def _fingerprint(connection: psycopg.Connection[Any]) -> str:
    row = connection.execute(f"SELECT {FINGERPRINT}").fetchone()
    return "" if row is None else str(row[0])


def _look(connection: psycopg.Connection[Any], fingerprint: str, *, may_read: bool) -> _Findings:
    catalog = read_catalog(connection, read_insecure(connection, _PURE))
    captured = {table.name: table for table in catalog.tables if table.capture.captured}
    ours = {name: oid for name, oid in connection.execute(_OURS) if name in BASE}
    triggers: dict[int, dict[str, _Trigger]] = {}
    relations = {}
    for oid, name, version, function, kind, enabled, old, new, is_plain, schema, relation in connection.execute(
        _TRIGGERS
    ):
        signature = (function, kind, enabled, old, new) if is_plain else ()
        triggers.setdefault(oid, {})[name] = (version, signature)
        relations[oid] = quoted(schema, relation)
    server = connection.execute(_SERVER).fetchone()
    return _Findings(
        record=_read_record(connection) if may_read and "meta" in ours else _no_record(),
        mark=fingerprint,
        catalog=catalog,
        views=read_views(connection, catalog, _PURE),
        expected={name: triggers_of(table, captured) for name, table in captured.items()},
        functions={
            name: (version, body, is_definer and tuple(settings) == FUNCTION_SETTINGS)
            for name, body, is_definer, settings, version in connection.execute(_FUNCTIONS)
        },
        triggers=triggers,
        relations=relations,
        ours=ours,
        server=("", "") if server is None else (server[0], server[1]),
        types=dict(connection.execute(_TYPES).fetchall()),
        redefined=read_redefined(connection),
    )


def _digest(table: Table) -> str:
    """Return what an epoch rests on of a table.

    Without its foreign keys, which are the children's affair, and its unique columns: more of them do no harm.
    """
    capture = replace(table.capture, unique=frozenset(), foreign_keys=(), key_columns=())
    shape = (capture, table.columns, table.ancestors, table.descendants, table.facts)
    return hashlib.sha256(repr(shape).encode()).hexdigest()[:32]


def _no_record() -> _Record:
    return _Record(server=["", "", ""], tables={}, types={}, names={})


def _read_record(connection: psycopg.Connection[Any]) -> _Record:
    values = dict(connection.execute(f"SELECT key, value FROM {SCHEMA}.meta").fetchall())
    if "epoch" not in values or "record" not in values:
        return _no_record()
    record = json.loads(values["record"])
    tables = {name: (digest, unique, relations) for name, (digest, unique, relations) in record["tables"].items()}
    return _Record(
        epoch=values["epoch"],
        server=record["server"],
        tables=tables,
        types=record["types"],
        names=record["names"],
        redefined=record.get("redefined", []),
    )


def _write_record(connection: psycopg.Connection[Any], record: _Record) -> None:
    fields = ("server", "tables", "types", "names", "redefined")
    text = json.dumps({name: getattr(record, name) for name in fields})
    for key, value in (("epoch", record.epoch), ("record", text)):
        connection.execute(
            f"INSERT INTO {SCHEMA}.meta(key, value) VALUES (%s, %s)"
            " ON CONFLICT (key) DO UPDATE SET value = excluded.value",
            [key, value],
        )
    connection.execute(f"INSERT INTO {SCHEMA}.meta(key, value) VALUES ('floor', '0') ON CONFLICT (key) DO NOTHING")


def _forget_transactions(connection: psycopg.Connection[Any]) -> None:
    """Empty what speaks of another server's transactions, and put the floor where this one's begin."""
    for table in ("outbox", "horizon"):
        connection.execute(f"DELETE FROM {SCHEMA}.{table}")
    connection.execute(
        f"UPDATE {SCHEMA}.meta SET value = pg_snapshot_xmin(pg_current_snapshot())::text WHERE key = 'floor'"
    )


def _raise_floor(connection: psycopg.Connection[Any], older_than_seconds: float) -> str | None:
    """Note who is under way, raise the floor to the newest note that is old enough, and return it; None without one."""
    with connection.transaction():
        connection.execute(
            f"INSERT INTO {SCHEMA}.horizon(at, xid) VALUES (clock_timestamp(), pg_snapshot_xmin(pg_current_snapshot()))"
        )
        newest = connection.execute(_NEWEST_HORIZON, [older_than_seconds]).fetchone()
        if newest is None:
            return None
        floor, at = newest
        connection.execute(
            f"UPDATE {SCHEMA}.meta SET value = %s WHERE key = 'floor' AND value::xid8 < %s::xid8", [floor, floor]
        )
        connection.execute(f"DELETE FROM {SCHEMA}.horizon WHERE at < %s", [at])
        return str(floor)


def _wanted_of_administrator(connection: psycopg.Connection[Any], found: _Findings) -> list[str]:
    """Return the DDL that is missing, and the rights of the current role where others will own our schema."""
    row = connection.execute(_IS_OWNER).fetchone()
    role, is_owner = row if row is not None else ("", False)
    if is_owner and not _lacks_table(connection, found):
        return found.statements
    return [*found.statements, *([] if _has_grants(connection) else _grants(quoted(role)))]


def _has_grants(connection: psycopg.Connection[Any]) -> bool:
    """Tell whether the current role may do what `_grants` allows; not while anything of ours is missing."""
    row = connection.execute(_HAS_GRANTS).fetchone()
    return row is not None and bool(row[0])


def _lacks_table(connection: psycopg.Connection[Any], found: _Findings) -> bool:
    """Tell whether triggers are missing on a relation that the current role does not own."""
    oids = [triggers.relation.oid for group in found.expected.values() for triggers in group]
    row = connection.execute(
        "SELECT coalesce(bool_or(NOT pg_has_role(relowner, 'USAGE')), false) FROM pg_class WHERE oid = ANY(%s::oid[])",
        [oids],
    ).fetchone()
    return row is not None and bool(row[0]) and bool(found.statements)


def _grants(role: str) -> list[str]:
    return [
        f"GRANT USAGE ON SCHEMA {SCHEMA} TO {role}",
        f"GRANT SELECT, INSERT, DELETE ON {SCHEMA}.outbox, {SCHEMA}.horizon TO {role}",
        f"GRANT SELECT, INSERT, UPDATE ON {SCHEMA}.meta TO {role}",
        f"GRANT EXECUTE ON FUNCTION {SCHEMA}.announce(text, jsonb) TO {role}",
    ]


def _script(statements: Sequence[str]) -> str:
    return "\n".join(f"{statement};" for statement in statements)
