"""Real servers for every test that asks for one: started once a test process, stopped at its end."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from reactive_rpc.testing.postgresql import PostgreSQL, PostgreSQLServer, postgresql_server


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    """Return a PostgreSQL server: the one of `REACTIVE_TEST_DATABASE_URL`, or one from the package index.

    Tests may create databases in it; those that stop or kill a server must start their own.
    """
    url = os.environ.get("REACTIVE_TEST_DATABASE_URL")
    if url:
        yield PostgreSQL(url)
        return
    with postgresql_server() as server:
        yield server


@pytest.fixture
def own_postgresql() -> Iterator[PostgreSQLServer]:
    """Return a server of the test's own, which it may stop and kill: it keeps what it has acknowledged."""
    with postgresql_server(durable=True) as server:
        yield server


@pytest.fixture
def postgresql_url(postgresql: PostgreSQL) -> Iterator[str]:
    """Return the URL of a new, empty database, for asyncpg."""
    url = postgresql.new_database()
    yield url
    postgresql.drop_database(url)
