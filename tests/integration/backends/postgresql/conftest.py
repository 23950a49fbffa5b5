"""Logs on PostgreSQL databases."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from sqlalchemy import make_url

from reactive_rpc.backends.postgresql.capture.backend import PostgreSQLCapture
from reactive_rpc.backends.postgresql.log import PostgreSQLLog
from reactive_rpc.clock import RandomIds

from .tails import OpenTail, Tail, create


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture
def open_tail(runner: asyncio.Runner) -> Iterator[OpenTail]:
    """Return a function that opens a log on the database of a URL."""
    with ExitStack() as stack:

        def make(url: str) -> Tail:
            parsed = make_url(url)
            capture = PostgreSQLCapture(parsed, ids=RandomIds())
            log = PostgreSQLLog(capture, parsed)
            tail = Tail(log, runner.run)
            tail.log.subscribe(tail.batches.append)
            stack.callback(lambda: runner.run(tail.log.aclose()))
            runner.run(tail.log.open())
            return tail

        yield make


@pytest.fixture
def url(postgresql_url: str) -> str:
    """Return the URL of a database with one table, `w(id, writer)`."""
    create(postgresql_url)
    return postgresql_url


@pytest.fixture
def tail(open_tail: OpenTail, url: str) -> Tail:
    """Return one open log."""
    return open_tail(url)
