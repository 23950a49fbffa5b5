"""The net effect of a batch: a row that was inserted and deleted, or changed and changed back, is as it was.

A live result is right at the version before a batch and is asked about at the one after it, so of each row only its
image before the first change and the one after the last matter. Changes that are held against anything else, such as a
result whose snapshot may lie inside the batch, are not summed up. `docs/internals/dependencies.md` argues both.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

from reactive_rpc.dependencies.change import UNKNOWN, Change, Image, Unknown
from reactive_rpc.dependencies.schema import Schema

__all__ = ["net_changes"]


def net_changes(changes: Sequence[Change], schema: Schema) -> Sequence[Change]:
    """Return changes with the same effect, each row's in one as far as it is known which are of one row.

    Args:
        changes: in commit order.
    """
    tables: defaultdict[str, list[Change]] = defaultdict(list)
    for change in changes:
        tables[change.table].append(change)
    return [net for table, found in tables.items() for net in _of_table(table, found, schema)]


def _of_table(table: str, changes: Sequence[Change], schema: Schema) -> Sequence[Change]:
    key = schema.primary_key(table) if len(changes) > 1 else ()
    rows: defaultdict[str, list[Change]] = defaultdict(list)
    for change in changes:
        found = _key_of(change, key)
        if found is None:
            return changes
        rows[found].append(change)
    if len(rows) == len(changes):
        return changes
    columns = schema.columns(table)
    return [net for each in rows.values() for net in _of_row(each, columns)]


def _key_of(change: Change, columns: Sequence[str]) -> str | None:
    """Return the row's primary key, the same before and after; None if that is not known."""
    # INVARIANT (one key is one row): a row that gets another's key is another row in the columns that no image holds.
    found = {_spelled_key(image, columns) for image in (change.before, change.after) if image is not None}
    return found.pop() if columns and len(found) == 1 else None


def _spelled_key(image: Image, columns: Sequence[str]) -> str | None:
    values = [image.get(column, UNKNOWN) for column in columns]
    return None if any(value is None or isinstance(value, Unknown) for value in values) else repr(values)


def _of_row(changes: Sequence[Change], columns: frozenset[str]) -> Iterator[Change]:
    """Yield the net change of a row, if any, or its changes, if one does not take up what the former left."""
    if len(changes) == 1 or not _is_chain(changes):
        yield from changes
        return
    before, after = changes[0].before, changes[-1].after
    keys = frozenset().union(*(change.keys for change in changes))
    if before is None or after is None:
        if before is not after:
            net = replace(changes[0], before=before, after=after, changed=None, keys=keys)
            yield replace(net, operation="delete" if after is None else "insert")
        return
    # INVARIANT (only what both images hold, alike to the last digit, is as it was): any other column that was written
    # counts as changed.
    written = _written(changes) or columns
    changed = frozenset(column for column in written if not _is_same(before, after, column))
    if changed or not written:
        seen = changed if written else None
        yield replace(changes[0], operation="update", before=before, after=after, changed=seen, keys=keys)


def _written(changes: Sequence[Change]) -> frozenset[str] | None:
    """Return the columns that some changes of a row write; None for all."""
    written: frozenset[str] = frozenset()
    for change in changes:
        if change.changed is None:
            return None
        written |= change.changed
    return written


def _is_chain(changes: Sequence[Change]) -> bool:
    """Tell whether each change begins with the image that the former one left, as far as that is known."""
    # INVARIANT (told as it was): SQLite's REPLACE tells of rows that it may have deleted, and of some it has not. What
    # such a row is written next does not begin with a row that is gone.
    linked = all(_is_alike(former.after, change.before) for former, change in pairwise(changes))
    return linked and not any(map(_is_inexact, changes))


def _is_alike(left: Image | None, right: Image | None) -> bool:
    if left is None or right is None:
        return left is right
    return left.keys() == right.keys() and all(
        _is_same(left, right, column) for column, value in left.items() if not isinstance(value, Unknown)
    )


def _is_inexact(change: Change) -> bool:
    """Tell whether a column was written whose images do not show it."""
    before, after = change.before, change.after
    if before is None or after is None:
        return False
    return any(_is_same(before, after, column) for column in change.changed or ())


def _is_same(one: Image, other: Image, column: str) -> bool:
    """Tell whether two images surely hold the same value of a column, and not only one that compares equal."""
    left, right = one.get(column, UNKNOWN), other.get(column, UNKNOWN)
    # 1, 1.0 and Decimal("1.0") compare equal, and so do 0.0 and -0.0.
    return not isinstance(left, Unknown) and not isinstance(right, Unknown) and repr(left) == repr(right)
