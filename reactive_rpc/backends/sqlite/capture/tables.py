"""Read the tables of a SQLite database: columns, affinities, unique keys, foreign keys.

Only PRAGMAs and `sqlite_schema` are read, so a custom collation or function that this process lacks does no harm.
Sources: https://www.sqlite.org/datatype3.html (affinity), https://www.sqlite.org/pragma.html, and
https://www.sqlite.org/withoutrowid.html (section 5: how to tell such a table).
"""

from __future__ import annotations

import re
import sqlite3
from dataclasses import dataclass
from typing import Literal

from reactive_rpc.changes.captured_schema import ForeignKey, TableCapture
from reactive_rpc.changes.image_policy import EVERY_TABLE, ImagePolicy
from reactive_rpc.dependencies.schema import ColumnKind

__all__ = [
    "ANSWERS",
    "META",
    "OUTBOX",
    "PREFIX",
    "READS",
    "SQLiteColumn",
    "SQLiteTable",
    "UniqueKey",
    "affinity",
    "read_tables",
]

PREFIX = "_reactive_rpc_"
OUTBOX = "_reactive_rpc_outbox"
META = "_reactive_rpc_meta"
ANSWERS = "_reactive_rpc_answers"
READS = "_reactive_rpc_reads"

Affinity = Literal["integer", "real", "numeric", "text", "none"]

# SQLite's own order of tests: "CHARINT" is an integer, "FLOATING POINT" too.
_AFFINITIES: tuple[tuple[tuple[str, ...], Affinity], ...] = (
    (("INT",), "integer"),
    (("CHAR", "CLOB", "TEXT"), "text"),
    (("BLOB",), "none"),
    (("REAL", "FLOA", "DOUB"), "real"),
)
_GENERATED = (2, 3)  # table_xinfo's `hidden`: virtual and stored generated columns

_QUOTED = re.compile(r"""--[^\n]*|/\*.*?(?:\*/|\Z)|'(?:[^']|'')*'|"(?:[^"]|"")*"|`(?:[^`]|``)*`|\[[^\]]*\]""", re.S)
_TRIGGER_HEAD = re.compile(r"\s*CREATE\s+TRIGGER\s+(?:IF\s+NOT\s+EXISTS\s+)?\S+\s*(?:\.\s*\S+\s*)?", re.I)
_WRITES = re.compile(r"\b(?:INSERT|UPDATE|DELETE|REPLACE)\b", re.I)


@dataclass(frozen=True, slots=True)
class SQLiteColumn:
    """One column; `default` is the text of its DEFAULT expression, and no value of a withheld one is ever copied."""

    name: str
    affinity: Affinity
    is_json: bool
    is_generated: bool
    is_required: bool
    default: str | None
    is_withheld: bool

    @property
    def in_image(self) -> bool:
        """Tell whether images hold the column: comparable values only, and those that are stored."""
        return self.affinity != "none" and not self.is_json and not self.is_generated and not self.is_withheld


@dataclass(frozen=True, slots=True)
class UniqueKey:
    """Columns that together are unique, each with the collation that decides it: `((column, collation), ...)`."""

    parts: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SQLiteTable:
    """All from which the triggers of one table are made.

    Attributes:
        rowid: a name under which the rowid can be reached; None if there is none.
        is_without_rowid: whether the primary key is the table's own tree.
        integer_key: the column that is the rowid (`INTEGER PRIMARY KEY`).
        primary_key: its columns, in the key's order.
        unique_keys: the primary key (unless it is the rowid) and the plain unique indexes.
        opaque_keys: for each unique index on an expression, a condition or a generated column: the columns it may
            rest on.
        is_rewritten: a trigger of the user's may write before the row is stored.
        capture: the description for the rest of the program.
    """

    name: str
    columns: tuple[SQLiteColumn, ...]
    rowid: str | None
    is_without_rowid: bool
    integer_key: str | None
    primary_key: tuple[str, ...]
    unique_keys: tuple[UniqueKey, ...]
    opaque_keys: tuple[tuple[str, ...], ...]
    is_rewritten: bool
    capture: TableCapture

    @property
    def signed(self) -> frozenset[str]:
        """The columns that tell -0.0 from 0.0: those whose affinity makes no whole number of it."""
        return frozenset(column.name for column in self.columns if column.affinity == "none")


def affinity(declared: str, *, is_strict: bool = False) -> Affinity:
    """Return the affinity of a declared type by SQLite's rules.

    >>> [affinity(t) for t in ("VARCHAR(9)", "BIGINT", "DECIMAL(9, 2)", "", "FLOATING POINT", "DATETIME")]
    ['text', 'integer', 'numeric', 'none', 'integer', 'numeric']
    """
    name = declared.upper()
    if not name or (is_strict and name == "ANY"):
        return "none"
    for parts, found in _AFFINITIES:
        if any(part in name for part in parts):
            return found
    return "numeric"


def read_tables(connection: sqlite3.Connection, policy: ImagePolicy = EVERY_TABLE) -> tuple[SQLiteTable, ...]:
    """Return every table of `main` but SQLite's and ours, by name; a column that images may not hold has no kind."""
    found: list[tuple[str, str]] = connection.execute(
        "SELECT name, coalesce(sql, '') FROM sqlite_schema WHERE type = 'table' ORDER BY name"
    ).fetchall()
    virtual = {name for name, sql in found if re.match(r"\s*CREATE\s+VIRTUAL\b", sql, re.I)}
    listed = {name: (kind, strict) for _, name, kind, _, _, strict in connection.execute("PRAGMA main.table_list")}
    is_utf8 = connection.execute("PRAGMA encoding").fetchone()[0] == "UTF-8"
    tables = []
    for name, sql in found:
        if name.lower().startswith("sqlite_") or name in (OUTBOX, META, ANSWERS, READS):
            continue
        kind, strict = listed.get(name, ("table", 0))
        if name in virtual:
            tables.append(_uncaptured(name, "a virtual table has no triggers"))
        elif kind == "shadow" or (not listed and any(name.lower().startswith(f"{v.lower()}_") for v in virtual)):
            tables.append(_uncaptured(name, "the shadow table of a virtual table"))
        elif _is_cut_short(connection, name):
            tables.append(_uncaptured(name, "an AFTER trigger with RAISE(IGNORE) may keep ours from running"))
        else:
            tables.append(_read_table(connection, name, sql, policy, is_strict=bool(strict), is_utf8=is_utf8))
    return tuple(tables)


def _uncaptured(name: str, reason: str) -> SQLiteTable:
    capture = TableCapture(
        name=name, columns=(), image=(), kinds={}, key_columns=(), foreign_keys=(), captured=False, reason=reason
    )
    return SQLiteTable(
        name=name,
        columns=(),
        rowid=None,
        is_without_rowid=False,
        integer_key=None,
        primary_key=(),
        unique_keys=(),
        opaque_keys=(),
        is_rewritten=False,
        capture=capture,
    )


def _read_table(
    connection: sqlite3.Connection, name: str, sql: str, policy: ImagePolicy, *, is_strict: bool, is_utf8: bool
) -> SQLiteTable:
    rows = connection.execute(
        "SELECT name, type, \"notnull\", dflt_value, pk, hidden FROM pragma_table_xinfo(?, 'main') ORDER BY cid",
        (name,),
    ).fetchall()
    names = [row[0] for row in rows]
    columns = tuple(
        SQLiteColumn(
            name=column,
            affinity=affinity(declared, is_strict=is_strict),
            is_json="JSON" in declared.upper(),
            is_generated=hidden in _GENERATED,
            is_required=bool(required),
            default=default,
            is_withheld=not policy.holds((name, f"main.{name}"), column, declared, names),
        )
        for column, declared, required, default, _, hidden in rows
    )
    primary_key = tuple(row[0] for row in sorted((row for row in rows if row[4]), key=lambda row: row[4]))
    indexes = _unique_indexes(connection, name)
    key_index = next((index for index, origin, _ in indexes if origin == "pk"), None)
    is_rowid_table = key_index is None or _exists(connection, key_index)
    integer_key = primary_key[0] if primary_key and key_index is None else None
    unique_keys, opaque_keys = _split_keys(connection, indexes, columns)
    foreign_keys, foreign_columns = _foreign_keys(connection, name)
    capture = TableCapture(
        name=name,
        columns=tuple(column.name for column in columns),
        image=tuple(column.name for column in columns if column.in_image),
        kinds=_kinds(columns, is_exact_text=is_utf8 and not _has_collation(sql)),
        key_columns=tuple(dict.fromkeys((*primary_key, *foreign_columns))),
        primary_key=primary_key,
        foreign_keys=foreign_keys,
        unique=_unique_columns(integer_key, unique_keys),
        indexed=_indexed_columns(connection, name, integer_key),
        captured=True,
        withheld=frozenset(column.name for column in columns if column.is_withheld),
    )
    return SQLiteTable(
        name=name,
        columns=columns,
        rowid=_rowid_name(columns, integer_key) if is_rowid_table else None,
        is_without_rowid=not is_rowid_table,
        integer_key=integer_key,
        primary_key=primary_key,
        unique_keys=unique_keys,
        opaque_keys=opaque_keys,
        is_rewritten=_is_rewritten(connection, name),
        capture=capture,
    )


def _unique_columns(integer_key: str | None, keys: tuple[UniqueKey, ...]) -> frozenset[str]:
    """Return the columns that are unique by themselves: an index of another collation only forbids more."""
    alone = {key.parts[0][0] for key in keys if len(key.parts) == 1}
    return frozenset(alone | ({integer_key} if integer_key is not None else set()))


def _indexed_columns(connection: sqlite3.Connection, table: str, integer_key: str | None) -> frozenset[str]:
    """Return the columns with which an index of every row begins, in the order in which columns are compared."""
    rows = connection.execute(
        "SELECT x.name FROM pragma_index_list(?, 'main') AS i, pragma_index_xinfo(i.name, 'main') AS x"
        " WHERE NOT i.partial AND x.seqno = 0 AND x.coll = 'BINARY' AND x.name IS NOT NULL",
        (table,),
    )
    return frozenset({name for (name,) in rows} | ({integer_key} if integer_key is not None else set()))


def _exists(connection: sqlite3.Connection, index: str) -> bool:
    """Tell whether the primary key's index is an object of its own; in a WITHOUT ROWID table it is the table."""
    row = connection.execute("SELECT 1 FROM sqlite_schema WHERE type = 'index' AND name = ?", (index,)).fetchone()
    return row is not None


def _rowid_name(columns: tuple[SQLiteColumn, ...], integer_key: str | None) -> str | None:
    """Return a name for the rowid that no column has taken, as SQL."""
    taken = {column.name.lower() for column in columns}
    free = next((alias for alias in ("rowid", "_rowid_", "oid") if alias not in taken), None)
    if free is None and integer_key is not None:
        return '"' + integer_key.replace('"', '""') + '"'
    return free


def _unique_indexes(connection: sqlite3.Connection, table: str) -> list[tuple[str, str, bool]]:
    """Return `(index, origin, is partial)` of each unique index, by name: the order must not depend on history."""
    rows = connection.execute(
        "SELECT name, origin, partial FROM pragma_index_list(?, 'main') WHERE \"unique\" ORDER BY name", (table,)
    )
    return [(name, origin, bool(partial)) for name, origin, partial in rows]


def _split_keys(
    connection: sqlite3.Connection, indexes: list[tuple[str, str, bool]], columns: tuple[SQLiteColumn, ...]
) -> tuple[tuple[UniqueKey, ...], tuple[tuple[str, ...], ...]]:
    """Return the unique keys that triggers can test, and for the others the columns that they may rest on."""
    generated = {column.name for column in columns if column.is_generated}
    plain, opaque = [], []
    for index, _, is_partial in indexes:
        parts = tuple(
            connection.execute(
                "SELECT name, coll FROM pragma_index_xinfo(?, 'main') WHERE key ORDER BY seqno", (index,)
            )
        )
        if is_partial or any(name is None or name in generated for name, _ in parts):
            opaque.append(_columns_named(_index_sql(connection, index), columns))
        else:
            plain.append(UniqueKey(parts))
    return tuple(plain), tuple(opaque)


def _index_sql(connection: sqlite3.Connection, index: str) -> str:
    row = connection.execute("SELECT sql FROM sqlite_schema WHERE type = 'index' AND name = ?", (index,)).fetchone()
    return "" if row is None or row[0] is None else str(row[0])


def _columns_named(sql: str, columns: tuple[SQLiteColumn, ...]) -> tuple[str, ...]:
    """Return the columns whose name occurs as a word of an index's text: it can rest on no other.

    All of them if the text is unknown, or a generated column occurs, which may rest on any.
    """
    words = set(re.findall(r"[\w$]+", sql.lower()))
    named = [column for column in columns if column.name.lower() in words or not re.fullmatch(r"[\w$]+", column.name)]
    if not sql or any(column.is_generated for column in named):
        return tuple(column.name for column in columns)
    return tuple(column.name for column in named)


def _foreign_keys(connection: sqlite3.Connection, table: str) -> tuple[tuple[ForeignKey, ...], tuple[str, ...]]:
    """Return the foreign keys whose parent exists, and the own columns of all foreign keys."""
    rows = connection.execute(
        'SELECT seq, "table", "from", "to" FROM pragma_foreign_key_list(?, \'main\') ORDER BY id, seq', (table,)
    ).fetchall()
    keys = []
    for sequence, parent, column, referred in rows:
        found = connection.execute(
            "SELECT m.name, x.name FROM sqlite_schema AS m, pragma_table_xinfo(m.name, 'main') AS x"
            " WHERE m.type = 'table' AND m.name = ?1 COLLATE NOCASE"
            " AND CASE WHEN ?2 IS NULL THEN x.pk = ?3 + 1 ELSE x.name = ?2 COLLATE NOCASE END",
            (parent, referred, sequence),
        ).fetchone()
        if found is not None:
            keys.append((column, *found))
    return tuple(keys), tuple(dict.fromkeys(row[2] for row in rows))


def _has_collation(sql: str) -> bool:
    """Tell whether a table's DDL may give a column another collation than BINARY."""
    named = re.findall(r"\bCOLLATE\b", sql, re.I)
    binary = re.findall(r"\bCOLLATE\s+[\"'`\[]?BINARY\b", sql, re.I)
    return len(named) != len(binary)


def _kinds(columns: tuple[SQLiteColumn, ...], *, is_exact_text: bool) -> dict[str, ColumnKind | None]:
    # A UTF-16 database sorts text by UTF-16 bytes, which is not the order of Python's strings.
    return {column.name: _kind(column, is_exact_text=is_exact_text) for column in columns}


def _kind(column: SQLiteColumn, *, is_exact_text: bool) -> ColumnKind | None:
    if not column.in_image or column.affinity == "none":
        return None
    if column.affinity in ("text", "numeric") and not is_exact_text:
        return None
    return column.affinity


def _users_triggers(connection: sqlite3.Connection, table: str) -> list[str]:
    """Return the SQL of the triggers on `table` that are not ours."""
    rows = connection.execute(
        "SELECT sql FROM sqlite_schema WHERE type = 'trigger' AND tbl_name = ? COLLATE NOCASE"
        " AND substr(name, 1, ?) <> ?",
        (table, len(PREFIX), PREFIX),
    )
    return [sql for (sql,) in rows]


def _is_rewritten(connection: sqlite3.Connection, table: str) -> bool:
    """Tell whether a BEFORE trigger of the user's may write: it could make a collision that ours did not see."""
    return any(_writes_before(sql) for sql in _users_triggers(connection, table))


def _is_cut_short(connection: sqlite3.Connection, table: str) -> bool:
    """Tell whether an AFTER trigger of the user's may end the statement's triggers: the row stays, ours never runs."""
    triggers = _users_triggers(connection, table)
    return any(
        re.search(r"\bRAISE\s*\(\s*IGNORE\b", sql, re.I) and re.search(r"\bAFTER\b", sql, re.I) for sql in triggers
    )


def _writes_before(sql: str) -> bool:
    """Tell whether a trigger runs before the write (the default timing) and its body may write.

    >>> _writes_before("CREATE TRIGGER x INSERT ON t BEGIN UPDATE u SET n = 1; END")
    True
    >>> _writes_before("CREATE TRIGGER x BEFORE INSERT ON t BEGIN SELECT RAISE(ABORT, 'insert no more'); END")
    False
    """
    text = _TRIGGER_HEAD.sub("", _QUOTED.sub(" q ", sql), count=1)
    timing = re.match(r"\s*(AFTER|INSTEAD)\b", text, re.I)
    body = re.split(r"\bBEGIN\b", text, maxsplit=1, flags=re.I)[-1]
    return timing is None and _WRITES.search(body) is not None
