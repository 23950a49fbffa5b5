"""The role that owns our functions, and the roles whose tables and schemas we trust.

Our functions run with the rights of `reactive_rpc_capture`, which may insert into the outbox, read which tables are
read, and do nothing else; or with those of an ordinary role that owns all captured tables itself. *Strangers* are roles
that could run code of theirs with our rights: nothing of theirs is accepted in our schema, and the log does not look
into their tables.

`docs/internals/capture-postgresql.md` argues why ("Whose code runs").
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from typing import Any, Final, LiteralString

import psycopg

from reactive_rpc.backends.postgresql.capture.names import quoted
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
# The database's owner owns whatever `pg_database_owner` does, the schema public for one.
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
        missing: the DDL that makes it and lets it do its work; empty if nothing of that is missing.
        opening: the DDL that must precede giving it a function.
        closing: the DDL that must follow.
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
    """Refuse to work with a schema of ours in which a stranger owns something.

    Raises:
        CaptureError: it is a stranger's; the message names them.
    """
    strangers = [name for (name,) in connection.execute(_STRANGERS.format(_OURS))]
    if strangers:
        current = quoted(connection.info.user)
        trust = "; ".join(f"GRANT {current} TO {quoted(name)}" for name in strangers)
        raise CaptureError(
            f"the schema {_SCHEMA}, or something in it, belongs to {', '.join(strangers)}, whose triggers and defaults"
            f" would run with this connection's rights: connect as that role, or say that it may do all that {current}"
            f" may: {trust}. If it should not have made them, let an administrator run DROP SCHEMA {_SCHEMA} CASCADE"
            " and start again"
        )


def owned_by(owner: str, function: str) -> list[str]:
    """Return the DDL after which `function` belongs to `owner` and nobody else may use it."""
    # INVARIANT (nobody but its owner may execute it): whoever may not execute a trigger function cannot put it on a
    # table of their own making, and so cannot write the outbox by it.
    statements = [f"REVOKE ALL ON FUNCTION {function} FROM PUBLIC"]
    return [*statements, f"ALTER FUNCTION {function} OWNER TO {ROLE}"] if owner == ROLE else statements
