"""The names of tables that statements may use on SQLite, and the tables that lie behind views.

SQLite takes names in any case (of ASCII letters alone) and with the schema in front: `main.Team` is `team`. So the
mappings here answer for every spelling.

A view is followed by SQLite itself: it explains `SELECT * FROM view`, and says which tables it reads, through other
views too, and which functions it calls (`backends/sqlite/oracle.py`). A view that calls a function not known to be pure
is opaque, and so is one that SQLite cannot explain here, because it needs a function of the application's or is broken.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from typing import TypeVar

from reactive_rpc.backends.sqlite.capture.images import quoted
from reactive_rpc.backends.sqlite.oracle import TABLE_FUNCTIONS, Explained, explain
from reactive_rpc.dependencies.schema import View

__all__ = ["AnySpelling", "names_of", "read_views"]

T = TypeVar("T")

_LOWER = str.maketrans({letter: letter.lower() for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"})
_SCHEMA = "main."


class AnySpelling(Mapping[str, T]):
    """A mapping that finds a name in any spelling; it lists the names as the database spells them.

    >>> AnySpelling({"Team": 1})["main.TEAM"]
    1
    """

    def __init__(self, items: Mapping[str, T]) -> None:
        self._items = dict(items)
        self._folded = {_folded(name): value for name, value in items.items()}

    def __getitem__(self, name: str) -> T:
        """Return the value of `name`, however it is spelled."""
        folded = _folded(name)
        return self._folded[folded] if folded in self._folded else self._folded[folded.removeprefix(_SCHEMA)]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names as the database spells them."""
        return iter(self._items)

    def __len__(self) -> int:
        """Return how many names there are."""
        return len(self._items)


def names_of(tables: Iterable[str]) -> Mapping[str, str]:
    """Return `{any spelling of a table: its name}`."""
    return AnySpelling({name: name for name in tables})


def read_views(connection: sqlite3.Connection, tables: Iterable[str]) -> Mapping[str, View]:
    """Return every view of `main`, by any spelling.

    Args:
        tables: the tables as the database spells them.
    """
    rows = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'view' ORDER BY name").fetchall()
    views = [name for (name,) in rows]
    known = names_of(tables)
    return AnySpelling({name: _view(connection, name, frozenset(views), known) for name in views})


def _view(connection: sqlite3.Connection, name: str, views: frozenset[str], known: Mapping[str, str]) -> View:
    found = explain(connection, f"SELECT * FROM main.{quoted(name)}")
    tables = frozenset(known[table] for table in found.reads if table in known)
    return View(tables, found.opaque or _unfollowed(found, views, known))


def _unfollowed(found: Explained, views: frozenset[str], known: Mapping[str, str]) -> str | None:
    """Return which read is of no table and no view: the schema's own tables, for example."""
    others = sorted(name for name in found.reads if name not in known and name not in views | TABLE_FUNCTIONS)
    if others:
        return f"reads {others[0]}, whose writes are not captured"
    has_rowid = any("ROWID" in columns for columns in found.reads.values())
    return "reads a rowid, whose writes are not captured" if has_rowid else None


def _folded(name: str) -> str:
    return name.translate(_LOWER)
