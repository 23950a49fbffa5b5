"""The index finds what `Constraint.touched_by` finds, and nothing is left of what was removed."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import count

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from reactive_rpc.dependencies import index as index_module
from reactive_rpc.dependencies import ranges as ranges_module
from reactive_rpc.dependencies.change import UNKNOWN, Change, Image, Known, Unknown
from reactive_rpc.dependencies.expressions import ColumnRef, Expression, FixedValue, Membership, RowOperation
from reactive_rpc.dependencies.index import MAX_PLACES, MAX_PRODUCT, Index
from reactive_rpc.dependencies.lookup import Lookup
from reactive_rpc.dependencies.ranges import Grid, RangeKey, Ranges, SortedKeyList, Span
from reactive_rpc.dependencies.read_set import Between, Condition, Constraint, Equals, IsNull, NotNull, ReadSet, RowTest
from reactive_rpc.dependencies.relations import Relation, widen

LOOKUPS = {table: Lookup(table, "a", "v", "id", "b") for table in ("t", "u")}
COLUMNS = ("a", "b", "c", LOOKUPS["t"].name)
SAME_HEAD = "p" * ranges_module.TEXT_CODE_BYTES
NUMBERS: list[Known] = [0, 1, 2, 3, 9, -1, 1.5, -0.0, 2.0, Decimal("1.5"), Decimal("0.1"), 0.1, -(10**400), 2**60 + 1]
NUMBERS += [math.inf, -math.inf, Decimal("Infinity"), -1.5, Decimal("2.00"), 2.0**60]
STRINGS: list[Known] = ["", "x", "xy", "y", SAME_HEAD, SAME_HEAD + "a", SAME_HEAD + "b", "\U0001f600"]
PLAIN: st.SearchStrategy[Known] = st.sampled_from([*NUMBERS, *STRINGS]) | st.integers(0, 40)
BOUNDS = st.none() | PLAIN
VALUES: st.SearchStrategy[Known | Unknown | None] = PLAIN | st.none() | st.just(UNKNOWN)
RANGES = st.builds(Between, BOUNDS, st.booleans(), BOUNDS, st.booleans())
CONDITIONS: st.SearchStrategy[Condition] = (
    st.frozensets(PLAIN, min_size=1, max_size=3).map(Equals) | RANGES | st.just(IsNull()) | st.just(NotNull())
)
CONDITIONS_BY_COLUMN = st.dictionaries(st.sampled_from(COLUMNS), CONDITIONS, max_size=3) | st.dictionaries(
    st.just("c"), RANGES, max_size=1
)
IMAGES: st.SearchStrategy[Image] = st.dictionaries(
    st.sampled_from(COLUMNS), VALUES, max_size=4
) | st.fixed_dictionaries({column: PLAIN | st.none() for column in COLUMNS})


_OPERANDS: st.SearchStrategy[Expression] = st.sampled_from(COLUMNS[:3]).map(ColumnRef) | st.builds(
    FixedValue, PLAIN | st.none() | st.just(UNKNOWN)
)
_PREDICATES: st.SearchStrategy[Expression] = st.builds(
    Membership, _OPERANDS, st.frozensets(PLAIN, max_size=3), st.booleans()
) | st.builds(lambda name, *sides: RowOperation(name, sides), st.sampled_from(["=", "<", ">="]), _OPERANDS, _OPERANDS)
TESTS = st.builds(
    RowTest,
    _PREDICATES | st.lists(_PREDICATES, min_size=1, max_size=2).map(lambda found: RowOperation("or", tuple(found))),
    st.frozensets(st.sampled_from(COLUMNS[:3])),
    st.booleans(),
)


@st.composite
def constraints(draw: st.DrawFn) -> Constraint:
    """Draw a constraint; one that rests on the virtual column says so."""
    table = draw(st.sampled_from(["t", "u"]))
    conditions = draw(CONDITIONS_BY_COLUMN)
    columns = draw(st.none() | st.frozensets(st.sampled_from(COLUMNS[:3])))
    lookups = tuple(lookup for lookup in (LOOKUPS[table],) if lookup.name in conditions)
    return Constraint(table, columns, conditions, lookups, draw(st.none() | st.none() | st.none() | TESTS))


READ_SETS = st.lists(constraints(), max_size=4).map(lambda found: ReadSet(tuple(found)))


@st.composite
def changes(draw: st.DrawFn) -> Change:
    """Draw a row change or a bulk one; images may lack columns."""
    operation = draw(st.sampled_from(["insert", "update", "update", "update", "delete", "bulk"]))
    before = draw(IMAGES) if operation in {"update", "delete"} else None
    after = draw(IMAGES) if operation in {"insert", "update"} else None
    changed = draw(st.none() | st.frozensets(st.sampled_from(COLUMNS[:3]))) if operation == "update" else None
    table = draw(st.sampled_from(["t", "u"]))
    return Change(table=table, operation=operation, before=before, after=after, changed=changed)  # type: ignore[arg-type]  # drawn from a list


def brute(entries: dict[int, ReadSet], change: Change) -> set[int]:
    """Return what each constraint says by itself."""
    return {entry for entry, read_set in entries.items() if any(c.touched_by(change) for c in read_set.constraints)}


@dataclass
class Both:
    """An index, and what it should hold."""

    index: Index[int] = field(default_factory=Index)
    entries: dict[int, ReadSet] = field(default_factory=dict)
    names: count[int] = field(default_factory=lambda: count(1000))

    def add(self, read_set: ReadSet) -> None:
        """Add an entry to both."""
        name = next(self.names)
        self.entries[name] = read_set
        self.index.add(name, read_set)

    def remove(self, place: int) -> None:
        """Remove an entry from both, twice from the index."""
        if not self.entries:
            return
        name = list(self.entries)[place % len(self.entries)]
        del self.entries[name]
        # An equal integer, but another object.
        self.index.remove(int(str(name)))
        self.index.remove(name)

    def check(self, change: Change, *, is_exact: bool) -> None:
        """Compare what both say of `change`."""
        found, expected = self.index.match(change), brute(self.entries, change)
        assert found == expected if is_exact else found >= expected

    def check_members(self) -> None:
        """Compare what both hold."""
        assert len(self.index) == len(self.entries)
        assert all(name in self.index for name in self.entries)

    def check_lookups(self) -> None:
        """Compare the virtual columns in use."""
        for table, lookup in LOOKUPS.items():
            live = [c for read_set in self.entries.values() for c in read_set.constraints if c.table == table]
            expected = (lookup,) if any(lookup.name in c.conditions for c in live) else ()
            assert self.index.lookups(table) == expected

    def check_empty(self) -> None:
        """Remove everything and see that nothing is left inside."""
        while self.entries:
            self.remove(len(self.entries) // 2)
        assert not self.index._tables
        assert not self.index._places
        assert not self.index._lookups


STEPS = st.lists(READ_SETS | READ_SETS | st.integers(0, 100) | changes(), max_size=25)


def follow(steps: list[ReadSet | int | Change], *, is_exact: bool) -> None:
    """Add, remove and match in the order drawn; then remove what is left."""
    both = Both()
    for step in steps:
        if isinstance(step, ReadSet):
            both.add(step)
        elif isinstance(step, Change):
            both.check(step, is_exact=is_exact)
        else:
            both.remove(step)
        both.check_members()
        if is_exact:
            both.check_lookups()
    both.check_empty()


def follow_exactly(steps: list[ReadSet | int | Change]) -> None:
    """Follow, where no bound is reached."""
    follow(steps, is_exact=True)


def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a few ranges be kept as many are, in a bucket and in a bucket."""
    monkeypatch.setattr(ranges_module, "FEW", 1)
    monkeypatch.setattr(ranges_module, "FEW_IN_GRID_BUCKET", 1)
    monkeypatch.setattr(ranges_module, "CHUNK", 2)


@settings(max_examples=60, deadline=None)
@given(STEPS)
def test_the_index_finds_what_each_constraint_says(steps: list[ReadSet | int | Change]) -> None:
    """Exactly, for any read sets and changes, added and removed in any order; and at last nothing is left."""
    follow_exactly(steps)


@settings(max_examples=60, deadline=None)
@given(STEPS)
def test_many_ranges_are_found_as_few_are(steps: list[ReadSet | int | Change]) -> None:
    """Exactly, where all ranges of a bucket are kept in order, in chunks of two bounds."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        small(monkeypatch)
        follow_exactly(steps)


@settings(max_examples=60, deadline=None)
@given(STEPS)
def test_past_its_bounds_the_index_only_widens(steps: list[ReadSet | int | Change]) -> None:
    """Where every list and every second place of an entry is too many, no entry is missed and nothing is left."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        small(monkeypatch)
        monkeypatch.setattr(index_module, "MAX_PRODUCT", 2)
        monkeypatch.setattr(index_module, "MAX_PLACES", 1)
        follow(steps, is_exact=False)


BESIDE: st.SearchStrategy[Known] = st.sampled_from([0.5, 1.5, 4.5, 7.5, Decimal("2.5"), math.inf, -math.inf])
NEAR = st.integers(0, 8) | st.integers(0, 8) | PLAIN
NEAR_RANGES = st.builds(Between, NEAR | NEAR | st.none(), st.booleans(), NEAR | NEAR | st.none(), st.booleans())
SMALL = st.integers(0, 8)
CLOSED_RANGES = st.builds(Between, SMALL, st.booleans(), SMALL, st.booleans())
HALF_OPEN_RANGES = st.builds(Between, SMALL, st.booleans(), st.none(), st.booleans()) | st.builds(
    Between, st.none(), st.booleans(), SMALL, st.booleans()
)
RANGED = st.dictionaries(st.sampled_from("bc"), NEAR_RANGES, min_size=1) | st.fixed_dictionaries(
    {"b": CLOSED_RANGES | HALF_OPEN_RANGES}
)
ROWS: st.SearchStrategy[Image] = st.fixed_dictionaries({"b": NEAR | BESIDE | VALUES, "c": NEAR | VALUES})


def compare_ranges(ranged: list[dict[str, Condition]], rows: list[Image], order: random.Random) -> None:
    """Match each row before each removal; then nothing is left."""
    both = Both()
    for conditions in ranged:
        both.add(ReadSet((Constraint("t", None, conditions),)))
    while both.entries:
        for row in rows:
            both.check(Change(table="t", operation="insert", after=row), is_exact=True)
        both.remove(order.randrange(100))
    both.check_empty()


MANY_RANGES = given(
    st.lists(RANGED, min_size=5, max_size=20), st.lists(ROWS, min_size=2, max_size=6), st.randoms(use_true_random=False)
)


@settings(max_examples=60, deadline=None)
@MANY_RANGES
def test_ranges_in_one_bucket(ranged: list[dict[str, Condition]], rows: list[Image], order: random.Random) -> None:
    """Exactly, for any value, while they are removed in any order, among them empty ones and points."""
    compare_ranges(ranged, rows, order)
    with pytest.MonkeyPatch.context() as monkeypatch:
        small(monkeypatch)
        compare_ranges(ranged, rows, order)


def test_clear_returns_what_was_indexed() -> None:
    """Everything that was, and nothing is left inside."""
    index: Index[str] = Index()
    index.add("all", ReadSet((Constraint("t"),)))
    index.add("virtual", ReadSet((Constraint("t", None, {COLUMNS[3]: many(2)}, (LOOKUPS["t"],)),)))
    assert set(index.clear()) == {"all", "virtual"}
    assert not index._tables
    assert not index._places
    assert index.lookups("t") == ()


def _only_after(index: Index[int], change: Change) -> set[int]:
    return MATCH(index, Change(table=change.table, operation=change.operation, after=change.after or change.before))


def _exclusive_prefix(keys_in_order: SortedKeyList[int], key: RangeKey, found: list[Span[int]]) -> None:
    found.extend(span for step, span in _held(keys_in_order) if step < key)


def _exclusive_suffix(keys_in_order: SortedKeyList[int], key: RangeKey, found: list[Span[int]]) -> None:
    found.extend(span for step, span in _held(keys_in_order) if step > key)


def _held(keys_in_order: SortedKeyList[int]) -> list[tuple[RangeKey, Span[int]]]:
    held = [pair for keys, steps in keys_in_order._chunks for pair in zip(keys, steps, strict=True)]
    return [(key, span) for key, step in held for span in (step if isinstance(step, set) else [step])]


def _without_last_cell(grid: Grid[int], span: Span[int]) -> tuple[int, int, int]:
    level, first, last = PLACE(grid, span)
    return level, first, last - 1 if last > first else last


def _on_a_level_by_itself(grid: Grid[int], span: Span[int]) -> tuple[int, int, int]:
    return 0, *PLACE(grid, span)[1:]


def _all(
    bucket: ranges_module._OrderedBucket[int], begun: RangeKey, not_ended: RangeKey, found: list[Span[int]]
) -> None:
    found.extend(bucket)


def _always_inclusive(bound: int, *, is_inclusive: bool) -> int:
    return bound * 2


def _rounded(side: ranges_module._IntegerSide[int], value: float, found: list[Span[int]]) -> None:
    OF_INTEGERS(side, math.floor(value) if math.isfinite(value) else value, found)


def _finite_only(side: ranges_module._IntegerSide[int], value: float, found: list[Span[int]]) -> None:
    if math.isfinite(value):
        OF_INTEGERS(side, value, found)


def _own_kind_only(ranges: Ranges[int], value: Known) -> list[Span[int]]:
    return [span for span in CONTAINING(ranges, value) if isinstance(span.between.low, str) == isinstance(value, str)]


def _without_nulls(constraint: Constraint) -> object:
    key, term = ANALYSED(constraint)
    return key._replace(nulls=tuple((column, True) for column, _ in key.nulls)), term


def _first_rest_only(conditions: tuple[tuple[int, Between], ...], row: index_module.Row) -> bool:
    return not any(row[place] is None for place, _ in conditions) and (not conditions or ADMITS(conditions[1:], row))


def _forgets_lookups(index: Index[int], table: str) -> None:
    index._lookups.setdefault(table, (LOOKUPS[table],))


def _without_test(constraint: Constraint) -> object:
    key, term = ANALYSED(constraint)
    return key._replace(is_tested=False), term._replace(test=None)


MATCH = Index.match
PLACE = Grid._place
OF_INTEGERS = ranges_module._IntegerSide.collect
CONTAINING = Ranges.containing
ANALYSED = index_module._analysed
ADMITS = index_module._admits


def of_ranges() -> Callable[[], None]:
    """Return the property of the ranges of one bucket."""
    return MANY_RANGES(compare_ranges)


def of_any() -> Callable[[], None]:
    """Return the property of any steps."""
    return given(STEPS)(follow_exactly)


BUGS: dict[str, tuple[object, str, Callable[..., object], Callable[[], Callable[[], None]]]] = {
    "only the image after counts": (Index, "match", _only_after, of_any),
    "a value at an inclusive lower bound is outside": (SortedKeyList, "until", _exclusive_prefix, of_ranges),
    "a value at an inclusive upper bound is outside": (SortedKeyList, "since", _exclusive_suffix, of_ranges),
    "a range is not in the bucket where it ends": (Grid, "_place", _without_last_cell, of_ranges),
    "buckets of all sizes are on one level": (Grid, "_place", _on_a_level_by_itself, of_ranges),
    "all ranges of a ordereded bucket are hits": (ranges_module._OrderedBucket, "collect", _all, of_ranges),
    "integer bounds are all inclusive": (
        ranges_module._IntegerSide,
        "low_key",
        staticmethod(_always_inclusive),
        of_ranges,
    ),
    "values between integers are rounded": (ranges_module._IntegerSide, "collect", _rounded, of_ranges),
    "infinity is in no range": (ranges_module._IntegerSide, "collect", _finite_only, of_ranges),
    "values of the other kind are outside": (Ranges, "containing", _own_kind_only, of_ranges),
    "IS NOT NULL is taken for IS NULL": (index_module, "_analysed", _without_nulls, of_any),
    "a second range is not compared": (index_module, "_admits", _first_rest_only, of_ranges),
    "a test is forgotten": (index_module, "_analysed", _without_test, of_any),
    "a virtual column is never given up": (Index, "_gather_lookups", _forgets_lookups, of_any),
}


@pytest.mark.seeded_bug
@pytest.mark.parametrize("bug", BUGS)
def test_seeded_bugs_are_found(bug: str) -> None:
    """One of the properties that hold above fails for each bug, within 200 examples."""
    quick = settings(
        max_examples=200,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    owner, name, replacement, prop = BUGS[bug]
    with pytest.MonkeyPatch.context() as monkeypatch:
        small(monkeypatch)
        monkeypatch.setattr(owner, name, replacement)
        with pytest.raises((AssertionError, KeyError, OverflowError)):
            quick(prop())()


class Counted:
    """Counts how often any number of these kinds, or a key made of one, is compared."""

    compared = 0

    def __lt__(self, other: object) -> bool:
        Counted.compared += 1
        return super().__lt__(other)  # type: ignore[misc,no-any-return]  # of the number mixed in

    def __le__(self, other: object) -> bool:
        Counted.compared += 1
        return super().__le__(other)  # type: ignore[misc,no-any-return]  # of the number mixed in

    def __gt__(self, other: object) -> bool:
        Counted.compared += 1
        return super().__gt__(other)  # type: ignore[misc,no-any-return]  # of the number mixed in

    def __ge__(self, other: object) -> bool:
        Counted.compared += 1
        return super().__ge__(other)  # type: ignore[misc,no-any-return]  # of the number mixed in

    def __eq__(self, other: object) -> bool:
        Counted.compared += 1
        return super().__eq__(other)

    def __hash__(self) -> int:
        return super().__hash__()


class CountedInteger(Counted, int):
    """An integer; what is computed from it is counted, too."""

    def __mul__(self, other: int) -> CountedInteger:
        return CountedInteger(int(self) * other)

    def __add__(self, other: int) -> CountedInteger:
        return CountedInteger(int(self) + other)

    def __sub__(self, other: int) -> CountedInteger:
        return CountedInteger(int(self) - other)


class CountedFloat(Counted, float):
    """A float."""


@pytest.mark.parametrize("kind", [CountedInteger, CountedFloat])
@pytest.mark.parametrize(
    ("low", "high", "value", "hits"),
    [
        (lambda i: i, lambda i: None, 3, 3),
        (lambda i: None, lambda i: i, 3_996, 3),
        (lambda i: i, lambda i: i + 4, 2_000, 3),
        (lambda i: i, lambda i: 4_000, 4_001, 0),
        (lambda i: -i - 2, lambda i: 2 * i + 5, -4_000, 1),
        (lambda i: 5, lambda i: i, 3_996, 3),
    ],
    ids=["at least", "at most", "short", "long, all over", "nested", "one beginning"],
)
def test_a_search_among_ranges_walks_through_hits_alone(
    low: Callable[[int], int | None],
    high: Callable[[int], int | None],
    value: int,
    hits: int,
    kind: type[CountedInteger] | type[CountedFloat],
) -> None:
    """Among 4,000 ranges of one bucket fewer than 300 comparisons are made for a few hits, wherever the others lie."""
    index: Index[int] = Index()
    for i in range(4_000):
        bounds = [None if each is None else kind(each) for each in (low(i), high(i))]
        index.add(i, ReadSet((Constraint("t", None, {"c": Between(bounds[0], False, bounds[1], False)}),)))
    Counted.compared = 0
    found = index.match(Change(table="t", operation="insert", after={"c": value}))
    assert len(found) == hits
    assert 0 < Counted.compared < 300


def many(count: int) -> Equals:
    """Return a list of so many values."""
    return Equals(frozenset(range(count)))


def insert(**image: int) -> Change:
    """Return an insert into `t`."""
    return Change(table="t", operation="insert", after=image)


def test_a_product_of_long_lists_is_widened_and_no_further() -> None:
    """Up to MAX_PRODUCT keys the index is exact; past it the longest list is left out, the rest still counts."""
    exact, wide, alone = Index[str](), Index[str](), Index[str]()
    exact.add("e", ReadSet((Constraint("t", None, {"a": many(16), "b": many(MAX_PRODUCT // 16)}),)))
    wide.add("e", ReadSet((Constraint("t", None, {"a": many(17), "b": many(16)}),)))
    alone.add("e", ReadSet((Constraint("t", None, {"a": many(MAX_PRODUCT + 1)}),)))
    assert exact.match(insert(a=99, b=1)) == exact.match(insert(a=1, b=99)) == set()
    assert wide.match(insert(a=99, b=1)) == {"e"}
    assert wide.match(insert(a=1, b=99)) == set()
    assert alone.match(insert(a=-1)) == {"e"}


@pytest.mark.parametrize("constraints", [MAX_PLACES, MAX_PLACES + 1, 10 * MAX_PLACES])
def test_an_entry_with_very_many_constraints_stands_in_few_places(constraints: int) -> None:
    """Past MAX_PLACES the column whose values differ is left out; one that all share still counts."""
    index: Index[str] = Index()
    loop = [
        Constraint("t", frozenset({"a"}), {"tenant": many(1), "a": Equals(frozenset({i}))}) for i in range(constraints)
    ]
    index.add("e", ReadSet((*loop, Constraint("u"))))
    is_exact = constraints <= MAX_PLACES
    assert len(index._places["e"]) == (MAX_PLACES if is_exact else 1) + 1
    assert index.match(insert(tenant=0, a=-1)) == (set() if is_exact else {"e"})
    assert index.match(insert(tenant=0, a=constraints - 1)) == {"e"}
    assert index.match(insert(tenant=1, a=1)) == set()


@given(changes(), st.sampled_from(["a", "b", None]))
def test_a_relation_only_widens(write: Change, source_column: str | None) -> None:
    """What a change also counts as names the target, matches the rows tied to it, and everything where unsure."""
    relation = Relation("t", source_column, "u", "c" if source_column else None)
    widened = widen([write], {"t": [relation]})
    assert len(widened) == (write.table == "t")
    images = [image for image in (write.before, write.after) if image is not None]
    for change in widened:
        assert change.table == "u"
        for image in images:
            value = image.get(source_column, UNKNOWN) if source_column else UNKNOWN
            tied = {"c": value}
            read = Constraint("u", frozenset({"b"}), {} if value is None else {"c": _only(value)})
            assert value is None or read.touched_by(change), (tied, change)


def _only(value: object) -> Condition:
    return Equals(frozenset({value})) if isinstance(value, int | float | str | Decimal) else NotNull()


def test_new_lookups_are_named_once() -> None:
    """Whoever makes images hears of a virtual column when the first entry rests on it, and again after the last."""
    found: list[Lookup] = []
    index: Index[str] = Index(found.extend)
    team = Lookup("post", "user_id", "users", "id", "team_id")
    read_set = ReadSet((Constraint("post", None, {team.name: Equals(frozenset({3}))}, (team,)),))
    for entry in ("a", "b"):
        index.add(entry, read_set)
    assert found == [team]
    for entry in ("a", "b"):
        index.remove(entry)
    index.add("c", read_set)
    assert found == [team, team]
