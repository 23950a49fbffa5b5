"""A world on each database, for all tests of a module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from reactive_rpc.testing.postgresql import PostgreSQL

from .recorded_database import RecordedDatabase, open_database


@pytest.fixture(scope="module")
def sqlite_world() -> Iterator[RecordedDatabase]:
    world = open_database("sqlite://")
    yield world
    world.engine.dispose()


@pytest.fixture(scope="module")
def postgresql_world(postgresql: PostgreSQL) -> Iterator[RecordedDatabase]:
    url = postgresql.new_database(driver="postgresql+psycopg")
    world = open_database(url)
    yield world
    world.engine.dispose()
    postgresql.drop_database(url)


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def world(request: pytest.FixtureRequest) -> RecordedDatabase:
    """Return the world of each database in turn."""
    found: RecordedDatabase = request.getfixturevalue(f"{request.param}_world")
    return found
