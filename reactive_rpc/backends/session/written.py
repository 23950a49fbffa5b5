"""Which tables a statement writes, read from its text.

sqlglot reads the text once; the answer is kept with it. A text that it cannot read, and one that may write more than it
names (a procedure, a function that is not known to be pure, DDL), writes everything: None.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import sqlglot
from sqlglot import expressions as exp
from sqlglot.errors import SqlglotError

from reactive_rpc.statements.functions import pure_functions
from reactive_rpc.statements.postgresql_grammar import Grammar

__all__ = ["Written", "written"]

_REMEMBERED: Final = 2_000
"""How many texts are kept; a statement that renders its values anew each time would fill the memory otherwise."""

_DIALECTS: Final[dict[str, Any]] = {"postgresql": Grammar, "mariadb": "mysql", "mssql": "tsql"}
_PLACEHOLDER: Final = re.compile(r"%\(\w+\)s|%s")
_SAVEPOINT: Final = re.compile(r"\s*(?:SAVEPOINT|RELEASE)\b", re.I)
_READABLE: Final = re.compile(r"[\s(]*(?:SELECT|WITH|VALUES|INSERT|UPDATE|DELETE|MERGE|TRUNCATE|SET)\b", re.I)
_WRITES: Final[tuple[type, ...]] = (exp.Insert, exp.Update, exp.Delete, exp.Merge, exp.TruncateTable)
_READS: Final[tuple[type, ...]] = (exp.Query, exp.Values, exp.Set)


@dataclass(frozen=True, slots=True)
class Written:
    """The tables and columns that a statement writes.

    Attributes:
        tables: as the statement names them, with the schema if it names one; none for a statement that only reads.
        sets: of one plain UPDATE the columns that it sets; None for any other statement.
    """

    tables: frozenset[str]
    sets: frozenset[str] | None = None


@lru_cache(_REMEMBERED)
def written(text: str, dialect: str) -> Written | None:
    """Return the tables that `text` writes; None if they are not known, or more than it names.

    >>> sorted(written("WITH x AS (DELETE FROM a RETURNING *) INSERT INTO b SELECT * FROM x", "postgresql").tables)
    ['a', 'b']
    >>> written("SELECT my_function()", "postgresql") is None, written("SELECT count(*) FROM a", "postgresql").tables
    (True, frozenset())
    """
    if _SAVEPOINT.match(text):
        return Written(frozenset())
    if not _READABLE.match(text):
        return None
    try:
        trees = sqlglot.parse(_PLACEHOLDER.sub("NULL", text), dialect=_DIALECTS.get(dialect, dialect))
    except (SqlglotError, ValueError, RecursionError):
        return None
    if len(trees) != 1 or not isinstance(trees[0], (*_WRITES, *_READS)):
        return None
    return _written(trees[0], dialect)


def _written(tree: Any, dialect: str) -> Written | None:
    if tree.find(exp.Into, exp.Command) is not None or _calls_unknown(tree, dialect):
        return None
    writes = list(tree.find_all(*_WRITES))
    if any(node.args.get("tables") for node in writes):  # MySQL's DELETE of several tables names them by alias
        return None
    tables = [table for node in writes for table in _targets(node)]
    if len(tables) < len(writes):
        return None
    names = frozenset(".".join(part for part in (table.db, table.name) if part) for table in tables)
    return Written(names, _sets(tree) if len(writes) == 1 else None)


def _targets(node: Any) -> Iterator[Any]:
    if isinstance(node, exp.TruncateTable):
        yield from node.expressions
    elif isinstance(node, exp.Update | exp.Delete):
        yield from node.this.find_all(exp.Table)  # MySQL joins tables here: any of them may be written
    else:
        yield node.this if isinstance(node.this, exp.Table) else node.this.this


def _sets(tree: Any) -> frozenset[str] | None:
    if not isinstance(tree, exp.Update) or tree.args.get("from_") or len(list(_targets(tree))) != 1:
        return None
    columns = [assignment.this for assignment in tree.expressions]
    if not all(isinstance(column, exp.Column) for column in columns):
        return None
    return frozenset(column.name for column in columns)


def _calls_unknown(tree: Any, dialect: str) -> bool:
    """Tell whether a function is called that may write; on SQLite none can."""
    if dialect == "sqlite":
        return False
    pure = pure_functions(dialect)
    return any(call.name.lower() not in pure for call in tree.find_all(exp.Anonymous))
