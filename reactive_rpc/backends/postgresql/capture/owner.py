"""Who owns our functions: with whose rights the triggers write the outbox.

**A role of their own.** Whoever installed them (a superuser, more often than not), our functions belong to the role
`reactive_rpc_capture`, which cannot log in, is a member of nothing, and may insert into the outbox, read what the
triggers look up, and nothing else. Should anything of somebody else's ever run in them, that is all it can do: claim
that something changed. It could hide no change and read none.

**Without CREATEROLE** an ordinary role that owns all its tables, as most applications' do, owns the functions itself:
what the owner of a table defines then runs as its owner, which it does anyway. Where the tables are several roles', or
the installer is one that may do more, the role must be made, by an administrator if need be; the refusal prints the
SQL.

**Who may use them.** EXECUTE is taken from everybody. A trigger function cannot be called, and who may not execute it
cannot put it on a table of their own making. `announce` may be called by whom it is granted to.

**Whom we trust.** What stands in our schema is read and written by whoever starts the server. So it must belong to that
role, to one that may become it, or to a superuser; unless a superuser starts it, to a role that makes roles; and where
an ordinary role starts it, to the database's owner, or to a role that it is a member of. Else whoever may create a
schema could lay out tables with triggers of theirs and wait. All others are *strangers*.

**A stranger's table is not looked into**, not even by a SELECT of built-in types: the planner folds the constants of
its index expressions, index predicates and extended statistics, and thereby calls the functions in them, as whoever
runs the statement. No lock that a reader may take keeps an owner from adding one. An ordinary role may look into a
stranger's tables if all tables are that stranger's: whoever acts as it there sees nothing but their own.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from typing import Any, Final, LiteralString

import psycopg

from reactive_rpc.errors import CaptureError

__all__ = ["ROLE", "Owner", "owned_by", "read_owner", "read_strangers", "refuse_strangers"]

ROLE: Final[LiteralString] = "reactive_rpc_capture"
_SCHEMA: Final[LiteralString] = "reactive_rpc"

_ROLE: Final[LiteralString] = f"""
SELECT r.rolcanlogin OR r.rolsuper OR r.rolcreaterole OR r.rolcreatedb OR r.rolreplication OR r.rolbypassrls,
  EXISTS (SELECT FROM pg_auth_members m WHERE m.member = r.oid), pg_has_role(r.oid, 'USAGE')
FROM pg_roles r WHERE r.rolname = '{ROLE}'
"""
_CURRENT: Final[LiteralString] = (
    "SELECT rolname::text, rolsuper OR rolcreaterole FROM pg_roles WHERE rolname = current_user"
)
_GRANTED: Final[LiteralString] = f"""
SELECT has_schema_privilege('{ROLE}', n.oid, 'USAGE') AND has_column_privilege('{ROLE}', c.oid, 'rows', 'INSERT')
  AND has_table_privilege('{ROLE}', r.oid, 'SELECT')
FROM pg_namespace n JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = 'outbox'
JOIN pg_class r ON r.relnamespace = n.oid AND r.relname = 'reads' WHERE n.nspname = '{_SCHEMA}'
"""
_IS_MIGHTY: Final[LiteralString] = "(r.rolsuper OR r.rolcreaterole OR r.rolreplication OR r.rolbypassrls)"
# Of what `pg_database_owner` owns, the schema public for one, the database's owner is the owner.
_STRANGERS: Final[LiteralString] = f"""
SELECT DISTINCT o.rolname::text
FROM ({{}}) AS owners(owner)
JOIN pg_roles o ON o.oid = owners.owner
JOIN pg_database d ON d.datname = current_database()
JOIN pg_roles e ON e.oid = CASE WHEN o.rolname = 'pg_database_owner' THEN d.datdba ELSE o.oid END
JOIN pg_roles r ON r.rolname = current_user
WHERE NOT e.rolsuper AND NOT pg_has_role(e.oid, r.oid, 'MEMBER')
  AND (r.rolsuper OR NOT e.rolcreaterole)
  AND ({_IS_MIGHTY} OR NOT (e.oid = d.datdba OR pg_has_role(e.oid, 'USAGE')))
ORDER BY 1
"""
_OURS: Final[LiteralString] = f"""SELECT nspowner FROM pg_namespace WHERE nspname = '{_SCHEMA}'
  UNION SELECT relowner FROM pg_class WHERE relnamespace = to_regnamespace('{_SCHEMA}')"""
_TABLES: Final[LiteralString] = f"""
SELECT c.relowner, n.nspowner FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'f', 'm') AND c.relpersistence <> 't'
  AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', '{_SCHEMA}')"""
_OF_TABLES: Final[LiteralString] = f"SELECT relowner FROM ({_TABLES}) AS t UNION SELECT nspowner FROM ({_TABLES}) AS t"
_ONLY_OWNER: Final[LiteralString] = f"""
SELECT min(o.rolname::text) FROM ({_TABLES}) AS t JOIN pg_roles o ON o.oid = t.relowner
JOIN pg_roles r ON r.rolname = current_user WHERE NOT {_IS_MIGHTY} HAVING count(DISTINCT o.oid) = 1
"""

_MAKE: Final = f"""DO /* CREATE ROLE {ROLE} (where it is missing) */ $role$ BEGIN
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{ROLE}') THEN
    BEGIN
      CREATE ROLE {ROLE} NOLOGIN;
    EXCEPTION WHEN duplicate_object OR unique_violation THEN
      NULL;
    END;
  END IF;
  IF NOT pg_has_role('{ROLE}', 'USAGE') THEN
    GRANT {ROLE} TO CURRENT_USER;
  END IF;
END $role$"""
_TOO_MIGHTY: Final = (
    f"the role {ROLE}, as which the triggers run, may log in, is a member of another role or may do more than it"
    " should: let an administrator run"
    f" ALTER ROLE {ROLE} NOLOGIN NOSUPERUSER NOCREATEROLE NOCREATEDB NOREPLICATION NOBYPASSRLS"
    " and REVOKE what was granted to it, or drop the role"
)
_GRANT: Final = (
    f"GRANT USAGE ON SCHEMA {_SCHEMA} TO {ROLE}",
    f"GRANT INSERT (tbl, op, rows) ON {_SCHEMA}.outbox TO {ROLE}",
    f"GRANT SELECT ON {_SCHEMA}.reads TO {ROLE}",
)


@dataclass(frozen=True, slots=True)
class Owner:
    """Who is to own our functions.

    Attributes:
        name: the role.
        missing: the DDL that makes it and lets it do its work; empty where it stands.
        opening: what must precede giving it a function.
        closing: what must follow.
        is_beyond: whether the current role can neither make it nor give it anything.
    """

    name: str
    missing: tuple[str, ...] = ()
    opening: tuple[str, ...] = ()
    closing: tuple[str, ...] = ()
    is_beyond: bool = False


def read_owner(connection: psycopg.Connection[Any], table_owners: Set[str], *, has_outbox: bool) -> Owner:
    """Return who is to own our functions, if the current role were to install them.

    Args:
        table_owners: of all relations that get triggers.
        has_outbox: whether our tables stand.

    Raises:
        CaptureError: somebody has made the role, or granted it something, so that it may do more than it should.
    """
    current, is_mighty = connection.execute(_CURRENT).fetchone() or ("", False)
    found = connection.execute(_ROLE).fetchone()
    may_do_more, is_member, is_ours = found or (False, False, False)
    if may_do_more or is_member:
        raise CaptureError(_TOO_MIGHTY)
    if not is_mighty and not is_ours and table_owners <= {current}:
        return Owner(current)
    granted = connection.execute(_GRANTED).fetchone() if found and has_outbox else None
    return Owner(
        ROLE,
        (*([] if found else [_MAKE]), *(() if granted and granted[0] else _GRANT)),
        (*([] if is_ours or not found else [_MAKE]), f"GRANT CREATE ON SCHEMA {_SCHEMA} TO {ROLE}"),
        (f"REVOKE CREATE ON SCHEMA {_SCHEMA} FROM {ROLE}",),
        is_beyond=not is_ours and not is_mighty,
    )


def read_strangers(connection: psycopg.Connection[Any]) -> frozenset[str]:
    """Return the owners of tables and schemas whose tables the current role must not look into."""
    found = frozenset(name for (name,) in connection.execute(_STRANGERS.format(_OF_TABLES)))
    only = connection.execute(_ONLY_OWNER).fetchone()
    return found if only is None else found - {only[0]}


def refuse_strangers(connection: psycopg.Connection[Any]) -> None:
    """Refuse to work with what somebody else has laid out in our schema.

    Raises:
        CaptureError: it is a stranger's; the message names them.
    """
    strangers = ", ".join(name for (name,) in connection.execute(_STRANGERS.format(_OURS)))
    if strangers:
        raise CaptureError(
            f"the schema {_SCHEMA}, or something in it, belongs to {strangers}, whose triggers and defaults would run"
            " with this connection's rights: connect as that role, or, if it should not have made them, let an"
            f" administrator run DROP SCHEMA {_SCHEMA} CASCADE and start again"
        )


def owned_by(owner: str, function: str) -> list[str]:
    """Return the DDL after which `function` belongs to `owner` and nobody else may use it."""
    statements = [f"REVOKE ALL ON FUNCTION {function} FROM PUBLIC"]
    return [*statements, f"ALTER FUNCTION {function} OWNER TO {ROLE}"] if owner == ROLE else statements
