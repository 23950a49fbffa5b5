"""What two read sets of one query compare with different values, though nothing was written between them."""

from __future__ import annotations

from reactive_rpc.reactive.read_set import Condition, ReadSet

__all__ = ["moved_columns"]


def moved_columns(one: ReadSet, other: ReadSet) -> tuple[str, ...]:
    """Return `table.column` of each condition that only one of two read sets has.

    >>> from reactive_rpc.reactive.read_set import Between, Constraint
    >>> after = [Constraint("note", conditions={"at": Between(low, False, None, False)}) for low in (1.0, 2.0)]
    >>> moved_columns(ReadSet((after[0],)), ReadSet((after[1],)))
    ('note.at',)
    >>> moved_columns(ReadSet((after[0],)), ReadSet((after[0],)))
    ()
    """
    return tuple(sorted({f"{table}.{column}" for table, column, _ in _conditions(one) ^ _conditions(other)}))


def _conditions(read_set: ReadSet) -> set[tuple[str, str, Condition]]:
    return {
        (constraint.table, column, condition)
        for constraint in read_set.constraints
        for column, condition in constraint.conditions.items()
    }
