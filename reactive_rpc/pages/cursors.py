"""Cursors: the values of a row's key, opaque.

A cursor is JSON, `[the list's key, value, ...]`, in base64url. Its values are those that the row had, so it is right
also if that row is deleted. Nothing is signed: its values are in the row that the caller has been shown, and whoever
makes up others asks for another place among the rows that the statement lets him see anyway.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import Any

from reactive_rpc.protocol.pages import MAX_CURSOR_CHARACTERS

__all__ = ["Scalar", "decode_cursor", "encode_cursor"]

Scalar = str | int | float | bool
"""How one value of a key stands in a cursor."""


def encode_cursor(name: str, values: Sequence[Scalar]) -> str:
    """Return the cursor of a key.

    Args:
        name: of the list's key, see `Key.name`.
        values: one for each column.

    >>> decode_cursor(encode_cursor("k", ["a", 1]), "k", 2)
    ['a', 1]
    """
    spelled = json.dumps([name, *values], separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return base64.urlsafe_b64encode(spelled.encode()).rstrip(b"=").decode("ascii")


def decode_cursor(cursor: str, name: str, count: int) -> list[Any]:
    """Return the `count` values of a cursor; of which types they are is not checked.

    Raises:
        ValueError: it is none, or that of a list with another key.

    >>> decode_cursor("bm9uc2Vuc2U", "k", 2)
    Traceback (most recent call last):
    ValueError: it is no cursor
    """
    if len(cursor) > MAX_CURSOR_CHARACTERS:
        raise ValueError(f"it has more than {MAX_CURSOR_CHARACTERS} characters")
    try:
        spelled = base64.b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        found = json.loads(spelled.decode("utf-8"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as exc:  # a list in a list in a list, a thousand times
        raise ValueError("it is no cursor") from exc
    if not isinstance(found, list) or not found or not isinstance(found[0], str):
        raise ValueError("it is no cursor")
    if found[0] != name or len(found) != count + 1:
        raise ValueError("it is the cursor of another list")
    return found[1:]


def _refuse_constant(spelled: str) -> Any:
    """Refuse NaN and the infinities, which Python's reader takes for numbers."""
    raise ValueError(f"{spelled} is no JSON")
