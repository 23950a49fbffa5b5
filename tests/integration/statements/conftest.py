"""A world on each database, for all tests of a module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from reactive_rpc.testing.postgresql import PostgreSQL

from .world import World, open_world


@pytest.fixture(scope="module")
def sqlite_world() -> Iterator[World]:
    world = open_world("sqlite://")
    yield world
    world.engine.dispose()


@pytest.fixture(scope="module")
def postgresql_world(postgresql: PostgreSQL) -> Iterator[World]:
    url = postgresql.new_database(driver="postgresql+psycopg")
    world = open_world(url)
    yield world
    world.engine.dispose()
    postgresql.drop_database(url)


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def world(request: pytest.FixtureRequest) -> World:
    """Return the world of each database in turn."""
    found: World = request.getfixturevalue(f"{request.param}_world")
    return found
