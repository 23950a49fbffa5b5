"""What a database's users have given another meaning on PostgreSQL: functions, operators, casts.

**Which operator `=` is**, PostgreSQL decides by the types on both sides. An operator of a user's is taken where it fits
them exactly and no built-in one before it in the search path does (`varchar = varchar` and `mood = text` have none), or
where an implicit cast of theirs leads to it. So a column can be compared by its image alone if no such operator or cast
has anything to do with its type; of a *doubtful* type no column has a kind, and no condition rests on it.

- A comparison with an operand of a built-in type, a domain or an enum makes that type doubtful. One of a pseudo-type
  (`anyelement`) makes all.
- An implicit cast with a function, from or to an enum, makes the enum doubtful: what is compared is what the function
  makes of it. Casts by text (INOUT) keep the label. Explicit ones are written down in the statement.
- An implicit cast from a type to one of the user's own that has comparisons makes the first doubtful.
- Casts from and to domains are never used. Default operator classes decide what GROUP BY and unique indexes call equal:
  a unique index of a class that is not built in proves nothing.

An extension's functions, operators and casts are for its own types, and do as the built-in ones do.

**What a function of theirs reads**, its arguments apart, nobody knows. A statement that calls one by a name that is
built in, or that compares built-in types by an operator of theirs, is not cached (`CaptureState.redefined`).
"""

from __future__ import annotations

from typing import Any, Final, LiteralString

import psycopg

from reactive_rpc.statements.functions import date_functions, looked_at_functions, pure_functions

__all__ = ["read_doubtful_types", "read_redefined"]

_NOT_OF_AN_EXTENSION: Final[LiteralString] = """NOT EXISTS (
  SELECT FROM pg_depend d WHERE d.classid = '{}'::regclass AND d.objid = {}.oid AND d.deptype = 'e')"""
_COMPARES: Final[LiteralString] = "o.oprname IN ('=', '<>', '<', '>', '<=', '>=')"

_REDEFINED: Final[LiteralString] = f"""
SELECT p.proname::text FROM pg_proc p WHERE p.oid >= 16384 AND p.proname = ANY(%s)
  AND {_NOT_OF_AN_EXTENSION.format("pg_proc", "p")}
UNION
SELECT o.oprname::text FROM pg_operator o WHERE o.oid >= 16384
  AND {_NOT_OF_AN_EXTENSION.format("pg_operator", "o")}
UNION
SELECT 'operator ' || o.oprname FROM pg_operator o WHERE o.oid >= 16384 AND o.oprleft < 16384 AND o.oprright < 16384
  AND {_NOT_OF_AN_EXTENSION.format("pg_operator", "o")}
ORDER BY 1
"""
# Of two types the greater interest is in those that are not the user's own; `''` stands for every type.
_DOUBTFUL: Final[LiteralString] = f"""
WITH comparisons AS (
  SELECT o.oprleft, o.oprright FROM pg_operator o WHERE o.oid >= 16384 AND {_COMPARES}
    AND {_NOT_OF_AN_EXTENSION.format("pg_operator", "o")}),
 operands AS (SELECT oprleft AS type FROM comparisons UNION SELECT oprright FROM comparisons),
 casts AS (
  SELECT x.castsource, x.casttarget, x.castmethod FROM pg_cast x WHERE x.oid >= 16384 AND x.castcontext = 'i'
    AND {_NOT_OF_AN_EXTENSION.format("pg_cast", "x")})
SELECT CASE WHEN t.typtype = 'p' THEN 0 ELSE t.oid END::bigint FROM operands JOIN pg_type t ON t.oid = operands.type
UNION
SELECT castsource::bigint FROM casts JOIN operands ON operands.type = castsource OR operands.type = casttarget
UNION
SELECT t.oid::bigint FROM casts JOIN pg_type t ON t.oid IN (castsource, casttarget)
WHERE castmethod <> 'i' AND t.typtype = 'e'
"""
_EVERY_TYPE: Final[LiteralString] = "SELECT oid::bigint FROM pg_type"


def read_redefined(connection: psycopg.Connection[Any]) -> frozenset[str]:
    """Return the functions that are pure on PostgreSQL and also somebody's own, and the operators that are.

    An operator on built-in types alone stands there as `operator =`, too.
    """
    names = sorted(
        pure_functions("postgresql") | looked_at_functions("postgresql") | date_functions("postgresql").keys()
    )
    return frozenset(name for (name,) in connection.execute(_REDEFINED, [names]))


def read_doubtful_types(connection: psycopg.Connection[Any]) -> frozenset[int]:
    """Return the oids of the types whose columns may be compared otherwise than by PostgreSQL's own operators."""
    found = frozenset(oid for (oid,) in connection.execute(_DOUBTFUL))
    if 0 not in found:
        return found
    return frozenset(oid for (oid,) in connection.execute(_EVERY_TYPE))
