"""The text of triggers, on tables read from a scratch database."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from reactive_rpc.backends.sqlite.capture.tables import read_tables
from reactive_rpc.backends.sqlite.capture.triggers import triggers_of

BULK = ["bulk_insert", "bulk_update"]


def _roles(ddl: str) -> list[str]:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(ddl)
        table = next(table for table in read_tables(connection) if table.name == "t")
        return [name.removeprefix("_reactive_rpc_").removesuffix("_t") for name in triggers_of(table)]


def test_triggers_are_stored_as_they_are_spelled() -> None:
    """SQLite stores each trigger's text as given, so that verifying is a comparison of strings."""
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(
            'CREATE TABLE t (id INTEGER PRIMARY KEY, "a""b" TEXT UNIQUE, c INTEGER NOT NULL DEFAULT 1 UNIQUE)'
        )
        expected = triggers_of(read_tables(connection)[0])
        for sql in expected.values():
            connection.execute(sql)
        stored = connection.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'").fetchall()
    assert dict(stored) == expected


@pytest.mark.parametrize(
    ("ddl", "bulk"),
    [
        ("CREATE TABLE t (a INTEGER PRIMARY KEY, b UNIQUE)", []),
        ("CREATE TABLE t (a); CREATE UNIQUE INDEX i ON t(a) WHERE a > 1", BULK),
        ("CREATE TABLE t (a); CREATE UNIQUE INDEX i ON t(abs(a))", BULK),
        ("CREATE TABLE t (a, g AS (a) UNIQUE)", BULK),
        ("CREATE TABLE t (a NOT NULL DEFAULT 1 UNIQUE)", BULK),
        ("CREATE TABLE t (a); CREATE TRIGGER x BEFORE DELETE ON t BEGIN DELETE FROM t; END", BULK),
        ("CREATE TABLE t (a); CREATE TRIGGER before AFTER INSERT ON t BEGIN DELETE FROM t; END", []),
        ("CREATE TABLE t (a); CREATE TRIGGER after INSERT ON t BEGIN DELETE FROM t; END", BULK),
        ("CREATE TABLE t (a); CREATE TRIGGER x BEFORE INSERT ON t BEGIN SELECT RAISE(FAIL, 'update'); END", []),
    ],
)
def test_bulk_triggers_stand_only_where_a_collision_cannot_be_foreseen(ddl: str, bulk: list[str]) -> None:
    """Plain keys are tested row by row; opaque indexes, defaults and writing BEFORE triggers widen to the table."""
    assert [role for role in _roles(ddl) if role.startswith("bulk")] == bulk
