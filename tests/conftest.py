"""Real servers for every test that asks for one: started once a test process, stopped at its end."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from reactive_rpc.testing.postgresql import PostgreSQL, PostgreSQLServer, postgresql_server
from reactive_rpc.testing.redis import RedisServer, redis_cluster, redis_server

# How long an example takes says nothing on a machine that does other work too.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

collect_ignore = [] if "SOAK_SECONDS" in os.environ else ["soak"]
"""Whether memory is flat shows over minutes: `make soak`."""


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Return the event loop that all tests run on."""
    return "asyncio"


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


@pytest.fixture(scope="session")
def two_phase_postgresql() -> Iterator[PostgreSQL]:
    """Return a PostgreSQL server that lets transactions be prepared."""
    with postgresql_server(max_prepared_transactions=20) as server:
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


@pytest.fixture(scope="session")
def redis_server_url() -> Iterator[str]:
    """Return the URL of a Redis server: the one of `REACTIVE_TEST_REDIS_URL`, or one from the package index.

    Tests share it, each under a `redis_namespace` of its own; those that stop or kill a server must start their own.
    """
    url = os.environ.get("REACTIVE_TEST_REDIS_URL")
    if url:
        yield url
        return
    with redis_server() as server:
        yield server.url


@pytest.fixture(scope="session")
def redis_cluster_url() -> Iterator[str]:
    """Return the URL of a cluster of three masters on loopback."""
    with redis_cluster() as cluster:
        yield cluster.url


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    """Return a Redis server of the test's own, which it may stop, kill and pause: a restart finds it empty."""
    with redis_server() as server:
        yield server


@pytest.fixture
def redis_namespace() -> str:
    """Return a namespace that no other test uses."""
    return f"test-{secrets.token_hex(6)}"
