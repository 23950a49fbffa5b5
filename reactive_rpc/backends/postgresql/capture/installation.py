"""Run the DDL that is missing, or print it for an administrator.

An installer waits for other installers at an advisory lock.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Any, Final, LiteralString

import psycopg
from psycopg import errors

from reactive_rpc.backends.postgresql.capture.findings import Findings
from reactive_rpc.backends.postgresql.capture.names import quoted
from reactive_rpc.backends.postgresql.capture.tables import SCHEMA
from reactive_rpc.errors import CaptureError

__all__ = ["busy", "first_line", "limit_locks", "lock", "run", "run_missing", "script", "wanted_of_administrator"]

# INVARIANT (below PostgreSQL's `deadlock_timeout` of one second): our wait for a table ends before PostgreSQL looks for
# a deadlock, so it never cancels a user's statement for us.
LOCK_MILLISECONDS: Final = 400
ADVISORY_LOCK: Final = 0x7265616374697665  # "reactive"

_log = logging.getLogger(__name__)

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
  ('reads', 'SELECT'), ('reads', 'INSERT'), ('reads', 'UPDATE'), ('reads', 'DELETE'),
  ('meta', 'SELECT'), ('meta', 'INSERT'), ('meta', 'UPDATE'),
  ('answers', 'SELECT'), ('answers', 'INSERT'), ('answers', 'UPDATE'), ('answers', 'DELETE'),
  ('ephemeral_store', 'SELECT'), ('ephemeral_store', 'INSERT'), ('ephemeral_store', 'UPDATE'),
  ('ephemeral_store', 'DELETE')) AS needed(relation, kind)
LEFT JOIN pg_class c ON c.relname = relation AND c.relnamespace = to_regnamespace('{SCHEMA}')
"""


def first_line(error: Exception) -> str:
    """Return the first line of an error; the rest quotes the statement."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


def limit_locks(connection: psycopg.Connection[Any], seconds: float) -> None:
    """Limit how long the current transaction waits for a lock."""
    connection.execute("SELECT set_config('lock_timeout', %s, true)", [f"{int(seconds * 1000)}ms"])


def lock(connection: psycopg.Connection[Any], seconds: float) -> None:
    """Wait up to `seconds` for other installers, then limit the waits for tables; both end with the transaction."""
    limit_locks(connection, seconds)
    connection.execute("SELECT pg_advisory_xact_lock(%s)", [ADVISORY_LOCK])
    limit_locks(connection, LOCK_MILLISECONDS / 1000)


def run(connection: psycopg.Connection[Any], statement: str) -> None:
    """Execute a statement that was put together here."""
    connection.execute(statement.encode())


def run_missing(connection: psycopg.Connection[Any], found: Findings, *, within_seconds: float | None) -> None:
    """Run the DDL that is missing.

    Args:
        within_seconds: leave out relations that somebody holds, and those not begun by then; None: raise instead.
    """
    for statement in found.base:
        run(connection, statement)
    give_up = None if within_seconds is None else time.monotonic() + within_seconds
    for group in found.changes:
        if give_up is not None and time.monotonic() > give_up:
            return
        try:
            with connection.transaction():
                for statement in group:
                    run(connection, statement)
        except (errors.LockNotAvailable, errors.InsufficientPrivilege) as exc:
            if give_up is None:
                raise
            _log.warning("left as it was: %s: %s", group[-1], first_line(exc))


def busy(connection: psycopg.Connection[Any], found: Findings, cause: Exception, seconds: float) -> CaptureError:
    """Return the error for tables that stayed locked for `seconds`; it names who holds them."""
    relations = [triggers.relation.oid for group in found.expected.values() for triggers in group]
    holders = "; ".join(
        f"{relation} by process {pid} ({state}, for {age})"
        for relation, pid, state, age in connection.execute(_BLOCKERS, [relations])
    )
    return CaptureError(
        f"triggers could not be installed within {seconds:.0f} s, because tables stay locked:"
        f" {holders or first_line(cause)}. End those transactions, or install while nobody writes"
    )


def wanted_of_administrator(connection: psycopg.Connection[Any], found: Findings) -> list[str]:
    """Return the DDL that is missing, and grants to the current role if others will own our schema."""
    row = connection.execute(_IS_OWNER).fetchone()
    role, is_owner = row if row is not None else ("", False)
    if is_owner and not (found.statements and found.owner.is_beyond) and not _lacks_table(connection, found):
        return found.statements
    return [*found.statements, *([] if _has_grants(connection) else _grants(quoted(role)))]


def _has_grants(connection: psycopg.Connection[Any]) -> bool:
    """Tell whether the current role may do what `_grants` allows; it may not while anything of ours is missing."""
    row = connection.execute(_HAS_GRANTS).fetchone()
    return row is not None and bool(row[0])


def _lacks_table(connection: psycopg.Connection[Any], found: Findings) -> bool:
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
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON {SCHEMA}.answers, {SCHEMA}.ephemeral_store, {SCHEMA}.reads TO {role}",
        f"GRANT EXECUTE ON FUNCTION {SCHEMA}.announce(text, jsonb) TO {role}",
    ]


def script(statements: Sequence[str]) -> str:
    """Return the statements as one text for an administrator."""
    return "\n".join(f"{statement};" for statement in statements)
