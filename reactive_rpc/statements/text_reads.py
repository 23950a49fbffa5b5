"""What a text reads: the contract between the recorder and a database's oracle.

Design note. What SQLAlchemy gets as text (`text()`, `exec_driver_sql`, `literal_column`, a construct of the
application's own) it hands on unread, so nothing is known until the whole text is rendered. Then somebody who knows the
database's grammar is asked: on SQLite, SQLite itself (`backends/sqlite/oracle.py`); on PostgreSQL, a parser for what
the text may not contain, and the back end's own locks for the tables (`backends/postgresql/oracle.py`).

The read set of a text has tables and columns, never conditions: a fragment such as `x = 1 OR y = 2` stands in a WHERE
without parentheses, so even what surrounds it restricts nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from sqlalchemy.engine import Connection

from reactive_rpc.dependencies.schema import Schema

__all__ = ["Oracle", "TextRead", "refused"]


@dataclass(frozen=True, slots=True)
class TextRead:
    """What one text reads.

    Attributes:
        tables: `{canonical name: columns}`; None for all columns.
        opaque: why that cannot be told, as a predicate of the procedure; None if it can.
    """

    tables: Mapping[str, frozenset[str] | None] = field(default_factory=dict)
    opaque: str | None = None


class Oracle(Protocol):
    """Tells what a text reads. Safe across threads; it may block, and remembers what it was asked."""

    def __call__(self, connection: Connection, statement: str, parameters: Any, schema: Schema, /) -> TextRead:
        """Return what `statement` is about to read on `connection`.

        Args:
            connection: on which the statement is about to run.
            statement: the text that the driver gets.
            parameters: what the driver gets with it.
            schema: what is captured.
        """
        ...


def refused(reason: str) -> TextRead:
    """Return the answer for a text that must not be cached."""
    return TextRead(opaque=reason)
