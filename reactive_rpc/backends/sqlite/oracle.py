"""Ask SQLite itself which tables and columns a text reads.

Design note. While SQLite prepares a statement, it asks an *authorizer* about every table and column that the text
reads, through views too, and about every function that it calls. `EXPLAIN` prepares a statement and runs none of it. So
the text is explained, with its own parameters on its own connection, under an authorizer that writes down and denies
all but reading. It is exact: the names are resolved by whoever resolves them for the statement.

Preparing the first statement that uses `json_each` also declares that table, which shows as a write to the schema; so a
statement that shows one is explained again, when such a thing is no longer to be expected.

Setting an authorizer makes SQLite prepare a connection's statements anew, which is why answers are remembered: by text,
for one state of the schema.

Source: https://www.sqlite.org/c3ref/c_alter_table.html (action codes), https://www.sqlite.org/lang_explain.html.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy.engine import Connection

from reactive_rpc.backends.sqlite.dates import DATE_FUNCTIONS, asked_for_now, may_be_now
from reactive_rpc.compat.aiosqlite import run_in_driver
from reactive_rpc.dependencies.schema import Schema
from reactive_rpc.statements.functions import pure_functions
from reactive_rpc.statements.text_reads import TextRead, refused

__all__ = ["EXPLAIN", "TABLE_FUNCTIONS", "Explained", "SQLiteOracle", "explain"]

MAX_REMEMBERED: Final = 1_000
"""How many texts are remembered; then all are forgotten."""

EXPLAIN: Final = "EXPLAIN /* reactive_rpc */ "
"""Begins every statement that the oracle runs."""

_HARMLESS: Final = frozenset({sqlite3.SQLITE_SELECT, sqlite3.SQLITE_RECURSIVE})
TABLE_FUNCTIONS: Final = frozenset({"json_each", "json_tree"})
"""A FROM may name these without reading a row: their arguments say all."""


@dataclass(slots=True)
class Explained:
    """The answer of SQLite about a statement.

    Attributes:
        reads: `{table or view: columns}`, as the database spells them.
        functions: all that are called, in lower case.
        clock: the date function that may be asked for the time; None if none can be, unless a parameter is 'now'.
        failure: why it cannot be told; None if it can.
    """

    reads: dict[str, set[str]] = field(default_factory=dict)
    functions: set[str] = field(default_factory=set)
    clock: str | None = None
    failure: str | None = None
    declares: bool = False

    @property
    def takes_dates(self) -> bool:
        """Whether a date function is called, which may be asked for the time."""
        return not DATE_FUNCTIONS.keys().isdisjoint(self.functions)

    @property
    def opaque(self) -> str | None:
        """Why the result does not follow from rows; None if it does."""
        impure = sorted(self.functions - pure_functions("sqlite") - DATE_FUNCTIONS.keys())
        if self.failure is None and impure:
            return f"calls {impure[0]}(), which is not known to depend on its arguments alone: pass in its value"
        if self.failure is None and self.clock is not None:
            return f"calls {self.clock}() of what may be the text 'now', which is the clock: pass in its value"
        return self.failure


def explain(connection: sqlite3.Connection, statement: str, parameters: Any = ()) -> Explained:
    """Return the reads and calls of `statement`; nothing of it is run."""
    found = _explain_once(connection, statement, parameters, may_declare=True)
    if found.declares:
        found = _explain_once(connection, statement, parameters, may_declare=False)
    if found.failure is None and found.takes_dates:
        found.clock = asked_for_now(connection, statement, found.reads)
    return found


def _explain_once(connection: sqlite3.Connection, statement: str, parameters: Any, *, may_declare: bool) -> Explained:
    found = Explained()

    def authorize(action: int, first: str | None, second: str | None, database: str | None, _within: str | None) -> int:
        if action == sqlite3.SQLITE_READ and database in ("main", None):
            found.reads.setdefault(str(first), set()).update({second} if second else ())
        elif action == sqlite3.SQLITE_FUNCTION:
            found.functions.add(str(second).lower())
        elif action == sqlite3.SQLITE_UPDATE and first == "sqlite_master" and may_declare:
            found.declares = True
        elif action not in _HARMLESS:
            found.failure = "runs text that does more than read: define it with define_reactive_function.mutation"
            return sqlite3.SQLITE_DENY
        return sqlite3.SQLITE_OK

    connection.set_authorizer(authorize)
    try:
        connection.execute(EXPLAIN + statement, parameters).close()
    except (sqlite3.Error, sqlite3.Warning, OverflowError) as exc:
        found.failure = found.failure or f"runs text that SQLite cannot explain ({exc})"
    finally:
        connection.set_authorizer(None)
    return found


@dataclass(frozen=True, slots=True)
class _OracleAnswer:
    """The reads of a text, whatever its parameters are, and whether one of them may ask for the clock."""

    read: TextRead
    takes_dates: bool

    def of(self, parameters: Any) -> TextRead:
        """Return the reads of the text with these parameters."""
        values = parameters.values() if isinstance(parameters, dict) else parameters or ()
        if self.takes_dates and self.read.opaque is None and any(map(may_be_now, values)):
            return refused("runs text with a parameter that may be the date 'now': pass in its value")
        return self.read


class SQLiteOracle:
    """Finds the reads of a text on SQLite, see `text_reads.Oracle`. Safe across threads."""

    def __init__(self) -> None:
        self._remembered: tuple[Schema | None, dict[str, _OracleAnswer]] = (None, {})

    def __call__(self, connection: Connection, statement: str, parameters: Any, schema: Schema) -> TextRead:
        """Return the reads of `statement`, which is about to run on `connection`."""
        known_schema, known = self._remembered
        if known_schema is not schema or len(known) >= MAX_REMEMBERED:
            known = {}
            self._remembered = (schema, known)
        if statement not in known:
            found = _explained(connection, statement, parameters)
            answer = _OracleAnswer(_text_read(found, schema), found.takes_dates)
            if found.failure is not None:  # it may be the parameters', or pass
                return answer.read
            known[statement] = answer
        return known[statement].of(parameters)


def _explained(connection: Connection, statement: str, parameters: Any) -> Explained:
    driver: Any = connection.connection.dbapi_connection
    if isinstance(driver, sqlite3.Connection):
        return explain(driver, statement, parameters)
    # INVARIANT (one call): nobody can be cancelled between setting the authorizer and taking it away.
    return run_in_driver(driver, explain, statement, parameters)


def _text_read(found: Explained, schema: Schema) -> TextRead:
    if found.opaque is not None:
        return refused(found.opaque)
    tables: dict[str, frozenset[str] | None] = {}
    for name, columns in found.reads.items():
        table = schema.table(name)
        if table is not None and schema.captured(table):
            if not columns <= schema.columns(table):
                return refused(f"reads a rowid of {table}, whose writes are not captured: name a column")
            tables[table] = frozenset(columns)
        elif table is not None or not _is_followed(name, schema):
            return refused(f"reads table {name}, whose writes are not captured")
    return TextRead(tables)


def _is_followed(name: str, schema: Schema) -> bool:
    """Tell whether `name` holds no rows of its own: a view, whose tables are told too, or a table-valued function."""
    return schema.view(name) is not None or name.lower() in TABLE_FUNCTIONS
