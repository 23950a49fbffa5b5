"""Decoding of outbox rows on SQLite, without a database."""

from __future__ import annotations

import pytest

from reactive_rpc.backends.sqlite.capture.images import SQLiteOutboxRow, balanced, decode_row, quoted
from reactive_rpc.changes.captured_schema import CaptureState, TableCapture
from reactive_rpc.dependencies.change import UNKNOWN, Change

TABLE = TableCapture(
    name="t",
    columns=("id", "body", "team_id"),
    image=("id", "team_id"),
    kinds={"id": "integer", "body": None, "team_id": "text"},
    key_columns=("id", "team_id"),
    foreign_keys=(("team_id", "team", "id"),),
    captured=True,
)
BULK = Change(table="t", operation="bulk")


def _decode(
    operation: str, before: bytes | None = None, after: bytes | None = None, changed: str | None = None
) -> Change:
    return decode_row(SQLiteOutboxRow(1, "t", operation, changed, before, after), {"t": TABLE})


def test_an_update_is_decoded() -> None:
    """An update has both images, the names of its changed columns, and the keys of both sides."""
    change = _decode("U", b'[1,"sred"]', b'[2,"ss"]', ",0,2")
    assert change == Change(
        table="t",
        operation="update",
        before={"id": 1, "team_id": "red"},
        after={"id": 2, "team_id": "s"},
        changed=frozenset({"id", "team_id"}),
        keys=frozenset({1, 2, "red", "s"}),
    )


def test_an_update_without_ordinals_may_have_changed_anything() -> None:
    """NULL in place of ordinals means all columns."""
    assert _decode("U", b'[1,"sred"]', b'[1,"sred"]').changed is None


def test_values_keep_their_types() -> None:
    """Integers stay exact, reals and infinities are floats, what was not captured is UNKNOWN, also among the keys."""
    change = _decode("I", after=b'[9223372036854775807,"r-Inf"]')
    assert change.after == {"id": 2**63 - 1, "team_id": float("-inf")}
    unknown = _decode("D", before=b'[null,"u"]')
    assert unknown.before == {"id": None, "team_id": UNKNOWN}
    assert unknown.keys == frozenset({UNKNOWN})


@pytest.mark.parametrize(
    ("operation", "before", "after", "changed"),
    [
        ("B", None, None, None),
        ("X", None, None, None),
        ("I", None, None, None),
        ("I", b"[1,null]", b"[1,null]", None),
        ("U", b"[1,null]", None, ",0"),
        ("D", b"[1]", None, None),
        ("D", b"[1,true]", None, None),
        ("D", b'[1,"x"]', None, None),
        ("D", b'[1,"rx"]', None, None),
        ("D", b"[1,", None, None),
        ("D", b'[1,"s\xff"]', None, None),
        ("D", b"1", None, None),
        ("U", b"[1,null]", b"[2,null]", ",7"),
        ("U", b"[1,null]", b"[2,null]", ",-1"),
        ("U", b"[1,null]", b"[2,null]", ",x"),
    ],
)
def test_what_cannot_be_read_is_bulk(
    operation: str, before: bytes | None, after: bytes | None, changed: str | None
) -> None:
    """A row that is no valid image counts as a change of its whole table."""
    assert _decode(operation, before, after, changed) == BULK


def test_a_table_nobody_knows_is_bulk() -> None:
    """A row of a table that is not in the state counts as a change of that whole table."""
    assert decode_row(SQLiteOutboxRow(1, "t", "D", None, b"[1,null]", None), {}) == BULK


def test_wide_images_are_nested() -> None:
    """Above 100 columns an image comes in chunks."""
    names = tuple(f"c{n}" for n in range(101))
    wide = TableCapture(name="w", columns=names, image=names, kinds={}, key_columns=(), foreign_keys=(), captured=True)
    image = str([list(range(100)), [100]]).encode()
    change = decode_row(SQLiteOutboxRow(1, "w", "I", None, None, image), {"w": wide})
    assert change.after == {name: n for n, name in enumerate(names)}


def test_expressions_stay_shallow() -> None:
    """A thousand terms nest ten deep."""
    text = balanced([quoted(str(n)) for n in range(1000)], "OR")
    depth = max(text[:end].count("(") - text[:end].count(")") for end in range(0, len(text), 7))
    assert depth <= 10


def test_a_state_answers_for_captured_tables_only() -> None:
    """A table that is not captured has no kinds, whatever is known of its columns."""
    blind = TableCapture(
        name="t", columns=("a",), image=("a",), kinds={"a": "text"}, key_columns=(), foreign_keys=(), captured=False
    )
    state = CaptureState(epoch="e", schema_fingerprint=1, tables={"t": blind, "u": TABLE})
    assert (state.captured("t"), state.kind("t", "a")) == (False, None)
    assert (state.captured("u"), state.kind("u", "team_id")) == (True, "text")
