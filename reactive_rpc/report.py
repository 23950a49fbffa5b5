"""What stands on a database, for `reactive-rpc doctor`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from reactive_rpc.changes.captured_schema import TableCapture
from reactive_rpc.procedures.procedure import AnyProcedure
from reactive_rpc.procedures.undeclared_reads import UndeclaredRead

__all__ = ["Report"]


@dataclass(frozen=True, slots=True)
class Report:
    """What stands.

    Attributes:
        database: the file, or the URL without a password.
        guarantee: what capture sees of whose writes.
        epoch: of its log.
        tables: `{table: how it is captured}`.
        procedures: `{path: procedure}`.
        copies: where values are copied and how long they stay; empty where they are nowhere.
        read: the tables of which values are copied now, as somebody reads them.
        undeclared_reads: the dependencies that take the request, and are solved on every call.
    """

    database: str
    guarantee: str
    epoch: str
    tables: Mapping[str, TableCapture]
    procedures: Mapping[str, AnyProcedure]
    copies: Mapping[str, float]
    read: frozenset[str]
    undeclared_reads: Sequence[UndeclaredRead]
