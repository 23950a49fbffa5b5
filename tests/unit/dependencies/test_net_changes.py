"""The net effect of a batch: what is written and undone is no change, and what is not known stays one."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reactive_rpc.changes.captured_schema import CaptureState, TableCapture
from reactive_rpc.dependencies.change import UNKNOWN, Change
from reactive_rpc.dependencies.net_changes import net_changes

COLUMNS = ("id", "n", "text")


def _captured(name: str, primary_key: tuple[str, ...]) -> TableCapture:
    kinds: Any = dict.fromkeys(COLUMNS, "integer")
    return TableCapture(
        name=name,
        columns=COLUMNS,
        image=COLUMNS,
        kinds=kinds,
        key_columns=("id",),
        primary_key=primary_key,
        foreign_keys=(),
        captured=True,
    )


SCHEMA = CaptureState(
    epoch="e", schema_fingerprint=1, tables={"t": _captured("t", ("id",)), "keyless": _captured("keyless", ())}
)


def row(id: int, n: Any = 0, text: Any = UNKNOWN) -> dict[str, Any]:
    return {"id": id, "n": n, "text": text}


def insert(after: Any, table: str = "t") -> Change:
    return Change(table=table, operation="insert", after=after, keys=frozenset({after["id"]}))


def delete(before: Any, table: str = "t") -> Change:
    return Change(table=table, operation="delete", before=before, keys=frozenset({before["id"]}))


def update(before: Any, after: Any, *changed: str) -> Change:
    keys = frozenset({before["id"], after["id"]})
    return Change(table="t", operation="update", before=before, after=after, changed=frozenset(changed), keys=keys)


def test_what_is_undone_is_no_change() -> None:
    """Inserted and deleted, or changed and changed back, with other rows' changes in between."""
    other = insert(row(2))
    assert list(net_changes([insert(row(1)), other, delete(row(1))], SCHEMA)) == [other]
    assert list(net_changes([update(row(1), row(1, 5), "n"), other, update(row(1, 5), row(1), "n")], SCHEMA)) == [other]


def test_a_row_is_written_once() -> None:
    """From its first image to its last, in the columns that differ in the end."""
    found = net_changes([update(row(1), row(1, 5), "n"), update(row(1, 5), row(1, 7), "n", "text")], SCHEMA)
    assert list(found) == [update(row(1), row(1, 7), "n", "text")]
    assert list(net_changes([insert(row(1)), update(row(1), row(1, 5), "n")], SCHEMA)) == [insert(row(1, 5))]
    assert list(net_changes([update(row(1), row(1, 5), "n"), delete(row(1, 5))], SCHEMA)) == [delete(row(1))]


def test_a_row_that_is_replaced_is_updated() -> None:
    """In the columns that differ, and in those that no image tells."""
    assert list(net_changes([delete(row(1, 1, 2)), insert(row(1, 5, 2))], SCHEMA)) == [
        update(row(1, 1, 2), row(1, 5, 2), "n")
    ]
    assert list(net_changes([delete(row(1)), insert(row(1))], SCHEMA)) == [update(row(1), row(1), "text")]
    assert list(net_changes([delete(row(1, 1, 2)), insert(row(1, 1, 2))], SCHEMA)) == []


@pytest.mark.parametrize(
    "changes",
    [
        [insert(row(1), "keyless"), delete(row(1), "keyless")],
        [insert(row(1)), Change(table="t", operation="bulk"), delete(row(1))],
        [insert({"id": UNKNOWN}), delete({"id": UNKNOWN})],
        [update(row(1), row(2), "id"), update(row(2), row(1), "id")],
        [delete(row(1)), update(row(1), row(1, 5), "n"), update(row(1, 5), row(1), "n")],
        [update(row(1), row(1, 5), "n"), update(row(1, 6), row(1), "n")],
        [update(row(1), row(1, 5), "n"), update(row(1, UNKNOWN), row(1), "n")],
        [update(row(1, 1), row(1, 1), "n"), update(row(1, 1), row(1, 1), "n")],
        [update(row(1), row(1, 0, 5), "text"), delete(row(1, 0, 6))],
    ],
)
def test_what_is_not_sure_stays(changes: list[Change]) -> None:
    """Without a key, with a key that moves, with images that do not fit or do not show what was written."""
    assert list(net_changes(changes, SCHEMA)) == changes


@pytest.mark.parametrize("value", [1.0, Decimal("1.0"), True, UNKNOWN])
def test_a_value_that_compares_equal_is_another_one(value: Any) -> None:
    """1 becomes 1.0: a page shows the difference."""
    changes = [update(row(1, 1), row(1, 5), "n"), update(row(1, 5), row(1, value), "n")]
    assert list(net_changes(changes, SCHEMA)) == [update(row(1, 1), row(1, value), "n")]


WRITES = st.lists(st.tuples(st.integers(1, 3), st.none() | st.integers(0, 2)), min_size=1, max_size=8)


@given(WRITES, WRITES)
def test_the_net_effect_leads_to_the_same_rows(begun: list[tuple[int, Any]], writes: list[tuple[int, Any]]) -> None:
    """Each row is written once at most, from what it was to what it is, and not at all if that is the same."""
    start = dict(begun)
    rows = dict(start)
    changes: list[Change] = []
    for id, n in writes:
        old, new = (None if each is None else row(id, each, 0) for each in (rows.get(id), n))
        if old is None and new is not None:
            changes.append(insert(new))
        elif old is not None and new is None:
            changes.append(delete(old))
        elif old is not None and new is not None and old != new:
            changes.append(update(old, new, "n"))
        rows[id] = n
    expected = {id for id in rows if rows[id] != start.get(id)}
    found = net_changes(changes, SCHEMA)
    assert len(found) == len(expected)
    assert {frozenset(change.keys) for change in found} == {frozenset({id}) for id in expected}
    for change in found:
        images = [None if each is None else each["n"] for each in (change.before, change.after)]
        assert images in [[start.get(id), rows[id]] for id in rows if id in change.keys]
