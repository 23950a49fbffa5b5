r"""The inputs of a batch: `{"0": {...}, "2": {...}}`, cut into the texts of its values without decoding them.

Each value stays as it was spelled (a long number keeps its digits), and is decoded by the codec of its procedure, like
an input of `/rpc`.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final, NoReturn

from reactive_rpc.errors import BadRequestError

__all__ = ["split_inputs"]

_SPACE: Final = re.compile(r"[ \t\n\r]*")
_INDEX: Final = re.compile(r"0|[1-9][0-9]{0,8}")


def _refuse(text: str) -> NoReturn:
    raise ValueError(f"{text} is no JSON")


_DECODER: Final = json.JSONDecoder(parse_constant=_refuse, parse_float=len, parse_int=len)
"""Finds the ends of values, and makes no numbers of digits: one of a million digits costs nothing."""


def split_inputs(body: bytes) -> dict[int, bytes]:
    """Return `{index: JSON}`; of a name that is given twice the last counts, and one that is no index says nothing.

    >>> split_inputs(b'{"0": {"id": 1.10}, "2": null}')
    {0: b'{"id": 1.10}', 2: b'null'}

    Raises:
        BadRequestError: it is no JSON, or no object.
    """
    if not body:
        return {}
    try:
        found = _members(body.decode())
    except (ValueError, RecursionError) as exc:  # of JSON, and of UTF-8
        raise BadRequestError("the inputs of the batch are no JSON, or are nested too deeply") from exc
    if found is None:
        raise BadRequestError('"input" needs to be an object when doing a batch call')
    return {int(name): value.encode() for name, value in found.items() if _INDEX.fullmatch(name)}


def _members(text: str) -> dict[str, str] | None:
    """Return `{name: text of its value}` of an object; None of any other JSON."""
    at = _after_space(text, 0)
    if text[at : at + 1] != "{":
        _DECODER.decode(text)
        return None
    found: dict[str, str] = {}
    at = _after_space(text, at + 1)
    is_open = text[at : at + 1] != "}"
    while is_open:
        name, at = _value(text, at)
        if not isinstance(name, str):
            raise ValueError("a name is a text")
        start = _after_space(text, _past(text, ":", at))
        _, at = _value(text, start)
        found[name] = text[start:at]
        at = _after_space(text, at)
        is_open = text[at : at + 1] != "}"
        if is_open:
            at = _after_space(text, _past(text, ",", at))
    if _after_space(text, at + 1) != len(text):
        raise ValueError("there is more behind the object")
    return found


def _value(text: str, at: int) -> tuple[Any, int]:
    return _DECODER.raw_decode(text, at)


def _past(text: str, mark: str, at: int) -> int:
    at = _after_space(text, at)
    if text[at : at + 1] != mark:
        raise ValueError(f"{mark!r} is missing")
    return at + 1


def _after_space(text: str, at: int) -> int:
    space = _SPACE.match(text, at)
    return at if space is None else space.end()
