"""What a client is told of each call beside its result, and what it says of each: headers cannot, as a batch has one
set of them for all its calls.

A request with the header `reactive: 1` gets each result as `{"d": data, "etag", "version", ...}`, and an error with the
same in its `data.reactive`. Further headers speak of single calls, by their index in the batch:

    reactive-etags: {"0": etag}    results that the client has: of one that is the same the data is left out
    reactive-keys: {"1": key}      idempotency keys
    reactive-exact: 0,2            results that it wants as text of JSON if JavaScript would round their numbers
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from pydantic_core import to_json
from starlette.types import Scope

from reactive_rpc.errors import BadRequestError
from reactive_rpc.protocol.headers import CURSOR, IDEMPOTENCY_KEY, SCOPE, STALE, VERSION
from reactive_rpc.web.routing.responses import Headers
from reactive_rpc.web.trpc.requests import header_of

__all__ = ["ETAGS", "REACTIVE", "ResultMarks", "marks_in", "with_key"]

REACTIVE: Final = b"reactive"
ETAGS: Final = b"reactive-etags"
KEYS: Final = b"reactive-keys"
EXACT: Final = b"reactive-exact"

_ETAG, _CURSOR, _SCOPE = b"etag", CURSOR.encode(), SCOPE.encode()
_STALE, _VERSION, _RETRY_AFTER = STALE.encode(), VERSION.encode(), b"retry-after"
_LONG: Final = re.compile(rb"[0-9]{16}")


@dataclass(frozen=True, slots=True)
class ResultMarks:
    """How much a client is told of one call.

    Attributes:
        is_asked_for: whether it asked, by the header `reactive: 1`.
        held: the ETag of the result that it has; None if it has none.
        is_exact: whether data with long numbers are to be a text, so that no link parses them: JavaScript rounds them.
    """

    is_asked_for: bool = False
    held: str | None = None
    is_exact: bool = False

    def of(self, data: bytes, headers: Headers, *, is_transformed: bool) -> tuple[bytes, bytes]:
        """Return the data of a result, nothing if the client has it, and the marks, as members of an object of JSON.

        Args:
            is_transformed: whether the client's transformer makes values of the data.
        """
        said = dict(headers)
        etag = said.get(_ETAG)
        is_held = etag is not None and self.held == etag.decode("latin-1")
        # Of a mutation, which has no ETag, the cursor shows what it wrote.
        marks = _marks(said, version=said.get(_VERSION, b"" if etag else said.get(_CURSOR, b"")))
        if is_held:
            marks["same"] = True
        if is_transformed:
            marks["transformed"] = True
        is_text = self.is_exact and not is_held and not is_transformed and _LONG.search(data) is not None
        if is_text:
            marks["text"] = True
        return b"" if is_held else to_json(data.decode()) if is_text else data, to_json(marks)[1:-1]

    def of_error(self, headers: Headers) -> Mapping[str, Any] | None:
        """Return the marks of an error; with an ETag it is an outcome that lasts until the data changes."""
        if not self.is_asked_for:
            return None
        said = dict(headers)
        marks = _marks(said, version=said.get(_VERSION, b""))
        if _RETRY_AFTER in said:
            marks["retry_after"] = said[_RETRY_AFTER].decode("latin-1")
        return marks or None


@dataclass(frozen=True, slots=True)
class RequestMarks:
    """What a request says of its calls."""

    is_asked_for: bool = False
    etags: Mapping[str, str] = field(default_factory=dict)
    keys: Mapping[str, str] = field(default_factory=dict)
    exact: frozenset[str] = frozenset()

    def of(self, index: int) -> ResultMarks:
        """Return what it says of one call."""
        name = str(index)
        return ResultMarks(self.is_asked_for, self.etags.get(name), name in self.exact)

    def keys_of(self, calls: int) -> list[tuple[int, str]]:
        """Return the idempotency keys of the first so many calls, with their indexes."""
        return [(index, self.keys[str(index)]) for index in range(calls) if str(index) in self.keys]


_NONE: Final = RequestMarks()


def marks_in(scope: Scope) -> RequestMarks:
    """Return what a request says of its calls.

    Raises:
        BadRequestError: one of the headers is spelled wrongly.
    """
    if header_of(scope, REACTIVE) != "1":
        return _NONE
    exact = header_of(scope, EXACT) or ""
    return RequestMarks(True, _texts(scope, ETAGS), _texts(scope, KEYS), frozenset(exact.split(",")))


def with_key(scope: Scope, key: str) -> Scope:
    """Return the scope of one call, with its idempotency key as if it had come alone.

    Raises:
        BadRequestError: the request gives one by the header of that name, too.
    """
    name = IDEMPOTENCY_KEY.encode()
    if header_of(scope, name) is not None:
        raise BadRequestError(f"{IDEMPOTENCY_KEY} and {KEYS.decode()} both give a key")
    return {**scope, "headers": [*scope["headers"], (name, key.encode("latin-1", "replace"))]}


def _marks(said: Mapping[bytes, bytes], *, version: bytes) -> dict[str, Any]:
    found = {"etag": said.get(_ETAG), "version": version, "scope": said.get(_SCOPE)}
    marks: dict[str, Any] = {name: value.decode("latin-1") for name, value in found.items() if value}
    if _STALE in said:
        marks["stale"] = True
    return marks


def _texts(scope: Scope, name: bytes) -> Mapping[str, str]:
    text = header_of(scope, name)
    if text is None:
        return {}
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or not all(isinstance(each, str) for each in found.values()):
        raise BadRequestError(f'{name.decode()} is no object of texts: send {{"0": text}}, by the index of the call')
    return found
