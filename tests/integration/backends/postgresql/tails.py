"""Logs of PostgreSQL databases, and what they have told."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from contextlib import closing, suppress
from dataclasses import dataclass, field
from typing import Any

import psycopg
from sqlalchemy import make_url

from reactive_rpc.backends.postgresql.log import PostgreSQLLog
from reactive_rpc.backends.postgresql.url import libpq_url
from reactive_rpc.changes.log import Batch
from reactive_rpc.dependencies.change import Change
from reactive_rpc.errors import ServiceUnavailableError
from reactive_rpc.protocol.cursors import Cursor
from tests.support.waiting import wait_until

DEADLINE_SECONDS = 30.0


@dataclass
class Tail:
    """An open log with a subscriber that keeps every batch."""

    log: PostgreSQLLog
    run: Callable[[Coroutine[Any, Any, Any]], Any]
    batches: list[Batch] = field(default_factory=list)

    def poll(self) -> list[Batch]:
        """Ask for what is fresh and return the batches that came of it."""
        known = len(self.batches)
        self.run(self.log.sync_to_head())
        return self.batches[known:]

    def received(self) -> list[int]:
        """Ask for what is fresh and return the ids of the rows inserted; a flush is not expected."""
        batches = self.poll()
        assert all(batch.flush is None for batch in batches), batches
        return ids(change for batch in batches for change in batch.changes)

    def poll_until_it_works(self) -> list[Batch]:
        """Poll until the database can be read again."""
        found: list[list[Batch]] = []

        def works() -> bool:
            with suppress(ServiceUnavailableError):
                found.append(self.poll())
            return bool(found)

        wait_until(works)
        return found[0]

    @property
    def cursor(self) -> Cursor:
        """The place of now, as a client gets it and sends it back."""
        return Cursor.parse(str(self.log.cursor_at(self.log.version)))

    def read_after(self, cursor: Cursor) -> list[int] | None:
        """Return the ids of the rows inserted after a cursor; None is a gap."""
        found = self.run(self.log.read_after(cursor))
        return None if found is None else ids(found)


def ids(changes: Iterable[Change]) -> list[Any]:
    """Return the ids of the rows inserted."""
    return [change.after["id"] for change in changes if change.after and change.operation == "insert"]


OpenTail = Callable[[str], Tail]


def connected(url: str) -> psycopg.Connection[Any]:
    """Connect as any other program would."""
    return psycopg.connect(libpq_url(make_url(url)), autocommit=True)


def create(url: str) -> None:
    """Create the table."""
    with closing(connected(url)) as connection:
        connection.execute("CREATE TABLE w (id INTEGER PRIMARY KEY, writer INTEGER)")
