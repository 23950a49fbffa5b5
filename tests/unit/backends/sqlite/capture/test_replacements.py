"""Which rows a REPLACE deleted: what the log tells later, and the rows that are there."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from dataclasses import replace

import pytest

from reactive_rpc.backends.sqlite.capture.images import SQLiteOutboxRow
from reactive_rpc.backends.sqlite.capture.replacements import without_kept_rows
from reactive_rpc.changes.captured_schema import TableCapture

TABLE = TableCapture(
    name="t",
    columns=("id", "n"),
    image=("id", "n"),
    kinds={"id": "text", "n": "integer"},
    key_columns=("id",),
    primary_key=("id",),
    foreign_keys=(),
    captured=True,
)

Note = tuple[str, str | None, str | None]
"""`(operation, key before, key after)`; the key `?` is one that was not captured."""


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    """Give a table in which `here` is, and `Other`, which its collation takes for `OTHER`."""
    found = sqlite3.connect(":memory:")
    found.execute("CREATE TABLE t (id TEXT PRIMARY KEY COLLATE NOCASE, n INTEGER)")
    found.execute("INSERT INTO t VALUES ('here', 1), ('Other', 2)")
    yield found
    found.close()


def _row(id_: int, note: Note) -> SQLiteOutboxRow:
    operation, *keys = note
    before, after = (None if key is None else _image(key) for key in keys)
    return SQLiteOutboxRow(id_, "t", operation, ",0" if operation == "U" else None, before, after)


def _image(key: str) -> bytes:
    return json.dumps(["u" if key == "?" else f"s{key}", 1]).encode()


def _ids(connection: sqlite3.Connection, *notes: Note) -> list[int]:
    rows = [_row(place, note) for place, note in enumerate(notes)]
    return [id_ for id_, _ in without_kept_rows(rows, {"t": TABLE}, connection.execute)]


MAYBE: Note = ("R", "here", None)
UPDATED: Note = ("U", "here", "here")


@pytest.mark.parametrize(
    ("later", "is_gone"),
    [
        ([], False),
        ([UPDATED], False),
        ([MAYBE], False),
        ([("D", "here", None)], False),
        ([("U", "here", "moved")], False),
        ([("I", None, "another")], False),
        ([("I", None, "here")], True),
        ([("U", "another", "here")], True),
        ([("I", None, "here"), UPDATED], True),
        ([UPDATED, ("I", None, "here")], False),
        ([("I", None, "?")], True),
        ([("U", "?", "?")], True),
        ([UPDATED, ("I", None, "?")], False),
        ([("B", None, None)], True),
        ([("B", None, None), UPDATED], True),
        ([UPDATED, ("B", None, None)], False),
    ],
)
def test_what_is_told_next_of_a_key_says_whether_its_row_stayed(
    connection: sqlite3.Connection, later: list[Note], is_gone: bool
) -> None:
    """A row that is there has stayed, unless one may have come in its place since; later still says nothing."""
    assert (0 in _ids(connection, MAYBE, *later)) == is_gone


@pytest.mark.parametrize("key", ["gone", "OTHER", "?"])
def test_a_row_that_is_not_there_was_deleted(connection: sqlite3.Connection, key: str) -> None:
    """Another row that the collation takes for it is not it; and one whose key is not known counts as deleted."""
    assert _ids(connection, ("R", key, None)) == [0]


def test_many_rows_are_looked_up(connection: sqlite3.Connection) -> None:
    """Those that are there have stayed, the others were deleted."""
    connection.executemany("INSERT INTO t(id) VALUES (?)", [(f"k{n}",) for n in range(0, 2_000, 2)])
    notes: list[Note] = [("R", f"k{n}", None) for n in range(2_000)]
    assert _ids(connection, *notes) == list(range(1, 2_000, 2))


def test_a_key_of_several_columns_is_looked_up(connection: sqlite3.Connection) -> None:
    """All of its columns count."""
    connection.execute("CREATE TABLE pair (x TEXT, y INTEGER, PRIMARY KEY (x, y)) WITHOUT ROWID")
    connection.execute("INSERT INTO pair VALUES ('a', 1)")
    table = replace(TABLE, name="pair", columns=("x", "y"), image=("x", "y"), primary_key=("x", "y"))
    rows = [SQLiteOutboxRow(y, "pair", "R", None, json.dumps(["sa", y]).encode(), None) for y in (1, 2)]
    assert [id_ for id_, _ in without_kept_rows(rows, {"pair": table}, connection.execute)] == [2]
