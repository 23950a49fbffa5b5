"""A ground truth for capture: what truly changed, by a diff of whole tables, against what the outbox tells."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

from reactive_rpc.changes.captured_schema import CaptureState, TableCapture
from reactive_rpc.dependencies.change import Change

__all__ = ["CapturedWorld", "check"]

Rows = TypeVar("Rows")


class CapturedWorld(Protocol[Rows]):
    """A database under capture."""

    state: CaptureState

    def changes(self) -> list[Change]:
        """Return what the outbox has gained since the last call."""
        ...

    def snapshot(self) -> dict[str, Rows]:
        """Return `{table: rows}` of every captured table."""
        ...


CheckTable = Callable[[TableCapture, Rows, Rows, list[Change]], None]
"""Check that what was told of a table is what became of its rows; gets `(table, before, after, told)`."""


def check(world: CapturedWorld[Rows], write: Callable[[], object], check_table: CheckTable[Rows]) -> list[Change]:
    """Run `write`, check that every row it truly changed is told rightly, and return the changes."""
    before = world.snapshot()
    write()
    changes = world.changes()
    after = world.snapshot()
    for name, table in world.state.tables.items():
        of_table = [change for change in changes if change.table == name]
        if table.captured and not any(change.operation == "bulk" for change in of_table):
            check_table(table, before[name], after[name], of_table)
    return changes
