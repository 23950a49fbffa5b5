"""Which constraint a write contradicts, and which value does not fit: named as far as the database names it."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
from pydantic import BaseModel
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session
from sqlmodel import col

from reactive_rpc import define_reactive_function

from . import postgresql_rooms, rooms
from .postgresql_rooms import DRIVERS, with_driver
from .rooms import Note, Opened, error_of

pytestmark = pytest.mark.anyio

SECRET = 4711
"""A value that stands beside the column in the database's own words."""

TABLES = f"""
CREATE TABLE team (
    id INTEGER PRIMARY KEY, name VARCHAR(5) NOT NULL UNIQUE, n SMALLINT, CONSTRAINT positive CHECK (n > 0)
);
CREATE TABLE member (
    id INTEGER PRIMARY KEY, team_id INTEGER REFERENCES team(id), "Odd, name" INTEGER, n INTEGER, UNIQUE (team_id, n)
);
CREATE UNIQUE INDEX lower_name ON team (lower(name));
CREATE UNIQUE INDEX odd ON member ("Odd, name");
INSERT INTO team VALUES ({SECRET}, 'a', 1);
INSERT INTO member VALUES (1, {SECRET}, {SECRET}, 1);
"""
FURTHER = """
CREATE DOMAIN positive AS INTEGER CHECK (value > 0);
CREATE TABLE booking (n positive, during INT4RANGE, EXCLUDE USING gist (during WITH &&));
INSERT INTO booking VALUES (1, '[1,3]');
"""
POSTGRESQL_TABLES = TABLES + FURTHER
SQLITE_TABLES = (
    TABLES
    + """
CREATE TABLE strict_one (n INTEGER) STRICT;
CREATE TRIGGER refuse BEFORE DELETE ON strict_one BEGIN SELECT RAISE(ABORT, 'not that one'); END;
INSERT INTO strict_one VALUES (1);
"""
)


class Statement(BaseModel):
    sql: str


@define_reactive_function.mutation
async def run(db: AsyncSession, input: Statement) -> None:
    await db.execute(text(input.sql))


@define_reactive_function.mutation
def run_sync(db: Session, input: Statement) -> None:
    db.execute(text(input.sql))


class Value(BaseModel):
    name: str = "b"
    n: int = 1


INSERT = text("INSERT INTO team(id, name, n) VALUES (7, :name, :n)")


@define_reactive_function.mutation
async def insert(db: AsyncSession, input: Value) -> None:
    await db.execute(INSERT, input.model_dump())


@define_reactive_function.mutation
def insert_sync(db: Session, input: Value) -> None:
    db.execute(INSERT, input.model_dump())


@define_reactive_function
async def locked(db: AsyncSession) -> int:
    return len((await db.execute(select(col(Note.id)).with_for_update(read=True))).all())


@define_reactive_function
def locked_sync(db: Session) -> int:
    return len(db.execute(select(col(Note.id)).with_for_update()).all())


@define_reactive_function
async def writes(db: AsyncSession) -> None:
    await db.execute(text("DELETE FROM team"))


FUNCTIONS: Any = {
    "more": {
        "run": run,
        "run_sync": run_sync,
        "insert": insert,
        "insert_sync": insert_sync,
        "locked": locked,
        "locked_sync": locked_sync,
        "writes": writes,
    }
}

Violation = tuple[str, str | None, str | None, list[str]]
"""Kind, name, table and columns."""

BY_SQLITE: Mapping[str, Violation] = {
    f"INSERT INTO team VALUES ({SECRET}, 'b', 1)": ("unique", None, "team", ["id"]),
    f"INSERT INTO member(id, team_id, n) VALUES (2, {SECRET}, 1)": ("unique", None, "member", ["team_id", "n"]),
    "INSERT INTO team VALUES (2, 'A', 1)": ("unique", "lower_name", None, []),
    f"INSERT INTO team VALUES ({SECRET + 1}, NULL, 1)": ("not_null", None, "team", ["name"]),
    f"INSERT INTO team VALUES (2, 'b', -{SECRET})": ("check", "positive", None, []),
    f"INSERT INTO member(id, team_id) VALUES (2, {SECRET + 1})": ("foreign_key", None, None, []),
    "DELETE FROM team": ("foreign_key", None, None, []),
    f"INSERT INTO strict_one VALUES ('x{SECRET}')": ("type", None, "strict_one", ["n"]),
    "DELETE FROM strict_one": ("trigger", None, None, []),
}
BY_POSTGRESQL: Mapping[str, Violation] = {
    f"INSERT INTO team VALUES ({SECRET}, 'b', 1)": ("unique", "team_pkey", "team", ["id"]),
    f"INSERT INTO member(id, team_id, n) VALUES (2, {SECRET}, 1)": (
        "unique", "member_team_id_n_key", "member", ["team_id", "n"],
    ),
    f'INSERT INTO member(id, "Odd, name") VALUES (2, {SECRET})': ("unique", "odd", "member", ["Odd, name"]),
    "INSERT INTO team VALUES (2, 'A', 1)": ("unique", "lower_name", "team", []),
    f"INSERT INTO team VALUES ({SECRET + 1}, NULL, 1)": ("not_null", None, "team", ["name"]),
    f"INSERT INTO team VALUES (2, 'b', -{SECRET})": ("check", "positive", "team", []),
    f"INSERT INTO member(id, team_id) VALUES (2, {SECRET + 1})": (
        "foreign_key", "member_team_id_fkey", "member", ["team_id"],
    ),
    "DELETE FROM team": ("foreign_key", "member_team_id_fkey", "member", []),
    f"INSERT INTO booking VALUES (-{SECRET})": ("check", "positive_check", None, []),
    "INSERT INTO booking VALUES (1, '[2,5]')": ("exclusion", "booking_during_excl", "booking", ["during"]),
}  # fmt: skip


@asynccontextmanager
async def on_sqlite(file: Path) -> AsyncIterator[Opened]:
    with closing(sqlite3.connect(file)) as connection:
        connection.executescript(SQLITE_TABLES)
    async with rooms.serving(file, FUNCTIONS) as server:
        yield server


@asynccontextmanager
async def on_postgresql(url: str, driver: str) -> AsyncIterator[Opened]:
    with psycopg.connect(with_driver(url, "postgresql"), autocommit=True) as connection:
        connection.execute(POSTGRESQL_TABLES.encode())
    async with postgresql_rooms.serving(with_driver(url, driver), FUNCTIONS) as server:
        yield server


async def assert_named(server: Opened, expected: Mapping[str, Violation]) -> None:
    for sql, (kind, constraint, table, columns) in expected.items():
        for name in ("more.run", "more.run_sync"):
            answer = await server.call(name, {"sql": sql})
            error = error_of(answer)
            assert (answer.status_code, error["code"]) == (409, "CONFLICT"), sql
            assert error["details"] == {
                "kind": kind, "constraint": constraint, "table": table, "columns": columns,
            }, (sql, name)  # fmt: skip
            assert all(part in error["message"] for part in (constraint, table) if part)
            assert str(SECRET) not in answer.text


async def test_sqlite_names_what_it_knows(file: Path) -> None:
    """Table and columns of unique and NOT NULL constraints, the name of a check and of an index on an expression."""
    async with on_sqlite(file) as server:
        await assert_named(server, BY_SQLITE)
        answer = await server.call("more.insert", {"n": 2**63})
        assert error_of(answer)["details"] == {"kind": "out_of_range", "type": "int64"}


@pytest.mark.parametrize("driver", DRIVERS)
async def test_postgresql_names_the_constraint(postgresql_url: str, driver: str) -> None:
    """Name, table and columns, by both drivers; which kind of value did not fit, and what a query may not run."""
    async with on_postgresql(postgresql_url, driver) as server:
        await assert_named(server, BY_POSTGRESQL)
        for name in ("more.insert", "more.insert_sync"):
            for value, details in (
                ({"name": f"long {SECRET}"}, {"kind": "too_long", "type": "character varying(5)"}),
                ({"n": SECRET * 100}, {"kind": "out_of_range"}),
                ({"n": SECRET * 10**16}, {"kind": "out_of_range"}),
            ):
                answer = await server.call(name, value)
                error = error_of(answer)
                assert error["code"] == "BAD_REQUEST", answer.text
                assert details.items() <= error["details"].items()
                assert str(SECRET) not in answer.text
        for name, command in (
            ("locked", "SELECT FOR SHARE"), ("locked_sync", "SELECT FOR UPDATE"), ("writes", "DELETE"),
        ):  # fmt: skip
            message = error_of(await server.call(f"more.{name}"))["message"]
            assert f"this one executes {command}" in message
            assert ("may not lock rows" in message) is ("FOR" in command)
