"""The index finds what `Constraint.touched_by` finds, and nothing is left of what was removed."""

from __future__ import annotations

from itertools import count

from hypothesis import given, settings
from hypothesis import strategies as st

from reactive_rpc.reactive.change import UNKNOWN, Change, Image, Unknown
from reactive_rpc.reactive.index import MAX_PRODUCT, Index
from reactive_rpc.reactive.read_set import Between, Condition, Constraint, Equals, IsNull, NotNull, ReadSet
from reactive_rpc.reactive.relations import Relation, widen

COLUMNS = ("a", "b", "c")
PLAIN: st.SearchStrategy[int | float | str] = st.sampled_from([0, 1, 2, 1.5, "x", "y", ""])
BOUNDS = st.none() | PLAIN
VALUES: st.SearchStrategy[int | float | str | Unknown | None] = PLAIN | st.none() | st.just(UNKNOWN)
CONDITIONS: st.SearchStrategy[Condition] = (
    st.frozensets(PLAIN, min_size=1, max_size=3).map(Equals)
    | st.builds(Between, BOUNDS, st.booleans(), BOUNDS, st.booleans())
    | st.just(IsNull())
    | st.just(NotNull())
)
CONSTRAINTS = st.builds(
    Constraint,
    st.sampled_from(["t", "u"]),
    st.none() | st.frozensets(st.sampled_from(COLUMNS)),
    st.dictionaries(st.sampled_from(COLUMNS), CONDITIONS, max_size=3),
)
READ_SETS = st.lists(CONSTRAINTS, max_size=4).map(lambda found: ReadSet(tuple(found)))
IMAGES: st.SearchStrategy[Image] = st.dictionaries(st.sampled_from(COLUMNS), VALUES, max_size=3)


@st.composite
def changes(draw: st.DrawFn) -> Change:
    """Draw a row change or a bulk one; images may lack columns."""
    operation = draw(st.sampled_from(["insert", "update", "delete", "bulk"]))
    before = draw(IMAGES) if operation in {"update", "delete"} else None
    after = draw(IMAGES) if operation in {"insert", "update"} else None
    changed = draw(st.none() | st.frozensets(st.sampled_from(COLUMNS))) if operation == "update" else None
    table = draw(st.sampled_from(["t", "u"]))
    return Change(table=table, operation=operation, before=before, after=after, changed=changed)  # type: ignore[arg-type]  # drawn from a list


def brute(entries: dict[int, ReadSet], change: Change) -> set[int]:
    """Return what each constraint says by itself."""
    return {entry for entry, read_set in entries.items() if any(c.touched_by(change) for c in read_set.constraints)}


@settings(max_examples=300, deadline=None)
@given(st.lists(READ_SETS, max_size=8), st.lists(changes(), max_size=6), st.data())
def test_the_index_finds_what_each_constraint_says(
    read_sets: list[ReadSet], writes: list[Change], data: st.DataObject
) -> None:
    """Exactly, for any read sets and changes, before and after some entries are removed and others added."""
    index: Index[int] = Index()
    entries: dict[int, ReadSet] = {}
    names = count(1)
    for read_set in read_sets:
        entries[name := next(names)] = read_set
        index.add(name, read_set)
    gone = data.draw(st.sets(st.sampled_from(list(entries)))) if entries else set()
    for name in gone:
        index.remove(name)
        index.remove(name)
        del entries[name]
    assert len(index) == len(entries)
    assert all((name in index) == (name in entries) for name in range(1, 9))
    for write in writes:
        assert index.match(write) == brute(entries, write)


@settings(max_examples=200, deadline=None)
@given(st.lists(READ_SETS, max_size=8), st.permutations(range(8)))
def test_nothing_is_left_of_what_was_removed(read_sets: list[ReadSet], order: list[int]) -> None:
    """In whatever order entries go, no table, shape or bucket stays behind."""
    index: Index[int] = Index()
    for name, read_set in enumerate(read_sets):
        index.add(name, read_set)
    for name in order:
        index.remove(name)
    assert not index._tables
    assert not index._places
    for name, read_set in enumerate(read_sets):
        index.add(name, read_set)
    assert set(index.clear()) == set(range(len(read_sets)))
    assert not index._tables


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
    return Equals(frozenset({value})) if isinstance(value, int | float | str) else NotNull()
