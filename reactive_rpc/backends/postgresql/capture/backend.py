"""Capture on PostgreSQL: install, verify, prune.

`findings.py` compares the database with the DDL that should stand and with the record (`record.py`); `installation.py`
runs the DDL that is missing, or prints it for an administrator. Capture reads everything without a lock first, and
again under an advisory lock if anything is to be done. `install` begins again until its time is up; `refresh`, which
answers wait for, leaves a busy table uncaptured.

`docs/internals/capture-postgresql.md` argues why no write goes unseen, and names the limits.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final, LiteralString

import psycopg
from psycopg import errors

from reactive_rpc.backends.postgresql.capture.findings import Findings, inspect
from reactive_rpc.backends.postgresql.capture.images import PostgreSQLOutboxRow, decode
from reactive_rpc.backends.postgresql.capture.installation import (
    busy,
    first_line,
    limit_locks,
    lock,
    run,
    run_missing,
    script,
    wanted_of_administrator,
)
from reactive_rpc.backends.postgresql.capture.record import forget_transactions, note_reads, prune, write_record
from reactive_rpc.backends.postgresql.capture.tables import CATALOG_ONLY, SCHEMA
from reactive_rpc.backends.postgresql.connection import ONLY_TABLES
from reactive_rpc.backends.postgresql.url import Place, dsn_of, place_name
from reactive_rpc.changes.captured_schema import CaptureState
from reactive_rpc.changes.image_policy import EVERY_TABLE, READ_TABLES, ImagePolicy
from reactive_rpc.clock import IdSource
from reactive_rpc.errors import CaptureError, ServiceUnavailableError

__all__ = ["PostgreSQLCapture"]

MINIMUM_VERSION: Final = 140000
INSTALL_SECONDS: Final = 30.0
REFRESH_SECONDS: Final = 2.0
CONNECT_SECONDS: Final = 5
SHARED_SESSION_ATTEMPTS: Final = 5
_PROCESS: Final[LiteralString] = "SELECT pg_backend_pid()"

_log = logging.getLogger(__name__)

_SETTINGS: Final = """
SET default_transaction_read_only = off; SET statement_timeout = 0; SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0
"""
"""A role's or database's own settings must not keep capture from its work, which bounds its own waits."""


class PostgreSQLCapture:
    """Capture of one PostgreSQL database. Every call opens a connection of its own and closes it; safe in any thread.

    Args:
        url: SQLAlchemy's, whatever the driver.
        ids: names new epochs.
        manage: False if an administrator owns the schema: no DDL is run, and `install` is `verify`.
        policy: which values images hold; None takes the recorded one.
    """

    def __init__(
        self, url: Place, *, ids: IdSource, manage: bool = True, policy: ImagePolicy | None = EVERY_TABLE
    ) -> None:
        self.url = url
        self.policy = policy
        self.manage = manage
        self._ids = ids
        self._has_own_session = False

    @property
    def guarantee(self) -> str:
        """Whose writes are seen."""
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
            state = self._reconcile(connection, self.policy, run_ddl=True, is_patient=True)
        self._warn_of_uncaptured(state)
        return state

    def verify(self) -> CaptureState:
        """Check that everything is in place, run no DDL, and return the state.

        Raises:
            CaptureError: something is missing; the message holds the SQL to run.
            ServiceUnavailableError: the database cannot be reached, or is a standby.
        """
        with self._connected() as connection:
            found = inspect(connection, self.policy)
            self._refuse_missing(connection, found)
            return self._reconcile(connection, self.policy, run_ddl=False)

    def refresh(self, *, renew: bool = False, at_least: int = 0) -> CaptureState:
        """Verify again after a schema change. Repair it if `manage` is on; else count incomplete tables as uncaptured.

        Args:
            renew: begin a new epoch whatever is found.
            at_least: has no effect: versions are counted by the server's transaction ids, which nobody can move. If
                they have gone back, only the new epoch keeps versions apart.

        Raises:
            CaptureError: the outbox is gone and cannot be put back.
            ServiceUnavailableError: the database cannot be reached, or is a standby.
        """
        with self._connected() as connection:
            state = self._reconcile(connection, None, run_ddl=self.manage, renew=renew)
        self._warn_of_uncaptured(state)
        return state

    def uninstall(self) -> None:
        """Drop the triggers and the schema `reactive_rpc`; idempotent.

        Raises:
            CaptureError: `manage` is off, or rights are missing; the message holds the SQL to run.
            ServiceUnavailableError: the database cannot be reached, or a table stays locked.
        """
        with self._connected() as connection:
            drops = [statement for group in inspect(connection, may_read=False).all_drops for statement in group]
            if not self.manage:
                raise CaptureError("an administrator must run:", statements=drops)
            with connection.transaction():
                limit_locks(connection, INSTALL_SECONDS)
                for statement in drops:
                    run(connection, statement)

    def script(self) -> str:
        """Return the SQL that `install` would run now, and grants to the current role; empty if all is in place.

        Raises:
            CaptureError: there is no SQL that would put it in place.
            ServiceUnavailableError: the database cannot be reached, or is a standby.
        """
        try:
            with self._connected() as connection:
                return script(wanted_of_administrator(connection, inspect(connection, self.policy)))
        except CaptureError as exc:  # the role may not look at what others have installed
            if not exc.statements:
                raise
            return script(exc.statements)

    def noted_reads(self) -> frozenset[str]:
        """Return the tables whose values triggers copy now.

        Raises:
            ServiceUnavailableError: the database cannot be reached.
        """
        with self._connected() as connection:
            return frozenset(name for (name,) in connection.execute(f"SELECT tbl FROM {SCHEMA}.reads"))

    def prune(self, older_than_seconds: float) -> int:
        """Delete the rows that everybody could read for `older_than_seconds`, and return how many.

        Raises:
            ServiceUnavailableError: the database cannot be reached; rows deleted so far stay deleted.
        """
        with self._connected() as connection:
            return prune(connection, older_than_seconds)

    def note_reads(self, tables: Collection[str]) -> None:
        """Have triggers copy the values of these tables from now on, for as long as somebody repeats this.

        Raises:
            ServiceUnavailableError: the database cannot be reached.
        """
        with self._connected() as connection:
            note_reads(connection, tables)

    def decode(self, row: PostgreSQLOutboxRow, state: CaptureState) -> tuple[Any, ...]:
        """Return the changes that a row of the outbox records, see `images.decode`."""
        return decode(row, state)

    @contextmanager
    def _connected(self) -> Iterator[psycopg.Connection[Any]]:
        try:
            with psycopg.connect(
                dsn_of(self.url),
                autocommit=True,
                prepare_threshold=None,
                connect_timeout=CONNECT_SECONDS,
                application_name="reactive_rpc capture",
                client_encoding="utf-8",
            ) as connection:
                _refuse_unfit(connection)
                if not self._has_own_session:
                    self._refuse_shared_session(connection)
                run(connection, _SETTINGS)
                connection.execute(CATALOG_ONLY)
                connection.execute(ONLY_TABLES)
                yield connection
        except errors.InsufficientPrivilege as exc:
            raise self._not_allowed(exc) from exc
        except psycopg.Error as exc:
            raise ServiceUnavailableError(f"{self._name} cannot be read or written: {first_line(exc)}") from exc

    def _refuse_shared_session(self, connection: psycopg.Connection[Any]) -> None:
        """Let only a connection pass that has a server process to itself, since its settings and locks belong to that.

        A pooler in transaction mode hands the process that was used last to whoever asks next.

        Raises:
            CaptureError: another connection has met the same process.
        """
        with psycopg.connect(dsn_of(self.url), autocommit=True, prepare_threshold=None) as other:
            for _ in range(SHARED_SESSION_ATTEMPTS):
                if connection.execute(_PROCESS).fetchone() == other.execute(_PROCESS).fetchone():
                    raise CaptureError(
                        f"{self._name} leads through a connection pooler in transaction mode: two connections share a "
                        "process of the server. Handlers may use it; capture, the log and its locks need a session of "
                        "their own: give the database's own address as ReactiveRPC(log_url=...), or as "
                        "REACTIVE_RPC_LOG_URL (docs/how-to/pgbouncer.md)"
                    )
        self._has_own_session = True

    @property
    def _name(self) -> str:
        return place_name(self.url)

    def _not_allowed(self, cause: Exception) -> CaptureError:
        """Return the error for missing rights; its SQL is found by the catalogs alone, which everybody may read."""
        with psycopg.connect(dsn_of(self.url), autocommit=True, client_encoding="utf-8") as connection:
            connection.execute(CATALOG_ONLY)
            statements = wanted_of_administrator(connection, inspect(connection, self.policy, may_read=False))
        return CaptureError(
            f"rights are missing on {self._name}: {first_line(cause)}. Let an administrator run, in one transaction:",
            statements=statements,
        )

    def _reconcile(
        self,
        connection: psycopg.Connection[Any],
        policy: ImagePolicy | None,
        *,
        run_ddl: bool,
        renew: bool = False,
        is_patient: bool = False,
    ) -> CaptureState:
        """Bring database and record in line and return the state of the same transaction.

        Args:
            policy: to be imposed; None is the recorded one. If that is gone with our schema, it is this process's own:
                values that this leaves out must not be copied meanwhile.
        """
        fallback = self.policy or READ_TABLES
        found = inspect(connection, policy, fallback=fallback)
        if found.is_recorded and not renew:
            return found.state()
        seconds = INSTALL_SECONDS if is_patient else REFRESH_SECONDS
        give_up = time.monotonic() + seconds
        while True:
            try:
                with connection.transaction():
                    lock(connection, INSTALL_SECONDS)
                    found = inspect(connection, policy, fallback=fallback)
                    if found.is_recorded and not renew:
                        return found.state()
                    return self._repair(connection, found, run_ddl=run_ddl, renew=renew, is_patient=is_patient)
            except (errors.LockNotAvailable, errors.DeadlockDetected) as exc:
                if time.monotonic() > give_up:
                    raise busy(connection, found, exc, seconds) from exc
                time.sleep(0.05)

    def _repair(
        self, connection: psycopg.Connection[Any], found: Findings, *, run_ddl: bool, renew: bool, is_patient: bool
    ) -> CaptureState:
        reason = "it was asked for" if renew else found.invalidation_reason
        if run_ddl:
            run_missing(connection, found, within_seconds=None if is_patient else REFRESH_SECONDS)
        elif found.base:
            self._refuse_missing(connection, found)
        if found.is_elsewhere:
            forget_transactions(connection)
        epoch = found.record.epoch
        if reason is not None:
            epoch = self._ids.new_id()
            _log.info("a new epoch of %s: %s", self._name, reason)
        now = replace(inspect(connection, found.policy), record=replace(found.record, epoch=epoch))
        for table in now.suspects:
            connection.execute(f"INSERT INTO {SCHEMA}.outbox(tbl, op) VALUES (%s, 'B')", [table])
        write_record(connection, now.now)
        return now.state()

    def _refuse_missing(self, connection: psycopg.Connection[Any], found: Findings) -> None:
        if found.statements:
            raise CaptureError(
                f"capture is not in place on {self._name}. Run `reactive-rpc db install --rpc main:rpc`, or let an"
                " administrator run, in one transaction:",
                statements=wanted_of_administrator(connection, found),
            )

    def _warn_of_uncaptured(self, state: CaptureState) -> None:
        for table in state.tables.values():
            if not table.captured:
                _log.warning(
                    "table %r is not captured, so nothing that reads it is cached: %s", table.name, table.reason
                )


def _refuse_unfit(connection: psycopg.Connection[Any]) -> None:
    if connection.info.server_version < MINIMUM_VERSION:
        raise CaptureError(f"PostgreSQL {connection.info.server_version // 10000} is too old: 14 or newer is needed")
    row = connection.execute("SELECT pg_is_in_recovery()").fetchone()
    if row is None or row[0]:
        raise ServiceUnavailableError("the database is a standby, which cannot be written: give the primary's URL")
