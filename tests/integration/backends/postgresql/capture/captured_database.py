"""A ground truth for capture on PostgreSQL: what truly changed, by a diff of tables, against what the outbox tells.

Rows are read as text by another connection, so that every byte counts, and an image's values are made from that text in
Python, by other means than the triggers'.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, Final, NamedTuple

import asyncpg  # type: ignore[import-untyped]  # it ships no types
import psycopg
from sqlalchemy import make_url

from reactive_rpc.backends.postgresql.capture.backend import PostgreSQLCapture
from reactive_rpc.backends.postgresql.capture.images import PostgreSQLOutboxRow
from reactive_rpc.backends.postgresql.capture.names import quoted
from reactive_rpc.changes.captured_schema import CaptureState, TableCapture
from reactive_rpc.clock import RandomIds
from reactive_rpc.dependencies.change import UNKNOWN, Change, Image
from reactive_rpc.dependencies.schema import ColumnKind
from tests.integration.backends.ground_truth import check

Row = tuple[str | None, ...]
Rows = Counter[Row]
Snapshot = dict[str, Rows]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_TRUTH: Final = {"true": 1, "false": 0}
OUTBOX: Final = (
    "SELECT id, xid::text::bigint, tbl, op::text, rows::text FROM reactive_rpc.outbox WHERE id > %s ORDER BY id"
)


class Writer(NamedTuple):
    """A connection that writes, by one of the drivers.

    Attributes:
        run: run a script of SQL, each statement committed by itself unless the script says otherwise.
        copy: copy rows into `columns` of a table.
    """

    run: Callable[[str], None]
    copy: Callable[[str, list[str], list[tuple[Any, ...]]], None]
    run_many: Callable[[str, list[tuple[Any, ...]]], None]
    close: Callable[[], None]


def psycopg_writer(url: str) -> Writer:
    """Return a writer by psycopg; `%s` stands for a parameter."""
    connection = psycopg.connect(url, autocommit=True)

    def run(script: str) -> None:
        for statement in script.split(";\n"):
            connection.execute(statement)

    def copy(table: str, columns: list[str], rows: list[tuple[Any, ...]]) -> None:
        with connection.cursor().copy(f"COPY {table} ({', '.join(columns)}) FROM STDIN") as stream:
            for row in rows:
                stream.write_row(row)

    def run_many(statement: str, rows: list[tuple[Any, ...]]) -> None:
        connection.cursor().executemany(statement.replace("$1", "%s").replace("$2", "%s"), rows)

    return Writer(run, copy, run_many, connection.close)


def asyncpg_writer(url: str) -> Writer:
    """Return a writer by asyncpg."""
    runner = asyncio.Runner()

    def wait(coroutine: Coroutine[Any, Any, Any]) -> Any:
        return runner.run(coroutine)

    connection = wait(asyncpg.connect(url))

    def run(script: str) -> None:
        for statement in script.split(";\n"):
            wait(connection.execute(statement))

    def copy(table: str, columns: list[str], rows: list[tuple[Any, ...]]) -> None:
        wait(connection.copy_records_to_table(table, records=rows, columns=columns))

    def run_many(statement: str, rows: list[tuple[Any, ...]]) -> None:
        wait(connection.executemany(statement, rows))

    def close() -> None:
        wait(connection.close())
        runner.close()

    return Writer(run, copy, run_many, close)


class CapturedDatabase:
    """A database under capture, and a connection that looks at it.

    Args:
        url: of psycopg.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.reader = psycopg.connect(url, autocommit=True, options="-c TimeZone=UTC")
        self.capture = PostgreSQLCapture(make_url(url), ids=RandomIds())
        self.state: CaptureState = self.capture.install()
        self.seen = 0
        self.changes()

    def close(self) -> None:
        """Close the connection."""
        self.reader.close()

    def rows(self) -> list[PostgreSQLOutboxRow]:
        """Return what the outbox has gained since the last call."""
        rows = [PostgreSQLOutboxRow(*row) for row in self.reader.execute(OUTBOX, [self.seen])]
        self.seen = rows[-1].id if rows else self.seen
        return rows

    def changes(self) -> list[Change]:
        """Return the changes that the outbox has gained since the last call."""
        return [change for row in self.rows() for change in self.capture.decode(row, self.state)]

    def snapshot(self) -> Snapshot:
        """Return `{table: rows, each as often as it occurs}` of every captured table."""
        return {name: self._rows(table) for name, table in self.state.tables.items() if table.captured}

    def _rows(self, table: TableCapture) -> Rows:
        schema, _, name = table.name.rpartition(".")
        columns = ", ".join(f"{quoted(column)}::text" for column in table.columns) or "NULL::text"
        relation = quoted(schema, name) if schema else quoted(name)
        return Counter(self.reader.execute(f"SELECT {columns} FROM {relation}"))

    def check(self, write: Callable[[], object]) -> list[Change]:
        """Run `write`, check that every row it truly changed is told rightly, and return the changes."""
        self.changes()
        return check(self, write, _check_table)


def expected_value(kind: ColumnKind | None, text: str | None) -> Any:
    """Return what an image should hold of a value that the database renders as `text`."""
    if text is None:
        return None
    if kind in ("text", "label", "uuid"):
        return text if len(text.encode()) <= 48 else UNKNOWN
    if "infinity" in text and kind in ("date", "timestamp", "timestamptz"):
        return UNKNOWN
    if text == "NaN":
        return UNKNOWN
    return _READ[kind](text)


def _microseconds(text: str) -> int:
    moment = datetime.fromisoformat(text)
    since = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


_READ: Final[dict[ColumnKind | None, Callable[[str], Any]]] = {
    "integer": lambda text: _TRUTH[text] if text in _TRUTH else int(text),
    "real": float,
    "decimal": lambda text: Decimal(text) if len(text) <= 48 else UNKNOWN,
    "date": lambda text: (date.fromisoformat(text) - _EPOCH.date()).days,
    "timestamp": _microseconds,
    "timestamptz": _microseconds,
}


def _image_of(table: TableCapture, row: Row) -> tuple[Any, ...]:
    texts = dict(zip(table.columns, row, strict=True))
    return tuple(expected_value(table.kinds[column], texts[column]) for column in table.image)


def _values(table: TableCapture, image: Image) -> tuple[Any, ...]:
    assert tuple(image) == table.image
    return tuple(image.values())


def _check_table(table: TableCapture, before: Rows, after: Rows, recorded: list[Change]) -> None:
    befores = [_values(table, change.before) for change in recorded if change.before is not None]
    afters = [_values(table, change.after) for change in recorded if change.after is not None]
    net: Counter[tuple[Any, ...]] = Counter(afters)
    net.subtract(befores)
    true_net: Counter[tuple[Any, ...]] = Counter()
    for row, times in after.items():
        true_net[_image_of(table, row)] += times
    for row, times in before.items():
        true_net[_image_of(table, row)] -= times
    assert {k: n for k, n in net.items() if n} == {k: n for k, n in true_net.items() if n}, table.name
    ended, came = set(befores), set(afters)
    for row in before - after:
        assert _image_of(table, row) in ended, f"{table.name}: nothing tells the end of {row}"
    for row in after - before:
        assert _image_of(table, row) in came, f"{table.name}: nothing tells the coming of {row}"
    if table.primary_key:
        _check_masks(table, before, after, recorded)


def _key(table: TableCapture, image: Image) -> Row:
    return tuple(str(image[column]) for column in table.primary_key)


def _check_masks(table: TableCapture, before: Rows, after: Rows, recorded: list[Change]) -> None:
    """Check that what is told as changed of each row that stayed is what differs, and that no other row is told."""
    places = [table.columns.index(column) for column in table.primary_key]
    old = {tuple(row[place] for place in places): row for row in before}
    new = {tuple(row[place] for place in places): row for row in after}
    for change in recorded:
        assert change.changed is None or change.operation == "update"
        assert change.changed != frozenset(), f"{table.name}: an update that changed nothing was told"
    for key in old.keys() & new.keys():
        differing = {column for column, o, n in zip(table.columns, old[key], new[key], strict=True) if o != n}
        of_row = [change for change in recorded if change.after is not None and _key(table, change.after) == key]
        seen = [change.changed for change in of_row if change.changed is not None]
        if differing and all(change.changed is not None for change in of_row):
            assert differing <= frozenset().union(*seen), f"{table.name} {key}: {differing} is told as {seen}"
