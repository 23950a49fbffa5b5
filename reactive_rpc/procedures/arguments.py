"""The arguments of a path operation: compared for the key, and given to the endpoint as they were compared.

A row of a mapped class counts by its primary key and the columns that are loaded. The endpoint gets a copy of it, in
the session that is watched: whatever the copy lacks is loaded there, and counts as read (docs/internals/endpoints.md).
"""

from __future__ import annotations

import collections.abc
import dataclasses
import types
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, SecretBytes, SecretStr
from sqlalchemy import inspect
from sqlalchemy.orm import Session, make_transient_to_detached
from sqlalchemy.orm.attributes import set_committed_value

from reactive_rpc.cache.weight import weight_of
from reactive_rpc.compat.fastapi import request_class_in
from reactive_rpc.procedures.annotations import plain
from reactive_rpc.procedures.canonical import SPELLED, canonical

__all__ = ["Arguments", "comparison_fault"]


@dataclass(frozen=True, slots=True, eq=False)
class CopiedRow:
    """A row of a mapped class as it was when it was compared.

    Attributes:
        kind: its class.
        columns: `(attribute, value)` of the columns that were loaded, and of the primary key.
        is_stored: whether the database has it.
    """

    kind: type
    columns: tuple[tuple[str, Any], ...]
    is_stored: bool

    @classmethod
    def of(cls, row: object) -> CopiedRow:
        """Return the copy of a row.

        Raises:
            TypeError: it has something beside its columns and relationships, which a copy would not have.
        """
        state = inspect(row)
        mapper, loaded = state.mapper, state.dict
        # INVARIANT (nothing is left out in silence): what a dependency has noted on the row may be a restriction.
        beside = sorted(loaded.keys() - mapper.attrs.keys() - {"_sa_instance_state"})
        if beside:
            raise TypeError(
                f"a {type(row).__name__} with the attribute {beside[0]!r}, which is no column of it, cannot be compared"
            )
        columns = {each.key: deepcopy(loaded[each.key]) for each in mapper.column_attrs if each.key in loaded}
        if state.identity is not None:
            # INVARIANT (the primary key is always compared): after a commit every column is expired, and two callers
            # would look the same.
            columns |= {
                mapper.get_property_by_column(column).key: value
                for column, value in zip(mapper.primary_key, state.identity, strict=True)
            }
        return cls(type(row), tuple(sorted(columns.items())), state.identity is not None)

    @property
    def compared(self) -> tuple[str, str, bool, tuple[tuple[str, Any], ...]]:
        """All that must be equal for a handler to see the same."""
        return (self.kind.__module__, self.kind.__qualname__, self.is_stored, self.columns)

    def given_to(self, session: Session) -> Any:
        """Return a new row, which belongs to a session: what it lacks is loaded by that."""
        row: Any = inspect(self.kind).class_manager.new_instance()
        for name, value in self.columns:
            set_committed_value(row, name, deepcopy(value))
        if not self.is_stored:
            return row
        make_transient_to_detached(row)
        known = session.identity_map.get(inspect(row).key)
        if known is not None:
            return known if CopiedRow.of(known).columns == self.columns else row
        session.add(row)
        return row


class Arguments:
    """The arguments of one call, but for sessions. Nobody can change them: each run gets copies.

    Args:
        values: by the names of the parameters.

    Attributes:
        compared: canonical bytes, equal only for arguments that an endpoint cannot tell apart.

    Raises:
        TypeError: one cannot be compared; the message names the parameter.
    """

    __slots__ = ("_held", "compared")

    def __init__(self, values: Mapping[str, Any]) -> None:
        # INVARIANT (taken in the step that compares them): a dependency may give the same list to every call, and
        # change it later.
        self._held = {name: _taken(name, value) for name, value in values.items()}
        self.compared = b",".join(_compared(name, value) for name, value in self._held.items())

    def __deepcopy__(self, memo: object) -> Arguments:
        return self

    @property
    def held_bytes(self) -> int:
        """Their size in memory."""
        return weight_of({name: _weighed(value) for name, value in self._held.items()}) + weight_of(self.compared)

    def given_to(self, session: Session) -> dict[str, Any]:
        """Return the arguments for one run, its rows in its session."""
        return {
            name: value.given_to(session) if isinstance(value, CopiedRow) else deepcopy(value)
            for name, value in self._held.items()
        }


def _taken(name: str, value: Any) -> Any:
    if hasattr(type(value), "__mapper__"):
        with _naming(name):
            return CopiedRow.of(value)
    if type(value) in (str, int, bool, float, type(None)):
        return value
    try:
        return deepcopy(value)
    except Exception:
        return value  # what cannot be copied cannot be compared either, and that says why


def _compared(name: str, value: Any) -> bytes:
    is_row = isinstance(value, CopiedRow)
    with _naming(name):
        spelled = canonical(value.compared if is_row else value)
    return b"%b:%d:%b:%b" % (name.encode(), len(spelled), b"row" if is_row else b"", spelled)


@contextmanager
def _naming(parameter: str) -> Iterator[None]:
    """Have a TypeError say which parameter it is about."""
    try:
        yield
    except TypeError as exc:
        raise TypeError(f"{parameter!r}: {exc}") from exc


def _weighed(value: Any) -> Any:
    return value.columns if isinstance(value, CopiedRow) else value


_VALUES: Final = (str, int, float, complex, bytes, Enum, type(None), SecretStr, SecretBytes, *SPELLED)
_CONTAINERS: Final = (
    list, tuple, set, frozenset, dict, collections.deque, collections.abc.Sequence, collections.abc.Mapping,
    collections.abc.Set, collections.abc.Iterable, collections.abc.Collection,
)  # fmt: skip


def comparison_fault(annotation: Any) -> str | None:
    """Return why values of an annotation cannot be compared, with the way out; None if they can, or nobody knows.

    >>> class Mailer: ...
    >>> comparison_fault(Mailer)
    'is a Mailer, which cannot be compared with that of another call: take the plain values that the endpoint needs'
    >>> comparison_fault(list[int] | None)
    """
    kind = plain(annotation)
    given = request_class_in(kind)
    if given is not None:
        return f"is a {given.__name__}, {_OF_THE_EXCHANGE.get(given.__name__, _OF_THE_REQUEST)}"
    options = get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)
    for option in options:
        if hasattr(plain(option), "__mapper__"):
            continue  # a row, which is compared by its columns
        for part in _incomparable(option, set()):
            if hasattr(part, "__mapper__"):
                return (
                    f"has a {part.__name__} inside, and rows are compared where they are arguments themselves: take "
                    "the row as a parameter of its own, or the plain values that the endpoint needs"
                )
            return (
                f"is a {part.__name__}, which cannot be compared with that of another call: take the plain values that "
                "the endpoint needs"
                if part is plain(option)
                else f"has a {part.__name__} inside, which cannot be compared with that of another call: take the "
                "plain values that the endpoint needs"
            )
    return None


_OF_THE_REQUEST: Final = (
    "and no key could hold all of that: declare what is needed of it (Annotated[str, Header()]), or read it in a "
    "dependency that returns plain values"
)
_OF_THE_EXCHANGE: Final = {
    "Response": "and a stored result is answered without running anything: set headers and cookies in a dependency",
    "BackgroundTasks": "and a stored result is answered without running anything: add tasks in a dependency",
}


def _incomparable(annotation: Any, above: set[Any]) -> Iterator[type]:
    """Yield the classes in an annotation whose instances cannot be compared."""
    kind = plain(annotation)
    kind = getattr(kind, "__supertype__", kind)  # a NewType
    origin = get_origin(kind)
    if kind in (Any, object, Ellipsis) or isinstance(kind, TypeVar | str) or origin is Literal:
        return
    if origin is not None:
        if isinstance(origin, type) and not _is_container(origin):
            yield from _incomparable_class(origin, above)
        for part in get_args(kind):
            yield from _incomparable(part, above)
    elif isinstance(kind, type):
        yield from _incomparable_class(kind, above)


def _is_container(kind: type) -> bool:
    return kind is types.UnionType or issubclass(kind, _CONTAINERS)


def _incomparable_class(kind: type, above: set[Any]) -> Iterator[type]:
    if kind in above or issubclass(kind, _VALUES):
        return
    above.add(kind)
    if hasattr(kind, "__mapper__"):
        yield kind
    elif issubclass(kind, BaseModel):
        for field in kind.model_fields.values():
            yield from _incomparable(field.annotation, above)
    elif dataclasses.is_dataclass(kind):
        hints = get_type_hints(kind, include_extras=True)
        for each in dataclasses.fields(kind):
            yield from _incomparable(hints[each.name], above)
    elif not issubclass(kind, _CONTAINERS):
        yield kind
