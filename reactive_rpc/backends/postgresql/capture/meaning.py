"""Find the functions, operators and casts by which users have given built-in names and types another meaning.

A column can be compared by its image alone only if no operator or cast of a user's can take part in the comparison. A
type for which one can is *doubtful*: its columns have no kind, and no condition rests on them. A statement that calls a
user's function by a built-in one's name, or compares built-in types by a user's operator, is not cached.

`docs/internals/capture-postgresql.md` gives the rules ("Which operator is meant").
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
# A pseudo-type yields the oid 0, which stands for every type.
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
