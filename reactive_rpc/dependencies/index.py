"""The index: from a change to the entries it may touch, in time that does not grow with the number of cached results.

    {table: {shape: {values: entries}}}

A *shape* is common to the constraints of one query: the columns rendered, the columns compared by equality, those that
must or must not be NULL, and those that lie in a range. A match costs O(shapes of the table + hits): one hash look-up
a shape and image, and if the shape has a range, a search among the ranges of that bucket (`ranges.py`).

`docs/internals/dependencies.md` says more, also which changes do not scale; the INVARIANT comments mark the lines
by which no entry is overlooked.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from itertools import product
from math import prod
from typing import Any, Generic, NamedTuple, TypeVar

from reactive_rpc.dependencies.change import UNKNOWN, Change, Known, ParentValues, Unknown, Value
from reactive_rpc.dependencies.lookup import Lookup
from reactive_rpc.dependencies.ranges import Span, Spans, put, spans_in, spans_of, take
from reactive_rpc.dependencies.read_set import (
    Between,
    Constraint,
    Equals,
    IsNull,
    ReadSet,
    RowTest,
    others_changed,
)

__all__ = ["Index"]

E = TypeVar("E", bound=Hashable)

MAX_PRODUCT = 256
"""An IN list, or the product of several, that spells more keys than this is left out of the key: any value fits."""

MAX_ALTERNATIVES = 1_000
"""The values of parents are taken one by one until they spell more rows than this; the longest is then unknown."""

MAX_PLACES = 1000
"""An entry that would stand in more places of one shape than this stands in few, and wider."""


IndexKey = Known | tuple[Known, ...]
"""The key of a bucket: the value of the equality column, or a tuple of values if there is not just one."""

ImageValues = Sequence[Value | Unknown | ParentValues]
"""The values of an image under the columns that a shape compares, in its order."""

Row = Sequence[Value | Unknown]
"""The same with one value of each set of parents' values."""


class _ShapeKey(NamedTuple):
    """The common part of the constraints of one shape.

    Attributes:
        columns: the columns rendered; None means all of them.
        equal: the columns compared by equality, sorted; longest lists are left out (see `MAX_PRODUCT`).
        ranges: the columns that lie in a range; the first is searched, the others compared.
        nulls: `(column, whether it is NULL)`, sorted.
        is_tested: whether each constraint has a test, which the hits are held against.
    """

    columns: frozenset[str] | None
    equal: tuple[str, ...]
    ranges: tuple[str, ...] = ()
    nulls: tuple[tuple[str, bool], ...] = ()
    is_tested: bool = False


class _Term(NamedTuple):
    """The conditions of one constraint, in the order of its shape's columns."""

    equal: tuple[Collection[Known], ...] = ()
    ranges: tuple[Between, ...] = ()
    test: RowTest | None = None

    def buckets(self) -> Iterable[IndexKey]:
        """Return the keys of its buckets."""
        return self.equal[0] if len(self.equal) == 1 else product(*self.equal)


class _Tested(Generic[E]):
    """An entry with the test of one of its constraints; stands in the places of that constraint."""

    __slots__ = ("entry", "test")

    def __init__(self, entry: E, test: RowTest) -> None:
        self.entry = entry
        self.test = test


class _Shape(ABC, Generic[E]):
    """Constraints of one shape: `{values of the equality columns: entries}`."""

    __slots__ = ("columns", "compared", "is_tested", "key", "lookups", "nulls", "table", "width")

    def __init__(self, table: str, key: _ShapeKey) -> None:
        self.table = table
        self.key = key
        self.columns = key.columns
        self.is_tested = key.is_tested
        self.compared = (*key.equal, *key.ranges, *(column for column, _ in key.nulls))
        self.width = len(key.equal)
        first_null = self.width + len(key.ranges)
        self.nulls = tuple((first_null + place, is_null) for place, (_, is_null) in enumerate(key.nulls))
        self.lookups: tuple[Lookup, ...] = ()

    @abstractmethod
    def is_empty(self) -> bool:
        """Tell whether nothing is left."""

    @abstractmethod
    def add(self, values: IndexKey, entry: E, ranges: tuple[Between, ...]) -> Span[E] | None:
        """Put an entry there; the span that is returned is needed to discard it."""

    @abstractmethod
    def discard(self, values: IndexKey, entry: E, span: Span[E] | None) -> None:
        """Take an entry out of there."""

    @abstractmethod
    def entries(self) -> Iterator[E]:
        """Yield every entry, some perhaps several times."""

    @abstractmethod
    def keys(self) -> Iterable[IndexKey]:
        """Return the keys of the buckets."""

    @abstractmethod
    def collect(self, values: IndexKey, row: Row, found: set[E]) -> bool:
        """Add the entries of a bucket that the rest of `row` admits; tell whether there is such a bucket."""

    def match(self, image: ImageValues, found: set[E]) -> None:
        """Add the entries that admit an image's values under `compared`."""
        if self.lookups and any(isinstance(value, frozenset) for value in image):
            for each in _alternatives(image):
                self.match(each, found)
            return
        row: Row = image  # type: ignore[assignment]  # only virtual columns hold sets
        for place, is_null in self.nulls:
            value = row[place]
            if not isinstance(value, Unknown) and (value is None) != is_null:
                return
        values = row[0] if self.width == 1 else tuple(row[: self.width])
        if self.collect(values, row, found):  # type: ignore[arg-type]  # with None or UNKNOWN in it there is no bucket
            return
        # INVARIANT (NULL equals nothing, an unknown value may equal anything): if a key column's value is unknown,
        # every bucket that the known ones fit is looked into.
        equal = row[: self.width]
        unknown = [value for value in equal if isinstance(value, Unknown)]
        if unknown and None not in equal:
            for key in self._keys_like(equal):
                self.collect(key, row, found)

    def _keys_like(self, equal: Row) -> Iterator[IndexKey]:
        if self.width == 1:
            yield from self.keys()
            return
        for key in self.keys():
            parts = zip(equal, key, strict=True) if isinstance(key, tuple) else ()
            if all(isinstance(value, Unknown) or value == part for value, part in parts):
                yield key


class _PlainShape(_Shape[E]):
    """A shape without ranges: `{values: entry or entries}`."""

    __slots__ = ("_buckets",)

    def __init__(self, table: str, key: _ShapeKey) -> None:
        super().__init__(table, key)
        self._buckets: dict[IndexKey, E | set[E]] = {}

    def is_empty(self) -> bool:
        return not self._buckets

    def add(self, values: IndexKey, entry: E, ranges: tuple[Between, ...]) -> None:
        bucket = self._buckets.get(values)
        if bucket is None:
            self._buckets[values] = entry
        elif isinstance(bucket, set):
            bucket.add(entry)
        else:
            self._buckets[values] = {bucket, entry}

    def discard(self, values: IndexKey, entry: E, span: Span[E] | None) -> None:
        bucket = self._buckets.get(values)
        if isinstance(bucket, set):
            bucket.discard(entry)
            if not bucket:
                del self._buckets[values]
        elif bucket == entry:
            del self._buckets[values]

    def entries(self) -> Iterator[E]:
        for bucket in self._buckets.values():
            if isinstance(bucket, set):
                yield from bucket
            else:
                yield bucket

    def keys(self) -> Iterable[IndexKey]:
        return self._buckets

    def collect(self, values: IndexKey, row: Row, found: set[E]) -> bool:
        bucket = self._buckets.get(values)
        if bucket is None:
            return False
        if isinstance(bucket, set):
            found.update(bucket)
        else:
            found.add(bucket)
        return True


class _RangeShape(_Shape[E]):
    """A shape with ranges: `{values: spans of the first range}`; the others are compared."""

    __slots__ = ("_buckets", "_is_compared")

    def __init__(self, table: str, key: _ShapeKey) -> None:
        super().__init__(table, key)
        self._is_compared = len(key.ranges) > 1
        self._buckets: dict[IndexKey, Spans[E]] = {}

    def is_empty(self) -> bool:
        return not self._buckets

    def add(self, values: IndexKey, entry: E, ranges: tuple[Between, ...]) -> Span[E]:
        span = Span(entry, ranges[0], tuple(enumerate(ranges[1:], self.width + 1)) if self._is_compared else ())
        self._buckets[values] = put(self._buckets.get(values), span)
        return span

    def discard(self, values: IndexKey, entry: E, span: Span[E] | None) -> None:
        if span is not None and take(self._buckets[values], span) is None:
            del self._buckets[values]

    def entries(self) -> Iterator[E]:
        for bucket in self._buckets.values():
            for span in spans_of(bucket):
                yield span.entry

    def keys(self) -> Iterable[IndexKey]:
        return self._buckets

    def collect(self, values: IndexKey, row: Row, found: set[E]) -> bool:
        bucket = self._buckets.get(values)
        if bucket is None:
            return False
        value = row[self.width]
        if value is not None:
            spans = spans_of(bucket) if isinstance(value, Unknown) else spans_in(bucket, value)
            if self._is_compared:
                spans = [span for span in spans if _admits(span.rest, row)]
            found.update([span.entry for span in spans])
        return True


_Place = tuple[_Shape[Any], IndexKey, Any, Span[Any] | None]
"""A bucket of a shape, what stands there for the entry, and its span. An entry's only place is held as it is."""


class Index(Generic[E]):
    """Entries by their read sets. An entry is any hashable object but a set; it is added once and removed once.

    Args:
        want: called with the virtual columns that a table's entries rest on, when there are new ones.
    """

    def __init__(self, want: Callable[[Collection[Lookup]], None] | None = None) -> None:
        self._want = want
        # Of entries, or of `_Tested` entries where the shape is tested.
        self._tables: dict[str, dict[_ShapeKey, _Shape[Any]]] = {}
        self._lookups: dict[str, tuple[Lookup, ...]] = {}
        self._places: dict[E, _Place | list[_Place]] = {}

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, entry: E) -> bool:
        return entry in self._places

    def add(self, entry: E, read_set: ReadSet) -> None:
        """Index `entry` under its read set, which must not be opaque."""
        places: list[_Place] = []
        for table, key, terms, lookups in _by_shape(read_set.constraints):
            shape = self._shape(table, key, lookups)
            for term in terms:
                held = entry if term.test is None else _Tested(entry, term.test)
                for values in term.buckets():
                    places.append((shape, values, held, shape.add(values, held, term.ranges)))
        self._places[entry] = places[0] if len(places) == 1 else places

    def remove(self, entry: E) -> None:
        """Forget `entry`; nothing happens if it is not indexed."""
        places = self._places.pop(entry, [])
        for shape, values, held, span in [places] if isinstance(places, tuple) else places:
            shape.discard(values, held, span)
            if shape.is_empty():
                self._drop(shape)

    def clear(self) -> list[E]:
        """Forget everything and return the entries."""
        entries = list(self._places)
        self._places.clear()
        self._tables.clear()
        self._lookups.clear()
        return entries

    def lookups(self, table: str) -> tuple[Lookup, ...]:
        """Return the virtual columns that entries rest on now, of the rows of `table`."""
        return self._lookups.get(table, ())

    def match(self, change: Change) -> set[E]:
        """Return the entries that `change` may touch."""
        found: set[E] = set()
        before, after = change.before, change.after
        for shape in self._tables.get(change.table, {}).values():
            if change.operation == "bulk":
                entries = shape.entries()
                found.update((each.entry for each in entries) if shape.is_tested else entries)
                continue
            if change.changed is not None and shape.columns is not None and change.changed.isdisjoint(shape.columns):
                continue
            if shape.is_tested:
                found.update(_touched(shape, change))
                continue
            matched: ImageValues | None = None
            if before is not None:
                matched = [before.get(column, UNKNOWN) for column in shape.compared]
                shape.match(matched, found)
            if after is not None:
                row = [after.get(column, UNKNOWN) for column in shape.compared]
                if row != matched:
                    shape.match(row, found)
        return found

    def _shape(self, table: str, key: _ShapeKey, lookups: Collection[Lookup]) -> _Shape[Any]:
        """Return the shape, made if there is none, that knows the virtual columns among its own and its tests'."""
        shapes = self._tables.setdefault(table, {})
        shape = shapes.get(key)
        if shape is None:
            shape = shapes[key] = _RangeShape(table, key) if key.ranges else _PlainShape(table, key)
        if lookups:
            of_use = (each for each in lookups if shape.is_tested or each.name in shape.compared)
            new = [each for each in of_use if each not in shape.lookups]
            if new:
                shape.lookups = (*shape.lookups, *new)
                self._gather_lookups(table)
                if self._want is not None:
                    self._want(new)
        return shape

    def _drop(self, shape: _Shape[Any]) -> None:
        shapes = self._tables.get(shape.table, {})
        shapes.pop(shape.key, None)
        if not shapes:
            self._tables.pop(shape.table, None)
        if shape.lookups:
            self._gather_lookups(shape.table)

    def _gather_lookups(self, table: str) -> None:
        shapes = self._tables.get(table, {}).values()
        found = tuple(dict.fromkeys(lookup for shape in shapes for lookup in shape.lookups))
        if found:
            self._lookups[table] = found
        else:
            self._lookups.pop(table, None)


def _touched(shape: _Shape[_Tested[E]], change: Change) -> Iterator[E]:
    """Yield the entries of a tested shape that `change` may touch, some perhaps several times."""
    before: set[_Tested[E]] = set()
    after: set[_Tested[E]] = set()
    for image, found in ((change.before, before), (change.after, after)):
        if image is not None:
            shape.match([image.get(column, UNKNOWN) for column in shape.compared], found)
    for held in before | after:
        others = others_changed(change, shape.columns, held.test)
        if held.test.is_touched(change, before=held in before, after=held in after, others_changed=others):
            yield held.entry


def _alternatives(values: ImageValues) -> Iterable[Row]:
    """Return the rows that take one of each set of parents' values: of each condition one value has to satisfy it."""
    sets: list[Collection[Value | Unknown]] = [each if isinstance(each, frozenset) else (each,) for each in values]
    while prod(map(len, sets)) > MAX_ALTERNATIVES:
        sets[max(range(len(sets)), key=lambda place: len(sets[place]))] = (UNKNOWN,)
    return product(*sets)


def _admits(conditions: tuple[tuple[int, Between], ...], row: Row) -> bool:
    for place, condition in conditions:
        value = row[place]
        if not isinstance(value, Unknown) and not condition.admits(value):
            return False
    return True


def _by_shape(
    constraints: Sequence[Constraint],
) -> Iterator[tuple[str, _ShapeKey, list[_Term], Collection[Lookup]]]:
    """Yield `(table, shape, terms, virtual columns)` for each shape; too many terms are taken together."""
    if len(constraints) == 1:
        key, term = _analysed(constraints[0])
        yield constraints[0].table, key, [term], constraints[0].lookups
        return
    groups: dict[tuple[str, _ShapeKey], list[tuple[Constraint, _Term]]] = {}
    for constraint in constraints:
        key, term = _analysed(constraint)
        groups.setdefault((constraint.table, key), []).append((constraint, term))
    for (table, key), group in groups.items():
        terms = [term for _, term in group]
        # Those of one shape are compared by the same virtual columns, and may test others.
        lookups = dict.fromkeys(lookup for constraint, _ in group for lookup in constraint.lookups)
        if sum(prod(map(len, term.equal)) for term in terms) <= MAX_PLACES:
            yield table, key, terms, lookups
        else:
            wider, term = _together(key, terms)
            yield table, wider, [term], lookups


def _analysed(constraint: Constraint) -> tuple[_ShapeKey, _Term]:
    equal: dict[str, Collection[Known]] = {}
    ranges: list[tuple[bool, str, Between]] = []
    nulls: list[tuple[str, bool]] = []
    for column, condition in constraint.conditions.items():
        if isinstance(condition, Equals):
            equal[column] = condition.values
        elif isinstance(condition, Between) and not (condition.low is None and condition.high is None):
            # Closed ranges first: a search among them has fewer hits to compare further.
            is_open = condition.low is None or condition.high is None
            ranges.append((is_open, column, condition))
        else:
            nulls.append((column, isinstance(condition, IsNull)))
    names, values = _bounded(equal)
    test = constraint.test
    if not ranges and not nulls and test is None:
        return _ShapeKey(constraint.columns, names), _Term(values)
    if len(ranges) > 1:
        ranges.sort(key=lambda each: each[:2])
    ranged = tuple([column for _, column, _ in ranges])
    key = _ShapeKey(constraint.columns, names, ranged, tuple(sorted(nulls)), test is not None)
    return key, _Term(values, tuple([between for _, _, between in ranges]), test)


def _bounded(equal: Mapping[str, Collection[Known]]) -> tuple[tuple[str, ...], tuple[Collection[Known], ...]]:
    """Return columns and values, in order, without the longest lists if their product would be too large."""
    # INVARIANT (only whole columns are left out): fewer conditions admit more rows, so the entry is widened.
    names = sorted(equal) if len(equal) > 1 else list(equal)
    while prod([len(equal[name]) for name in names]) > MAX_PRODUCT:
        names.remove(max(names, key=lambda name: len(equal[name])))
    return tuple(names), tuple([equal[name] for name in names])


def _together(key: _ShapeKey, terms: Iterable[_Term]) -> tuple[_ShapeKey, _Term]:
    """Return one term that is as wide as all of `terms`, and its shape."""
    # INVARIANT (column by column, each the union): every row that one of the terms admits is admitted. The union of
    # ranges is no range, so ranges are left out, and so are tests; the conditions on NULL are the shape's own.
    columns = zip(*(term.equal for term in terms), strict=True)
    names, values = _bounded({name: frozenset().union(*found) for name, found in zip(key.equal, columns, strict=False)})
    return _ShapeKey(key.columns, names, (), key.nulls), _Term(values)
