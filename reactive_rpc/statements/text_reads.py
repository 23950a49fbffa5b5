"""The reads of a text: the contract between the recorder and a database's oracle.

Design note. SQLAlchemy hands text (`text()`, `exec_driver_sql`, `literal_column`, a construct of the application's own)
on unread, so nothing is known until the whole text is rendered. Then somebody who knows the database's grammar is
asked: on SQLite, SQLite itself (`backends/sqlite/oracle.py`); on PostgreSQL, a parser for the words that the text may
not contain, and the back end's own locks for the tables (`backends/postgresql/oracle.py`).

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
    """The reads of one text.

    Attributes:
        tables: `{canonical name: columns}`; None for all columns.
        opaque: why the reads cannot be determined, as a predicate of the procedure; None if they can.
    """

    tables: Mapping[str, frozenset[str] | None] = field(default_factory=dict)
    opaque: str | None = None


class Oracle(Protocol):
    """Tells the reads of a text. Safe across threads; it may block, and remembers its answers."""

    def __call__(self, connection: Connection, statement: str, parameters: Any, schema: Schema, /) -> TextRead:
        """Return the reads of `statement`, which is about to run on `connection`.

        Args:
            connection: on which the statement is about to run.
            statement: the text that the driver gets.
            parameters: those that the driver gets with it.
            schema: the captured tables.
        """
        ...


def refused(reason: str) -> TextRead:
    """Return the answer for a text that must not be cached."""
    return TextRead(opaque=reason)
