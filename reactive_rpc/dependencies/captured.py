"""A change as a predicate may see it: known values only, and an error if it asks for anything else.

`invalidate_when` may only narrow. A predicate that compares a value which was not captured, or a key of a type that is
stored in another form, would quietly answer "does not matter", and the result would stay stale. So asking for what is
not known raises, and a predicate that raises narrows nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Set
from typing import Any

from reactive_rpc.dependencies.change import UNKNOWN, Unknown
from reactive_rpc.errors import ReactiveRPCError

__all__ = ["CapturedKeys", "CapturedRow", "UnknownValueError"]


class UnknownValueError(ReactiveRPCError):
    """A predicate asked for a value that was not captured; the change counts."""

    code = "UNKNOWN_VALUE"


class CapturedRow(Mapping[str, Any]):
    """A row's captured values, to be asked for by name; one that was not captured raises, also by `get` and `in`.

    >>> image = CapturedRow({"id": 1, "body": UNKNOWN})
    >>> image["id"]
    1
    >>> image.get("body")
    Traceback (most recent call last):
    reactive_rpc.dependencies.captured.UnknownValueError: the value of 'body' was not captured
    """

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values

    def __repr__(self) -> str:
        return f"CapturedRow({dict(self._values)!r})"

    def __getitem__(self, column: str) -> Any:
        value = self._values.get(column, UNKNOWN)
        if isinstance(value, Unknown):
            raise UnknownValueError(f"the value of {column!r} was not captured")
        return value

    def __iter__(self) -> Iterator[str]:
        raise UnknownValueError("an image may lack columns: ask for each by name")

    def __len__(self) -> int:
        raise UnknownValueError("an image may lack columns: ask for each by name")


class CapturedKeys(Set[Any]):
    """A row's key values, before and after; `in` answers False only if that is sure.

    >>> "a1" in CapturedKeys({"a1", "org-1"}), "a2" in CapturedKeys({"a1", "org-1"})
    (True, False)
    >>> 5 in CapturedKeys({"a1"})
    Traceback (most recent call last):
    reactive_rpc.dependencies.captured.UnknownValueError: no key is of the type of 5: they are str
    """

    def __init__(self, values: Iterable[Any]) -> None:
        self._values = frozenset(values)

    def __repr__(self) -> str:
        return f"CapturedKeys({set(self._values)!r})"

    @classmethod
    def _from_iterable(cls, it: Iterable[Any]) -> frozenset[Any]:  # what `&` and `|` make
        return frozenset(it)

    def __contains__(self, value: object) -> bool:
        if value in self._values:
            return True
        self._require_known()
        if value is not None and not any(_alike(key, value) for key in self._values):
            kinds = ", ".join(sorted({type(key).__name__ for key in self._values})) or "none"
            raise UnknownValueError(f"no key is of the type of {value!r}: they are {kinds}")
        return False

    def __iter__(self) -> Iterator[Any]:
        self._require_known()
        return iter(self._values)

    def __len__(self) -> int:
        self._require_known()
        return len(self._values)

    def _require_known(self) -> None:
        if UNKNOWN in self._values:
            raise UnknownValueError("a key of the row was not captured")


def _alike(key: object, value: object) -> bool:
    numbers = (int, float)
    return isinstance(value, type(key)) or (isinstance(key, numbers) and isinstance(value, numbers))
