"""Ranges, so held that those around a value are found in O(log n + hits).

Bounds become *keys*, integers or tuples that sort as the ranges begin and end, so that inclusive and exclusive bounds
need no cases: a range holds v just if its lower key is not above v's key, and its upper key not below it. Half-open
ranges lie in a `SortedKeyList`, closed ones in a `Grid`, each on the level of its length. Integers, numbers and
strings have one side each.

`docs/internals/dependencies.md` says why each range is found, and which ways were rejected; the INVARIANT comments
mark the lines that this rests on.
"""

from __future__ import annotations

import math
import struct
from abc import ABC, abstractmethod
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Hashable, Iterable, Iterator
from decimal import Decimal
from typing import Any, Generic, TypeVar

from reactive_rpc.dependencies.change import Known
from reactive_rpc.dependencies.read_set import Between

__all__ = ["Ranges", "Span", "put", "spans_in", "spans_of", "take"]

E = TypeVar("E", bound=Hashable)

FEW = 8
"""So many ranges of a bucket are compared one by one: nothing is kept in order for them."""

FEW_IN_GRID_BUCKET = 8
"""So many ranges of a bucket are compared one by one; most of them hold the value sought there."""

CHUNK = 512
"""Keys in one chunk of a sorted key list, at most; a longer one is split in two."""

TEXT_CODE_BYTES = 48
"""As many as an image holds of a string: a longer one is not captured."""

_HALF = 1 << 63

RangeKey = Any
"""The begin or end of a range: an integer, or `(bound, flag)`. Keys of one side compare."""


class Span(Generic[E]):
    """One range of one entry; two are the same only if they are one object.

    Attributes:
        entry: whose it is.
        between: the range; at least one bound is given.
        low: the key of the lower bound, set if the range is kept in order.
        high: the key of the upper bound, likewise.
        rest: `(place among the shape's columns, range)` that must hold beside it.
    """

    __slots__ = ("between", "entry", "high", "low", "rest")

    low: RangeKey
    high: RangeKey

    def __init__(self, entry: E, between: Between, rest: tuple[tuple[int, Between], ...] = ()) -> None:
        self.entry = entry
        self.between = between
        self.rest = rest


class SortedKeyList(Generic[E]):
    """Spans by key, in order: the keys sorted, in chunks, and the spans of each key beside it."""

    __slots__ = ("_chunks", "_lasts")

    def __init__(self) -> None:
        self._chunks: list[tuple[list[RangeKey], list[Span[E] | set[Span[E]]]]] = []
        self._lasts: list[RangeKey] = []

    def __bool__(self) -> bool:
        return bool(self._chunks)

    def __iter__(self) -> Iterator[Span[E]]:
        found: list[Span[E]] = []
        for _, held in self._chunks:
            _collect_all(held, found)
        return iter(found)

    def add(self, key: RangeKey, span: Span[E]) -> None:
        if not self._chunks:
            self._chunks.append(([key], [span]))
            self._lasts.append(key)
            return
        place = min(bisect_left(self._lasts, key), len(self._chunks) - 1)
        keys, held = self._chunks[place]
        at = bisect_left(keys, key)
        if at == len(keys):
            self._lasts[place] = key
        elif keys[at] == key:
            spans = held[at]
            if isinstance(spans, set):
                spans.add(span)
            else:
                held[at] = {spans, span}
            return
        keys.insert(at, key)
        held.insert(at, span)
        if len(keys) > CHUNK:
            self._split(place)

    def remove(self, key: RangeKey, span: Span[E]) -> None:
        place = bisect_left(self._lasts, key)
        keys, held = self._chunks[place]
        at = bisect_left(keys, key)
        spans = held[at]
        if isinstance(spans, set):
            spans.remove(span)
            if spans:
                return
        del keys[at], held[at]
        if keys:
            self._lasts[place] = keys[-1]
        else:
            del self._chunks[place], self._lasts[place]

    def until(self, key: RangeKey, found: list[Span[E]]) -> None:
        """Append the spans whose key is `key` or comes before it."""
        if not self._chunks or self._chunks[0][0][0] > key:
            return
        last = bisect_right(self._lasts, key)
        for _, held in self._chunks[:last]:
            _collect_all(held, found)
        if last < len(self._chunks):
            keys, held = self._chunks[last]
            _collect_all(held[: bisect_right(keys, key)], found)

    def since(self, key: RangeKey, found: list[Span[E]]) -> None:
        """Append the spans whose key is `key` or comes after it."""
        if not self._lasts or self._lasts[-1] < key:
            return
        first = bisect_left(self._lasts, key)
        keys, held = self._chunks[first]
        _collect_all(held[bisect_left(keys, key) :], found)
        for _, held in self._chunks[first + 1 :]:
            _collect_all(held, found)

    def _split(self, place: int) -> None:
        keys, held = self._chunks[place]
        half = len(keys) // 2
        self._chunks.insert(place + 1, (keys[half:], held[half:]))
        self._lasts.insert(place, keys[half - 1])
        del keys[half:], held[half:]


def _collect_all(held: list[Span[E] | set[Span[E]]], found: list[Span[E]]) -> None:
    for spans in held:
        if isinstance(spans, set):
            found.extend(spans)
        else:
            found.append(spans)


class _OrderedBucket(Generic[E]):
    """The many closed ranges of one bucket: those that begin there, that end there, and the others."""

    __slots__ = ("begins", "ends", "others")

    def __init__(self) -> None:
        self.begins: SortedKeyList[E] = SortedKeyList()
        self.ends: SortedKeyList[E] = SortedKeyList()
        self.others: set[Span[E]] = set()

    def __bool__(self) -> bool:
        return bool(self.others or self.begins or self.ends)

    def __iter__(self) -> Iterator[Span[E]]:
        yield from self.begins
        yield from self.ends
        yield from self.others

    def add(self, span: Span[E], *, begins: bool, ends: bool) -> None:
        if begins == ends:
            self.others.add(span)
        elif begins:
            self.begins.add(span.low, span)
        else:
            self.ends.add(span.high, span)

    def remove(self, span: Span[E], *, begins: bool, ends: bool) -> None:
        if begins == ends:
            self.others.remove(span)
        elif begins:
            self.begins.remove(span.low, span)
        else:
            self.ends.remove(span.high, span)

    def collect(self, begun: RangeKey, not_ended: RangeKey, found: list[Span[E]]) -> None:
        self.begins.until(begun, found)
        self.ends.since(not_ended, found)
        for span in self.others:
            if span.low <= begun and span.high >= not_ended:
                found.append(span)


_Bucket = Span[E] | tuple[Span[E], ...] | _OrderedBucket[E]
"""One range of a bucket is held as it is, a few as a tuple, more in order."""


class Grid(Generic[E]):
    """Closed ranges of one side: `{level: {code >> level: the ranges of that bucket}}`, and the empty ranges."""

    __slots__ = ("_code", "_empty", "_levels")

    def __init__(self, code: Callable[[RangeKey], int]) -> None:
        self._code = code
        self._levels: dict[int, dict[int, _Bucket[E]]] = {}
        self._empty: set[Span[E]] = set()

    def __bool__(self) -> bool:
        return bool(self._levels or self._empty)

    def __iter__(self) -> Iterator[Span[E]]:
        """Yield every span, some several times."""
        yield from self._empty
        for buckets in self._levels.values():
            for bucket in buckets.values():
                if isinstance(bucket, Span):
                    yield bucket
                else:
                    yield from bucket

    def add(self, span: Span[E]) -> None:
        level, first, last = self._place(span)
        if first > last:
            self._empty.add(span)
            return
        buckets = self._levels.get(level)
        if buckets is None:
            buckets = self._levels[level] = {}
        for number in range(first, last + 1):
            bucket = buckets.get(number)
            if bucket is None:
                buckets[number] = span
            elif isinstance(bucket, Span):
                buckets[number] = (bucket, span)
            elif isinstance(bucket, _OrderedBucket):
                bucket.add(span, begins=number == first, ends=number == last)
            elif len(bucket) < FEW_IN_GRID_BUCKET:
                buckets[number] = (*bucket, span)
            else:
                buckets[number] = self._ordered(number, (*bucket, span))

    def remove(self, span: Span[E]) -> None:
        level, first, last = self._place(span)
        if first > last:
            self._empty.remove(span)
            return
        buckets = self._levels[level]
        for number in range(first, last + 1):
            bucket = buckets[number]
            if isinstance(bucket, Span):
                del buckets[number]
            elif isinstance(bucket, _OrderedBucket):
                bucket.remove(span, begins=number == first, ends=number == last)
                if not bucket:
                    del buckets[number]
            else:
                left = tuple([each for each in bucket if each is not span])
                buckets[number] = left[0] if len(left) == 1 else left
        if not buckets:
            del self._levels[level]

    def collect(self, code: int, begun: RangeKey, not_ended: RangeKey, found: list[Span[E]]) -> None:
        """Append the spans that hold the value of these keys and code."""
        for level, buckets in self._levels.items():
            bucket = buckets.get(code >> level)
            if bucket is None:
                continue
            if isinstance(bucket, Span):
                if bucket.low <= begun and bucket.high >= not_ended:
                    found.append(bucket)
            elif isinstance(bucket, tuple):
                for span in bucket:
                    if span.low <= begun and span.high >= not_ended:
                        found.append(span)
            else:
                bucket.collect(begun, not_ended, found)

    def _place(self, span: Span[E]) -> tuple[int, int, int]:
        """Return the level of a span, its first bucket there and its last; the last is lower if the span is empty."""
        first, last = self._code(span.low), self._code(span.high)
        if last <= first:
            return 0, first, last
        # INVARIANT (2^level <= length < 2^(level + 1)): no range begins and ends in one bucket, so those that begin in
        # a value's bucket end after the value, and those that end there began before it.
        level = (last - first).bit_length() - 1
        return level, first >> level, last >> level

    def _ordered(self, number: int, spans: Iterable[Span[E]]) -> _OrderedBucket[E]:
        ordered: _OrderedBucket[E] = _OrderedBucket()
        for span in spans:
            _, first, last = self._place(span)
            ordered.add(span, begins=number == first, ends=number == last)
        return ordered


class _RangeSide(ABC, Generic[E]):
    """Ranges whose bounds are of one kind."""

    __slots__ = ("at_least", "at_most", "closed")

    def __init__(self) -> None:
        self.at_least: SortedKeyList[E] = SortedKeyList()
        self.at_most: SortedKeyList[E] = SortedKeyList()
        self.closed: Grid[E] = Grid(self.code)

    def __bool__(self) -> bool:
        return bool(self.at_least or self.at_most or self.closed)

    def __iter__(self) -> Iterator[Span[E]]:
        """Yield every span, some several times."""
        yield from self.at_least
        yield from self.at_most
        yield from self.closed

    @staticmethod
    @abstractmethod
    def low_key(bound: Any, *, is_inclusive: bool) -> RangeKey:
        """Return the key of a range's begin."""

    @staticmethod
    @abstractmethod
    def high_key(bound: Any, *, is_inclusive: bool) -> RangeKey:
        """Return the key of a range's end."""

    @staticmethod
    @abstractmethod
    def code(key: RangeKey) -> int:
        """Return an integer that never falls as the key grows."""

    @abstractmethod
    def collect(self, value: Any, found: list[Span[E]]) -> None:
        """Append the spans that hold `value`."""

    def add(self, span: Span[E], low: Known | None, high: Known | None) -> None:
        if low is not None:
            span.low = self.low_key(low, is_inclusive=span.between.low_inclusive)
        if high is not None:
            span.high = self.high_key(high, is_inclusive=span.between.high_inclusive)
        if low is not None and high is not None:
            self.closed.add(span)
        elif low is not None:
            self.at_least.add(span.low, span)
        else:
            self.at_most.add(span.high, span)

    def remove(self, span: Span[E], low: Known | None, high: Known | None) -> None:
        if low is not None and high is not None:
            self.closed.remove(span)
        elif low is not None:
            self.at_least.remove(span.low, span)
        else:
            self.at_most.remove(span.high, span)


class _IntegerSide(_RangeSide[E]):
    """Ranges between integers; their keys are codes."""

    __slots__ = ()

    @staticmethod
    def low_key(bound: int, *, is_inclusive: bool) -> int:
        return bound * 2 if is_inclusive else bound * 2 + 1

    @staticmethod
    def high_key(bound: int, *, is_inclusive: bool) -> int:
        return bound * 2 if is_inclusive else bound * 2 - 1

    @staticmethod
    def code(key: int) -> int:
        return key

    def collect(self, value: int | float | Decimal, found: list[Span[E]]) -> None:
        if isinstance(value, int):
            key: RangeKey = value * 2
        elif math.isfinite(value):
            whole = math.floor(value)
            key = whole * 2 + (whole != value)
        else:
            key = value  # past every integer, so in no closed range
        self.at_least.until(key, found)
        self.at_most.since(key, found)
        if isinstance(key, int):
            self.closed.collect(key, key, key, found)


class _OrderedSide(_RangeSide[E]):
    """Ranges whose bounds are numbers, or strings; their keys are `(bound, flag)`."""

    __slots__ = ()

    @staticmethod
    def low_key(bound: Known, *, is_inclusive: bool) -> tuple[Known, bool]:
        return bound, not is_inclusive

    @staticmethod
    def high_key(bound: Known, *, is_inclusive: bool) -> tuple[Known, bool]:
        return bound, is_inclusive

    @staticmethod
    def code(key: tuple[Known, bool]) -> int:
        return _code(key[0])

    def collect(self, value: Known, found: list[Span[E]]) -> None:
        begun, not_ended = (value, False), (value, True)
        self.at_least.until(begun, found)
        self.at_most.since(not_ended, found)
        if self.closed:
            self.closed.collect(_code(value), begun, not_ended, found)


_SIDES_OF: dict[bool, tuple[str, ...]] = {True: ("text",), False: ("integer", "number")}
"""The sides whose bounds compare with a value, by whether it is a string."""


class Ranges(Generic[E]):
    """Many ranges of one column. A span is added once and removed once."""

    __slots__ = ("_sides",)

    def __init__(self) -> None:
        self._sides: dict[str, _RangeSide[E]] = {}

    def __bool__(self) -> bool:
        return bool(self._sides)

    def __iter__(self) -> Iterator[Span[E]]:
        """Yield every span, some several times."""
        for side in self._sides.values():
            yield from side

    def append(self, span: Span[E]) -> None:
        """Add one."""
        for name, low, high in _parts(span.between):
            side = self._sides.get(name)
            if side is None:
                side = self._sides[name] = _IntegerSide() if name == "integer" else _OrderedSide()
            side.add(span, low, high)

    def remove(self, span: Span[E]) -> None:
        """Remove one that was added."""
        for name, low, high in _parts(span.between):
            side = self._sides[name]
            side.remove(span, low, high)
            if not side:
                del self._sides[name]

    def containing(self, value: Known) -> list[Span[E]]:
        """Return the spans whose range admits `value`, in no order, some perhaps several times."""
        found: list[Span[E]] = []
        names = _SIDES_OF[isinstance(value, str)]
        for name, side in self._sides.items():
            if name in names:
                side.collect(value, found)
            else:
                # INVARIANT (a value of another kind counts as inside): it does not compare. A range that has a bound on
                # the value's own side, too, is decided there.
                found.extend([span for span in side if not any(part in names for part, _, _ in _parts(span.between))])
        return found


Spans = Span[E] | list[Span[E]] | Ranges[E]
"""One range is held as it is, a few as a list, more in order."""


def put(held: Spans[E] | None, span: Span[E]) -> Spans[E]:
    """Return `held` and `span` together."""
    if held is None:
        return span
    if isinstance(held, Span):
        return [held, span]
    if isinstance(held, list) and len(held) >= FEW:
        many: Ranges[E] = Ranges()
        for each in held:
            many.append(each)
        held = many
    held.append(span)
    return held


def take(held: Spans[E], span: Span[E]) -> Spans[E] | None:
    """Return `held` without `span`, which is in it; None if nothing is left."""
    if isinstance(held, Span):
        return None
    held.remove(span)
    return held or None


def spans_of(held: Spans[E]) -> Iterable[Span[E]]:
    """Return each, some perhaps twice."""
    return (held,) if isinstance(held, Span) else held


def spans_in(held: Spans[E], value: Known) -> list[Span[E]]:
    """Return those whose range admits `value`."""
    if isinstance(held, Ranges):
        return held.containing(value)
    return [span for span in spans_of(held) if span.between.admits(value)]


def _parts(between: Between) -> list[tuple[str, Known | None, Known | None]]:
    """Return `(side, low, high)` for each side that a range stands on; the bound of another side is None there."""
    low, high = between.low, between.high
    if low is None:
        return [] if high is None else [(_side(high), None, high)]
    if high is None:
        return [(_side(low), low, None)]
    first, last = _side(low), _side(high)
    if first == last:
        return [(first, low, high)]
    if "text" in (first, last):
        return [(first, low, None), (last, None, high)]
    return [("number", low, high)]


def _side(bound: Known) -> str:
    if isinstance(bound, int):
        return "integer"
    return "text" if isinstance(bound, str) else "number"


def _code(value: Known) -> int:
    """Return an integer, not negative, that never falls as the value grows.

    Numbers go by the bits of the nearest double, strings by their first bytes.

    >>> _code(-2.5) < _code(-1) < _code(0) == _code(-0.0) < _code(Decimal("0.1")) < _code(10**400)
    True
    >>> _code("") < _code("a") < _code("ab") < _code("b") < _code("\\U0001f600")
    True
    """
    if isinstance(value, str):
        head = value[:TEXT_CODE_BYTES].encode("utf-8", "surrogatepass")[:TEXT_CODE_BYTES]
        return int.from_bytes(head.ljust(TEXT_CODE_BYTES, b"\0"), "big")
    # INVARIANT (the code never falls as the value grows): doubles sort like their bits, negative ones the other way.
    bits: int = struct.unpack("<q", struct.pack("<d", _double(value)))[0]
    return bits + _HALF if bits >= 0 else -1 - bits


def _double(value: int | float | Decimal) -> float:
    try:
        return float(value) + 0.0  # -0.0 becomes 0.0: they are equal, so they have one code
    except OverflowError:
        return math.inf if value > 0 else -math.inf
