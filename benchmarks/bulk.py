"""60,000 rows written in one transaction, with capture and without, turn and turn about.

The table is one that somebody reads, so its values are copied until it is written in bulk. SQLite is measured by the
CPU time of this process, and PostgreSQL, whose work is its server's, by the clock.

    python -m benchmarks.run bulk
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, insert, make_url, text
from sqlmodel import Field, SQLModel

from reactive_rpc.backends.postgresql.capture.backend import PostgreSQLCapture
from reactive_rpc.backends.sqlite.capture.backend import SQLiteCapture
from reactive_rpc.changes.image_policy import READ_TABLES
from reactive_rpc.clock import RandomIds
from reactive_rpc.testing.postgresql import postgresql_server

ROWS = 60_000
ROUNDS = 7


class Message(SQLModel, table=True):
    """A row to import."""

    id: int | None = Field(default=None, primary_key=True)
    room_id: int = Field(index=True)
    author: str
    body: str
    status: str
    stars: int


def imported(connection: Connection) -> None:
    """Insert as an import does: a list of rows, in one call of SQLAlchemy."""
    rows = [
        {"id": n, "room_id": n % 50, "author": f"a{n % 9}", "body": "x" * 120, "status": "open", "stars": n % 7}
        for n in range(1, ROWS + 1)
    ]
    connection.execute(insert(Message.__table__), rows)  # type: ignore[attr-defined]  # of every table's model


def copied(connection: Connection) -> None:
    """Insert in one statement, from other rows."""
    connection.execute(
        text(
            "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < :rows)"
            " INSERT INTO message(id, room_id, author, body, status, stars)"
            f" SELECT n, n % 50, 'a' || (n % 9), '{'x' * 120}', 'open', n % 7 FROM c"
        ),
        {"rows": ROWS},
    )


def updated(connection: Connection) -> None:
    """Change every row in one statement."""
    connection.execute(text("UPDATE message SET stars = stars + 1"))


def deleted(connection: Connection) -> None:
    """Delete every row, one statement."""
    connection.execute(text("DELETE FROM message WHERE id > 0"))


KINDS: tuple[tuple[str, Callable[[Connection], None]], ...] = (
    ("a list of rows through SQLAlchemy", imported),
    ("UPDATE of every row", updated),
    ("DELETE of every row", deleted),
    ("INSERT ... SELECT", copied),
)


def measure(
    plain: Engine, captured: Engine, *, rounds: int, clock: Callable[[], float]
) -> dict[str, tuple[float, list[float]]]:
    """Return `{kind: (seconds of the plain one, ratios of the captured one to it)}`; the plain ones' median."""
    seconds: dict[str, list[float]] = {kind: [] for kind, _ in KINDS}
    ratios: dict[str, list[float]] = {kind: [] for kind, _ in KINDS}
    for number in range(rounds):
        for kind, write in KINDS:
            engines = (plain, captured) if number % 2 else (captured, plain)
            found = {id(engine): _timed(engine, write, clock) for engine in engines}
            seconds[kind].append(found[id(plain)])
            ratios[kind].append(found[id(captured)] / found[id(plain)])
        for engine in (plain, captured):
            _empty(engine)
    return {kind: (statistics.median(seconds[kind]), sorted(ratios[kind])) for kind, _ in KINDS}


def _timed(engine: Engine, write: Callable[[Connection], None], clock: Callable[[], float]) -> float:
    with engine.connect() as connection:
        began = clock()
        write(connection)
        connection.commit()
        return clock() - began


def _empty(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM message"))


def on_sqlite(folder: Path, *, rounds: int = ROUNDS) -> dict[str, tuple[float, list[float]]]:
    """Measure on SQLite."""
    plain, captured = (_file(folder / name) for name in ("plain.db", "captured.db"))
    capture = SQLiteCapture(folder / "captured.db", ids=RandomIds(), policy=READ_TABLES)
    capture.install()
    capture.note_reads(["message"])
    return measure(plain, captured, rounds=rounds, clock=time.process_time)


def _file(path: Path) -> Engine:
    engine = create_engine(f"sqlite:///{path}")

    @event.listens_for(engine, "connect")
    def connect(connection: Any, _: object) -> None:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")

    SQLModel.metadata.create_all(engine, tables=[Message.__table__])  # type: ignore[attr-defined]
    return engine


def on_postgresql(*, rounds: int = ROUNDS) -> dict[str, tuple[float, list[float]]]:
    """Measure on PostgreSQL."""
    with postgresql_server() as server:
        urls = [make_url(server.new_database()) for _ in range(2)]
        engines = [create_engine(url.set(drivername="postgresql+psycopg")) for url in urls]
        for engine in engines:
            SQLModel.metadata.create_all(engine, tables=[Message.__table__])  # type: ignore[attr-defined]
        capture = PostgreSQLCapture(urls[1], ids=RandomIds(), policy=READ_TABLES)
        capture.install()
        capture.note_reads(["message"])
        found = measure(engines[0], engines[1], rounds=rounds, clock=time.perf_counter)
        for engine in engines:
            engine.dispose()
        return found


def run(folder: Path) -> None:
    """Measure and print."""
    print(f"{ROWS:,} rows in one transaction, beside the same without capture (medians, quartiles of the ratio):")
    for where, found in (("SQLite", on_sqlite(folder)), ("PostgreSQL", on_postgresql())):
        for kind, (seconds, ratios) in found.items():
            spread = f"{ratios[len(ratios) // 4]:.2f} to {ratios[-1 - len(ratios) // 4]:.2f}"
            print(
                f"  {kind:34} on {where:11} {statistics.median(ratios):6.2f} ({spread}), plain {seconds * 1e3:5.0f} ms"
            )
