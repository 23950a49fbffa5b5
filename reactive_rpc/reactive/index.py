"""The index: from a change to the entries it may touch, in time that does not grow with what is cached.

    {table: {shape: {values: entries}}}

A *shape* is what constraints of one query have in common: the columns rendered, the columns compared by equality, and
whether anything else (a range, IS NULL) remains to be checked. The code of an application has few shapes, however
many results it caches, so a match costs O(shapes of the table + hits): one hash look-up a shape and image.

A bucket of one plain entry is the entry itself, not a set of one: most buckets of a primary-key look-up are.
Rejected: one list of constraints a table (51 ms for 100,000), a tree a column (the shapes make it one hash).
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from itertools import product
from typing import Generic, TypeVar

from reactive_rpc.reactive.change import UNKNOWN, Change, Image, Known, Unknown
from reactive_rpc.reactive.read_set import Condition, Constraint, Equals, ReadSet

__all__ = ["Index"]

E = TypeVar("E", bound=Hashable)
Values = tuple[Known, ...]
ShapeKey = tuple[frozenset[str] | None, tuple[str, ...], bool]
Conditions = Mapping[str, Condition]

MAX_PRODUCT = 256
"""An IN list, or the product of several, that spells more keys than this is widened instead."""


class _Shape(Generic[E]):
    """Constraints of one shape: `{values of the equality columns: {entry: further conditions}}`."""

    __slots__ = ("buckets", "checked", "columns", "equal", "table")

    def __init__(self, table: str, key: ShapeKey) -> None:
        self.table = table
        self.columns, self.equal, self.checked = key
        self.buckets: dict[Values, dict[E, list[Conditions]] | E] = {}

    def add(self, values: Values, entry: E, rest: Conditions) -> None:
        bucket = self.buckets.get(values)
        if bucket is None and not self.checked:
            self.buckets[values] = entry
            return
        if not isinstance(bucket, dict):
            bucket = {} if bucket is None else {bucket: []}
            self.buckets[values] = bucket
        checks = bucket.setdefault(entry, [])
        if self.checked:
            checks.append(rest)

    def discard(self, values: Values, entry: E) -> None:
        bucket = self.buckets.get(values)
        if isinstance(bucket, dict):
            bucket.pop(entry, None)
            if not bucket:
                del self.buckets[values]
        elif bucket is entry:
            del self.buckets[values]

    def entries(self) -> Iterator[E]:
        for bucket in self.buckets.values():
            if isinstance(bucket, dict):
                yield from bucket
            else:
                yield bucket

    def match(self, image: Image, found: set[E]) -> None:
        values = tuple([image.get(column, UNKNOWN) for column in self.equal])
        if None in values:
            return
        if any(isinstance(value, Unknown) for value in values):
            self._match_partly(values, image, found)
            return
        bucket = self.buckets.get(values)  # type: ignore[arg-type]  # no None and no Unknown: checked above
        if bucket is not None:
            self._collect(bucket, image, found)

    def _match_partly(self, values: tuple[object, ...], image: Image, found: set[E]) -> None:
        """Go through every bucket: a column of the key is unknown."""
        for key, bucket in self.buckets.items():
            if all(isinstance(value, Unknown) or value == part for value, part in zip(values, key, strict=True)):
                self._collect(bucket, image, found)

    def _collect(self, bucket: dict[E, list[Conditions]] | E, image: Image, found: set[E]) -> None:
        if not isinstance(bucket, dict):
            found.add(bucket)
        elif not self.checked:
            found.update(bucket)
        else:
            found.update(entry for entry, checks in bucket.items() if any(_admits(rest, image) for rest in checks))


def _admits(conditions: Conditions, image: Image) -> bool:
    for column, condition in conditions.items():
        value = image.get(column, UNKNOWN)
        if not isinstance(value, Unknown) and not condition.admits(value):
            return False
    return True


class Index(Generic[E]):
    """Entries by what they read. An entry is any hashable object but a dict; it is added once and removed once."""

    def __init__(self) -> None:
        self._tables: dict[str, dict[ShapeKey, _Shape[E]]] = {}
        self._places: dict[E, list[tuple[_Shape[E], Values]]] = {}

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, entry: E) -> bool:
        return entry in self._places

    def add(self, entry: E, read_set: ReadSet) -> None:
        """Index `entry` under its read set, which must not be opaque."""
        places = self._places[entry] = []
        for constraint in read_set.constraints:
            shape, keys, rest = self._place(constraint)
            for values in keys:
                shape.add(values, entry, rest)
                places.append((shape, values))

    def remove(self, entry: E) -> None:
        """Forget `entry`; nothing happens where it is not indexed."""
        for shape, values in self._places.pop(entry, ()):
            shape.discard(values, entry)
            if not shape.buckets:
                self._drop(shape)

    def clear(self) -> list[E]:
        """Forget everything and return what was indexed."""
        entries = list(self._places)
        self._places.clear()
        self._tables.clear()
        return entries

    def match(self, change: Change) -> set[E]:
        """Return the entries that `change` may touch."""
        found: set[E] = set()
        for shape in self._tables.get(change.table, {}).values():
            if change.operation == "bulk":
                found.update(shape.entries())
                continue
            if change.changed is not None and shape.columns is not None and change.changed.isdisjoint(shape.columns):
                continue
            if change.before is not None:
                shape.match(change.before, found)
            if change.after is not None:
                shape.match(change.after, found)
        return found

    def _place(self, constraint: Constraint) -> tuple[_Shape[E], list[Values], Conditions]:
        equal = {name: c.values for name, c in constraint.conditions.items() if isinstance(c, Equals)}
        _widen(equal)
        rest = {name: c for name, c in constraint.conditions.items() if not isinstance(c, Equals)}
        columns = tuple(sorted(equal))
        key: ShapeKey = (constraint.columns, columns, bool(rest))
        shapes = self._tables.setdefault(constraint.table, {})
        shape = shapes.get(key)
        if shape is None:
            shape = shapes[key] = _Shape(constraint.table, key)
        return shape, list(product(*(equal[name] for name in columns))), rest

    def _drop(self, shape: _Shape[E]) -> None:
        shapes = self._tables.get(shape.table, {})
        shapes.pop((shape.columns, shape.equal, shape.checked), None)
        if not shapes:
            self._tables.pop(shape.table, None)


def _widen(equal: dict[str, frozenset[Known]]) -> None:
    """Drop the longest lists until the product of the rest is small enough."""
    while True:
        keys = 1
        for values in equal.values():
            keys *= len(values)
        if keys <= MAX_PRODUCT:
            return
        del equal[max(equal, key=lambda name: len(equal[name]))]
