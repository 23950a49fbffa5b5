"""What the differential test takes for granted of the tables is what capture tells of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import create_engine, make_url

from reactive_rpc.backends.postgresql.capture.backend import PostgreSQLCapture
from reactive_rpc.backends.sqlite.capture.backend import SQLiteCapture
from reactive_rpc.changes.captured_schema import CaptureState
from reactive_rpc.clock import RandomIds
from reactive_rpc.testing.postgresql import PostgreSQL

from .model import METADATA, TABLES, VIEWS, Declared, Dialect


def captured(dialect: Dialect, folder: Path, postgresql: PostgreSQL) -> CaptureState:
    """Install capture on a new database with the tables, and return what it tells."""
    path = folder / "declared.db"
    url = f"sqlite:///{path}" if dialect == "sqlite" else postgresql.new_database(driver="postgresql+psycopg")
    engine = create_engine(url)
    METADATA.create_all(engine)
    engine.dispose()
    if dialect == "sqlite":
        return SQLiteCapture(path, ids=RandomIds()).install()
    try:
        return PostgreSQLCapture(make_url(url), ids=RandomIds()).install()
    finally:
        postgresql.drop_database(url)


@pytest.mark.parametrize("dialect", ["sqlite", "postgresql"])
def test_capture_tells_what_is_declared(dialect: Dialect, tmp_path: Path, postgresql: PostgreSQL) -> None:
    """Kinds, unique and indexed columns and views: the trials compare as the database does."""
    state, declared = captured(dialect, tmp_path, postgresql), Declared(dialect)
    for name, table in TABLES.items():
        assert state.captured(name)
        for column in [each.name for each in table.columns]:
            assert (name, column, state.kind(name, column)) == (name, column, declared.kind(name, column))
            assert (name, column, state.is_unique(name, column)) == (name, column, declared.is_unique(name, column))
            assert (name, column, state.is_indexed(name, column)) == (name, column, declared.is_indexed(name, column))
    assert {name: state.view(name) for name in VIEWS} == {name: declared.view(name) for name in VIEWS}
