"""Writes that cannot change a result mostly leave it alone, by the shape of the query; none that changes it does.

`REACTIVE_KEPT_ROUNDS` sets how many tables are drawn for each shape.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine, make_url

from reactive_rpc.backends.postgresql.capture.backend import PostgreSQLCapture
from reactive_rpc.backends.sqlite.capture.backend import SQLiteCapture
from reactive_rpc.changes.captured_schema import CaptureState
from reactive_rpc.clock import RandomIds
from reactive_rpc.testing.postgresql import PostgreSQL

from .kept import SHAPES, TICKETS_METADATA, tally
from .model import Dialect

ROUNDS = int(os.environ.get("REACTIVE_KEPT_ROUNDS", "2"))
SEED = int(os.environ.get("REACTIVE_KEPT_SEED", "1"))


def opened(dialect: Dialect, folder: Path, postgresql: PostgreSQL) -> tuple[Engine, CaptureState]:
    """Return an engine on a new database with the tables, and what capture tells of them."""
    path = folder / "kept.db"
    url = f"sqlite:///{path}" if dialect == "sqlite" else postgresql.new_database(driver="postgresql+psycopg")
    engine = create_engine(url)
    TICKETS_METADATA.create_all(engine)
    if dialect == "sqlite":
        return engine, SQLiteCapture(path, ids=RandomIds()).install()
    return engine, PostgreSQLCapture(make_url(url), ids=RandomIds()).install()


@pytest.mark.parametrize("dialect", ["sqlite", "postgresql"])
def test_writes_that_change_nothing_are_mostly_kept(
    dialect: Dialect, tmp_path: Path, postgresql: PostgreSQL, record_property: Callable[[str, object], None]
) -> None:
    """Of the writes that leave a result as it is, most leave its read set untouched; of the others, none."""
    engine, schema = opened(dialect, tmp_path, postgresql)
    found = tally(engine, schema, seed=SEED, rounds=ROUNDS)
    engine.dispose()
    record_property(f"kept on {dialect}", f"{found.kept.total()} of {found.cases.total()}\n{found.table()}")
    assert found.stale == []
    assert found.changed.total() > 100
    assert found.share > 0.9, found.table()
    assert all(found.kept[name] > 0.6 * found.cases[name] for name in SHAPES), found.table()
