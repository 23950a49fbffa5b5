"""Values that a handler yields one by one: those of subscriptions may have ids, by which a client resumes."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar, get_args, get_origin

from reactive_rpc.errors import DefinitionError
from reactive_rpc.procedures.annotations import plain

__all__ = ["StreamedItem", "Tracked", "item_of", "tracked", "yields"]

R = TypeVar("R")
D_co = TypeVar("D_co", covariant=True)

_ITERATORS: Final = (AsyncIterator, AsyncGenerator, AsyncIterable)
_ID: Final = re.compile(r"[!-~]([ -~]*[!-~])?")


@dataclass(frozen=True, slots=True)
class Tracked(Generic[D_co]):
    """A value that a subscription yields, with its id; `tracked(id, data)` makes one.

    Attributes:
        id: a client that comes back sends the last that it received, as `last_event_id`.
        data: the value.
    """

    id: str
    data: D_co


def tracked(id: str, data: R) -> Tracked[R]:
    """Give a value that a subscription yields an id, by which a client that comes back resumes.

    >>> tracked("message-7", {"text": "hello"}).id
    'message-7'

    Args:
        id: printable ASCII, without spaces at its ends: it comes back in an HTTP header.
        data: the value.

    Raises:
        DefinitionError: the id is none that comes back as it was.
    """
    if not isinstance(id, str) or not _ID.fullmatch(id):
        raise DefinitionError(
            f"tracked({id!r}, ...): an id is a str of printable ASCII, without spaces at its ends, as it comes back in "
            "an HTTP header: give the row's key as a text"
        )
    return Tracked(id, data)


@dataclass(frozen=True, slots=True)
class StreamedItem:
    """One value, encoded.

    Attributes:
        body: JSON.
        id: None if it has none.
    """

    body: bytes
    id: str | None = None


def yields(annotation: Any) -> bool:
    """Tell whether the annotation of a result says that there are several, one after another.

    >>> yields(AsyncIterator[int]), yields(list[int])
    (True, False)
    """
    kind = plain(annotation)
    return kind in _ITERATORS or get_origin(kind) in _ITERATORS


def item_of(annotation: Any) -> tuple[Any, bool] | None:
    """Return the annotation of one value, and whether values have ids; None if it does not say.

    >>> item_of(AsyncIterator[Tracked[int]]), item_of(AsyncIterator[int]), item_of(AsyncIterator)
    ((<class 'int'>, True), (<class 'int'>, False), None)
    """
    arguments = get_args(plain(annotation))
    if not arguments:
        return None
    item = arguments[0]
    if get_origin(plain(item)) is Tracked:
        return get_args(plain(item))[0], True
    return None if plain(item) is Tracked else (item, False)
