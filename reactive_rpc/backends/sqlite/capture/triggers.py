"""The triggers of a table on SQLite, which record every write in the outbox, in the writer's own transaction.

Row triggers after INSERT, UPDATE and DELETE are exact but for REPLACE, which deletes the rows in its way and fires no
delete triggers for them. So triggers before INSERT and UPDATE record the rows that collide, op `R`: they may be
deleted. Where a collision cannot be foreseen, the whole table counts as changed.

A table of which very many rows are written is told of as a whole for a second or two; a trigger on the outbox decides
which, and thins out the rows that say no more than a later one does ("Bulk writes").

`docs/internals/capture-sqlite.md` argues each comparison, and names the writers that no trigger sees.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from reactive_rpc.backends.sqlite.capture.answers import DDL as ANSWERS_DDL
from reactive_rpc.backends.sqlite.capture.images import balanced, image_sql, quoted
from reactive_rpc.backends.sqlite.capture.tables import ANSWERS, META, OUTBOX, PREFIX, READS, SQLiteTable, UniqueKey

__all__ = ["BASE_TABLES", "BULK_ROWS", "BULK_WINDOW", "STEP", "coalescing", "triggers_of"]

BULK_WINDOW: Final = 2_048
"""After so many ids, it is looked at which tables they were of."""

BULK_ROWS: Final = 1_024
"""A table of which so many rows were recorded within a window and within one second is told of as a whole."""

STEP: Final = 256
"""After so many ids, rows about whole tables are thinned out: so few that SQLite keeps the statement's pages in memory.

Past 64 kB it takes a file, which every later statement of the transaction would write to."""

# Seconds of the Unix epoch; by half as dear as `strftime('%s','now')`.
_NOW: Final = "CAST((julianday('now')-2440587.5)*86400 AS INTEGER)"

BASE_TABLES = {
    OUTBOX: (
        f'CREATE TABLE "{OUTBOX}" (id INTEGER PRIMARY KEY AUTOINCREMENT, tbl TEXT NOT NULL, op TEXT NOT NULL,'
        f" changed TEXT, before TEXT, after TEXT, at INTEGER NOT NULL DEFAULT ({_NOW}))"
    ),
    READS: f'CREATE TABLE "{READS}" (tbl TEXT PRIMARY KEY, at INTEGER NOT NULL, bulk_at INTEGER) WITHOUT ROWID',
    META: f'CREATE TABLE "{META}" (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID',
    ANSWERS: ANSWERS_DDL,
}


def coalescing() -> dict[str, str]:
    """Return `{name: SQL}` of the triggers that keep bulk writes from filling the outbox; each trigger runs them
    after every so many ids.

    One finds the tables that are written in bulk. One removes rows about whole tables that a later one makes
    superfluous.
    """
    last_id = f'(SELECT max(id) FROM "{OUTBOX}")'
    window = f'FROM "{OUTBOX}" WHERE id>{last_id}-{BULK_WINDOW}'
    heavy = f"SELECT tbl {window} AND at={_NOW} AND op NOT IN ('B','T') GROUP BY tbl HAVING count(*)>={BULK_ROWS}"
    recent = f"FROM \"{OUTBOX}\" WHERE id>{last_id}-{STEP} AND op='B'"
    steps = {
        f"{PREFIX}find_bulk": (
            f" AND {last_id}%{BULK_WINDOW}=0",
            f'UPDATE "{READS}" SET bulk_at={_NOW} WHERE tbl IN ({heavy})',
        ),
        # INVARIANT (of each table, the last row about the whole of it stays): whoever asks for the changes after an id
        # below a row that goes is told by the row that stays.
        f"{PREFIX}thin_out": ("", f"DELETE {recent} AND id NOT IN (SELECT max(id) {recent} GROUP BY tbl)"),
    }
    return {
        name: f'CREATE TRIGGER "{name}" AFTER UPDATE ON "{META}" FOR EACH ROW WHEN NEW.key=\'epoch\'{when}'
        f" BEGIN {body}; END"
        for name, (when, body) in steps.items()
    }


def triggers_of(table: SQLiteTable, *, only_read: bool = False) -> dict[str, str]:
    """Return `{name: SQL}`, each spelled as SQLite will store it.

    Args:
        only_read: whether images are written only for tables that somebody reads and nobody writes in bulk. A row of
            any other is recorded as the whole table: the look-up takes a few microseconds, and decides for the row's
            images together.
    """
    parts = {
        "insert": ("AFTER INSERT", None, _log(table, "I", after="NEW", only_read=only_read)),
        "update": ("AFTER UPDATE", _any_changed(table), _log_update(table, only_read=only_read)),
        "delete": ("AFTER DELETE", None, _log(table, "D", before="OLD", only_read=only_read)),
        "replace_insert": ("BEFORE INSERT", _collides(table), _log_collisions(table, only_read=only_read)),
        "replace_update": (
            "BEFORE UPDATE",
            _moves_and_collides(table),
            _log_collisions(table, is_update=True, only_read=only_read),
        ),
        "bulk_insert": ("BEFORE INSERT", _unforeseen_insert(table), _log(table, "B")),
        "bulk_update": ("BEFORE UPDATE", _unforeseen_update(table), _log(table, "B")),
    }
    return {
        f"{PREFIX}{role}_{table.name}": _create(f"{PREFIX}{role}_{table.name}", table.name, event, when, body)
        for role, (event, when, body) in parts.items()
        if when != "0"
    }


def _create(name: str, table: str, event: str, when: str | None, body: str) -> str:
    condition = "" if when is None else f" WHEN {when}"
    return f"CREATE TRIGGER {quoted(name)} {event} ON {quoted(table)} FOR EACH ROW{condition} BEGIN {body}; END"


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _log(
    table: SQLiteTable, operation: str, *, before: str | None = None, after: str | None = None, only_read: bool = False
) -> str:
    images = ["NULL" if row is None else image_sql(table, row) for row in (before, after)]
    return _insert(table, operation, "NULL", *images, only_read=only_read)


def _insert(
    table: SQLiteTable, operation: str, changed: str, before: str, after: str, *, only_read: bool, source: str = ""
) -> str:
    """Return the statement that logs one row, or, with `source`, each row that a FROM and WHERE select."""
    name, target = _literal(table.name), f'INSERT INTO "{OUTBOX}"(tbl,op,changed,before,after)'
    if not only_read:
        return f"{target} SELECT {name},'{operation}',{changed},{before},{after}{source}"
    images = ",".join(f"CASE WHEN is_narrow THEN {value} END" for value in (changed, before, after))
    # A clock that was set back ends a bulk write, too. It is asked only of a table that was once written in bulk.
    is_past = f"(bulk_at IS NULL OR {_NOW}-bulk_at NOT BETWEEN 0 AND 1)"
    is_narrow = f'(SELECT EXISTS(SELECT 1 FROM "{READS}" WHERE tbl={name} AND {is_past}) AS is_narrow)'
    joined = source.replace(" FROM ", f" FROM {is_narrow} JOIN ", 1) if source else f" FROM {is_narrow}"
    insert = f"{target} SELECT {name},CASE WHEN is_narrow THEN '{operation}' ELSE 'B' END,{images}{joined}"
    # Triggers on the outbox itself would have SQLite copy each row to a temporary table first.
    step = f"UPDATE \"{META}\" SET value=value WHERE key='epoch' AND last_insert_rowid()%{STEP}=0"
    return f"{insert}; {step}"


def _differs(table: SQLiteTable, column: str) -> str:
    old, new = f"OLD.{quoted(column)}", f"NEW.{quoted(column)}"
    if column == table.integer_key:
        return f"{old}<>{new}"
    # Bytewise: IS NOT follows the column's collation and calls 1 and 1.0 equal, and -0.0 and 0.0.
    zero = f" OR {old}=0 AND typeof({old})='real'" if column in table.signed else ""
    return f"({old} IS NOT {new} COLLATE BINARY OR typeof({old})<>typeof({new}){zero})"


def _rowid_differs(table: SQLiteTable) -> str | None:
    """Return the test of a moved rowid that no column shows; None if a column does or there is no rowid."""
    if table.rowid is None or table.integer_key is not None:
        return None
    return f"OLD.{table.rowid}<>NEW.{table.rowid}"


def _any_changed(table: SQLiteTable) -> str:
    moved = _rowid_differs(table)
    terms = [_differs(table, column.name) for column in table.columns]
    return balanced([*terms, moved] if moved else terms, "OR")


def _log_update(table: SQLiteTable, *, only_read: bool) -> str:
    flags = [
        f"CASE WHEN {_differs(table, column.name)} THEN ',{ordinal}' ELSE '' END"
        for ordinal, column in enumerate(table.columns)
    ]
    changed = balanced(flags, "||")
    moved = _rowid_differs(table)
    if moved:
        changed = f"CASE WHEN {moved} THEN NULL ELSE {changed} END"
    return _insert(table, "U", changed, image_sql(table, "OLD"), image_sql(table, "NEW"), only_read=only_read)


def _matches(key: UniqueKey) -> str:
    """Return the test that row `c` has NEW's key; false if one part is NULL, as in a unique index."""
    return " AND ".join(
        f"c.{quoted(name)} COLLATE {quoted(collation)}=NEW.{quoted(name)}" for name, collation in key.parts
    )


def _collisions(table: SQLiteTable) -> list[tuple[str, str]]:
    """Return `(collision, move)` of each key: row `c` is in NEW's way; an update has moved the row there."""
    found = [
        (_matches(key), balanced([_differs(table, name) for name, _ in key.parts], "OR")) for key in table.unique_keys
    ]
    if table.rowid is not None:
        found.append((f"c.{table.rowid}=NEW.{table.rowid}", f"OLD.{table.rowid}<>NEW.{table.rowid}"))
    return found


def _exists(table: SQLiteTable, condition: str) -> str:
    return f"EXISTS(SELECT 1 FROM {quoted(table.name)} AS c WHERE {condition})"


def _collides(table: SQLiteTable) -> str:
    if _unforeseen_insert(table) is None:
        return "0"  # every insert counts as a change of the whole table already
    return _any_of(_exists(table, collision) for collision, _ in _collisions(table))


def _moves_and_collides(table: SQLiteTable) -> str:
    if _unforeseen_update(table) is None:
        return "0"
    own = _is_other_row(table)
    return _any_of(f"({move} AND {_exists(table, f'{collision}{own}')})" for collision, move in _collisions(table))


def _is_other_row(table: SQLiteTable) -> str:
    """Return the test, to be appended, that `c` is not the row being updated.

    Empty if columns have taken all three names of the rowid: the row then logs itself as deleted, which is wide.
    """
    if table.rowid is not None:
        return f" AND c.{table.rowid}<>OLD.{table.rowid}"
    if not table.is_without_rowid:
        return ""
    parts = (quoted(name) for name in table.primary_key)
    return " AND NOT (" + " AND ".join(f"c.{part} IS OLD.{part} COLLATE BINARY" for part in parts) + ")"


def _log_collisions(table: SQLiteTable, *, only_read: bool, is_update: bool = False) -> str:
    condition = _any_of(f"({collision})" for collision, _ in _collisions(table))
    own = _is_other_row(table) if is_update else ""
    source = f" FROM {quoted(table.name)} AS c WHERE {condition}{own}"
    return _insert(table, "R", "NULL", image_sql(table, "c"), "NULL", only_read=only_read, source=source)


def _takes_default(table: SQLiteTable) -> list[str]:
    keyed = {name for key in table.unique_keys for name, _ in key.parts}
    return [
        f"NEW.{quoted(column.name)} IS NULL"
        for column in table.columns
        if column.name in keyed and column.is_required and column.default is not None
    ]


def _unforeseen_insert(table: SQLiteTable) -> str | None:
    return None if table.is_rewritten or table.opaque_keys else _any_of(_takes_default(table))


def _unforeseen_update(table: SQLiteTable) -> str | None:
    if table.is_rewritten:
        return None
    relevant = dict.fromkeys(name for names in table.opaque_keys for name in names)
    return _any_of([*(_differs(table, name) for name in relevant), *_takes_default(table)])


def _any_of(conditions: Iterable[str]) -> str:
    """Return the disjunction; `0` if there is none."""
    terms = list(conditions)
    return balanced(terms, "OR") if terms else "0"
