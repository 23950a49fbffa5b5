"""A SQLite file under capture, and what its outbox must tell of a diff of whole tables."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from reactive_rpc.backends.sqlite.capture.backend import SQLiteCapture
from reactive_rpc.backends.sqlite.capture.images import ROWS_AFTER, SQLiteOutboxRow, quoted
from reactive_rpc.backends.sqlite.capture.replacements import without_kept_rows
from reactive_rpc.backends.sqlite.capture.tables import OUTBOX
from reactive_rpc.changes.captured_schema import CaptureState, TableCapture
from reactive_rpc.clock import RandomIds
from reactive_rpc.dependencies.change import UNKNOWN, Change, Image
from tests.integration.backends.ground_truth import check

Row = Mapping[str, object]
Rows = dict[object, Row]
Snapshot = dict[str, Rows]


@dataclass
class CapturedFile:
    """A database under capture, with the connection that its writers use."""

    path: Path
    writer: sqlite3.Connection
    capture: SQLiteCapture
    state: CaptureState
    seen: int = field(default=0)

    def changes(self) -> list[Change]:
        """Return what the outbox has gained since the last call."""
        rows = [SQLiteOutboxRow(*row) for row in self.writer.execute(ROWS_AFTER, (self.seen, -1))]
        self.seen = rows[-1].id if rows else self.seen
        return [change for _, change in without_kept_rows(rows, self.state.tables, self.writer.execute)]

    def snapshot(self) -> Snapshot:
        """Return `{table: {identity: {column: value}}}` of every captured table, read by another connection."""
        with closing(sqlite3.connect(self.path)) as reader:
            reader.text_factory = lambda data: data.decode(errors="surrogateescape")
            return {name: _rows(reader, table) for name, table in self.state.tables.items() if table.captured}

    def check(self, write: Callable[[], object]) -> list[Change]:
        """Run `write`, check that every row it truly changed is told rightly, and return the changes."""
        return check(self, write, _check_table)


def _rows(reader: sqlite3.Connection, table: TableCapture) -> Rows:
    """Return the rows by identity: the rowid where it can be named, else the primary key."""
    try:
        cursor = reader.execute(f"SELECT _rowid_, * FROM {quoted(table.name)}")
    except sqlite3.OperationalError:
        keys = reader.execute("SELECT name FROM pragma_table_xinfo(?) WHERE pk ORDER BY pk", (table.name,)).fetchall()
        key = " || '/' || ".join(f"quote({quoted(name)})" for (name,) in keys)
        cursor = reader.execute(f"SELECT {key}, * FROM {quoted(table.name)}")
    names = [column[0] for column in cursor.description[1:]]
    return {values[0]: dict(zip(names, values[1:], strict=True)) for values in cursor}


def _same(left: object, right: object) -> bool:
    return type(left) is type(right) and left == right


def _shows(image: Image | None, table: TableCapture, row: Row) -> bool:
    """Tell whether an image is right for a row: each column in it equal or, where that is allowed, UNKNOWN."""
    if image is None or tuple(image) != table.image:
        return False
    return all(_shows_value(image[column], row[column]) for column in table.image)


def _shows_value(shown: object, stored: object) -> bool:
    if isinstance(stored, str) and len(stored.encode(errors="surrogateescape")) <= 48 and "\0" not in stored:
        return _same(shown, stored)
    if stored is None or isinstance(stored, int):
        return _same(shown, stored)
    return shown is UNKNOWN or (isinstance(stored, float) and _same(shown, stored))


def _check_table(table: TableCapture, before: Rows, after: Rows, noted: list[Change]) -> None:
    for identity in before.keys() | after.keys():
        old, new = before.get(identity), after.get(identity)
        differing = frozenset(c for c in table.columns if not _same((old or {}).get(c), (new or {}).get(c)))
        if old is not None and new is not None and (not differing or _is_updated(table, old, new, differing, noted)):
            continue
        assert old is None or _is_ended(table, old, noted), f"{table.name}: the end of {old} is not told by {noted}"
        assert new is None or any(_shows(c.after, table, new) for c in noted), (
            f"{table.name}: the coming of {new} is not told by {noted}"
        )
    wrong = [change for place, change in enumerate(noted) if _has_stayed(table, change, after, noted[place + 1 :])]
    assert not wrong, f"{table.name}: {wrong} are told as deleted, and are there: {noted}"


def _has_stayed(table: TableCapture, change: Change, after: Rows, later: list[Change]) -> bool:
    """Tell whether a row that is told as deleted is there nevertheless, and none came in its place."""
    key = _key(table, change.before)
    if change.operation != "delete" or key is None or any(value in (None, UNKNOWN) for _, value in key):
        return False  # NULL is no key, and many may have it
    has_come = any(_key(table, each.after) == key != _key(table, each.before) for each in later)
    return not has_come and any(_key(table, row) == key for row in after.values())


def _key(table: TableCapture, row: Row | None) -> list[tuple[type, object]] | None:
    return (
        None if row is None or not table.primary_key else [(type(row[name]), row[name]) for name in table.primary_key]
    )


def _is_ended(table: TableCapture, old: Row, noted: list[Change]) -> bool:
    """Tell whether a row is deleted or takes another identity, perhaps after updates.

    REPLACE may remove a row that the same statement has just updated.
    """
    images: list[Image] = [change.before for change in noted if change.before and _shows(change.before, table, old)]
    for change in noted:
        is_moved = change.changed is None or bool(change.changed & set(table.primary_key))
        if change.before in images and is_moved:
            return True
        if change.before in images and change.after is not None:
            images.append(change.after)
    return False


def _is_updated(table: TableCapture, old: Row, new: Row, differing: frozenset[str], noted: list[Change]) -> bool:
    return any(
        change.operation == "update"
        and change.changed in (differing, None)
        and _shows(change.before, table, old)
        and _shows(change.after, table, new)
        for change in noted
    )


MakeCapturedFile = Callable[..., CapturedFile]


@pytest.fixture
def make_world(tmp_path: Path) -> Iterator[MakeCapturedFile]:
    """Return a function that builds a captured database from scripts of DDL and seed rows."""
    worlds: list[CapturedFile] = []

    def make(ddl: str, seed: str = "", *, recursive: bool = False, foreign_keys: bool = True) -> CapturedFile:
        path = tmp_path / f"{len(worlds)}.db"
        writer = sqlite3.connect(path, isolation_level=None)
        writer.execute("PRAGMA synchronous=OFF")
        writer.execute(f"PRAGMA recursive_triggers={int(recursive)}")
        writer.execute(f"PRAGMA foreign_keys={int(foreign_keys)}")
        writer.executescript(ddl)
        capture = SQLiteCapture(path, ids=RandomIds())
        state = capture.install()
        writer.executescript(seed)
        last = writer.execute(f'SELECT max(id) FROM "{OUTBOX}"').fetchone()[0]
        worlds.append(CapturedFile(path, writer, capture, state, last))
        return worlds[-1]

    yield make
    for world in worlds:
        world.writer.close()
