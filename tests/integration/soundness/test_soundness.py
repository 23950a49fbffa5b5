"""No result goes stale without its read set being touched, on both databases; and a rule that is broken is found out.

`REACTIVE_SOUNDNESS_CASES` sets how many cases the first test runs on each.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Final

import pytest
from sqlalchemy import BinaryExpression, and_, case, exists, func, select
from sqlalchemy.sql import operators

from reactive_rpc.changes import parent_values as looked_up
from reactive_rpc.dependencies import expressions, read_set
from reactive_rpc.dependencies.change import Change
from reactive_rpc.dependencies.index import Index
from reactive_rpc.dependencies.read_set import RowTest
from reactive_rpc.statements import (
    analysis,
    binding,
    bodies,
    comparable_values,
    formula_binding,
    predicates,
    recorder,
    scope,
)
from reactive_rpc.statements import parent_conditions as enrichment
from reactive_rpc.statements.predicates import PredicateReader
from reactive_rpc.statements.row_tests import RowTests
from reactive_rpc.statements.scope import SelectScope
from reactive_rpc.statements.template import ParentAtom, RowFormula
from reactive_rpc.testing.postgresql import PostgreSQL

from . import differential
from .differential import Differential, StaleError, postgresql_engine, sqlite_engine
from .drawing import Write
from .model import CHILDREN, GRANDCHILDREN, PARENTS, Color, Declared, Dialect

CASES = int(os.environ.get("REACTIVE_SOUNDNESS_CASES", "20"))
BOUND = 40
"""Cases within which a seeded bug is found; each has the seed that finds it soonest."""

Patch = pytest.MonkeyPatch
Open = Callable[[Dialect], Differential]


@pytest.fixture(scope="module")
def postgresql_database(postgresql: PostgreSQL) -> Iterator[str]:
    """Return the URL of a database with the tables, which every case leaves empty."""
    url = postgresql.new_database(driver="postgresql+psycopg")
    postgresql_engine(url).dispose()
    yield url
    postgresql.drop_database(url)


@pytest.fixture
def differential_on(postgresql_database: str) -> Iterator[Open]:
    """Return what opens a differential test on one of the databases."""
    opened: list[Differential] = []

    def open_on(dialect: Dialect) -> Differential:
        engine = sqlite_engine() if dialect == "sqlite" else postgresql_engine(postgresql_database)
        opened.append(Differential(engine, Declared(dialect)))
        return opened[-1]

    yield open_on
    for each in opened:
        each.close()


@pytest.mark.parametrize("dialect", ["sqlite", "postgresql"])
def test_a_changed_result_has_had_its_read_set_touched(
    dialect: Dialect, differential_on: Open, record_property: Callable[[str, object], None]
) -> None:
    """Over random queries and writes no result goes stale, nothing is opaque, and far less is touched than by table."""
    trial = differential_on(dialect)
    trial.run(seed=20261121, cases=CASES)
    counters = trial.counters
    record_property(f"soundness on {dialect}", dict(counters))
    assert counters["changed"] > CASES
    assert counters["opaque"] == 0
    assert counters["virtual"] > CASES
    assert counters["refused"] < CASES
    assert counters["touched"] < 0.7 * counters["by_table"]


# Each bug breaks one rule from outside, as a wrong line in that rule would.


def or_reads_its_first_branch(patch: Patch) -> None:
    patch.setattr(predicates, "disjunction", lambda parts: next(iter(parts)))


def not_is_ignored_inside_and(patch: Patch) -> None:
    terms = PredicateReader.terms

    def positive(self: PredicateReader, expression: Any, negated: bool = False) -> Any:
        return terms(self, expression, False)

    patch.setattr(PredicateReader, "terms", positive)


def unequal_reads_as_equal(patch: Patch) -> None:
    binary = PredicateReader._binary

    def confused(self: PredicateReader, expression: Any, negated: bool) -> Any:
        if expression.operator is operators.ne:
            expression = BinaryExpression(expression.left, expression.right, operators.eq)
        return binary(self, expression, negated)

    patch.setattr(PredicateReader, "_binary", confused)


def left_join_restricts_its_left_side(patch: Patch) -> None:
    left_join = SelectScope._left_join

    def both(self: SelectScope, left: Any, right: Any, terms: Any) -> Any:
        self._restrict(left, terms)
        return left_join(self, left, right, terms)

    patch.setattr(SelectScope, "_left_join", both)


def left_join_is_as_good_as_where(patch: Patch) -> None:
    left_join = SelectScope._left_join

    def where(self: SelectScope, left: Any, right: Any, terms: Any) -> Any:
        self.where.append(terms)
        return left_join(self, left, right, terms)

    patch.setattr(SelectScope, "_left_join", where)


def full_join_restricts(patch: Patch) -> None:
    full_join = SelectScope._full_join

    def restricted(self: SelectScope, both: Any, terms: Any) -> Any:
        self._restrict(both, terms)
        return full_join(self, both, terms)

    patch.setattr(SelectScope, "_full_join", restricted)


def is_null_restricts_the_nullable_side(patch: Patch) -> None:
    restricting = scope.restricting

    def lax(term: Any, source: int, nullable: bool) -> Any:
        return restricting(term, source, False)

    patch.setattr(scope, "restricting", lax)
    patch.setattr(analysis, "restricting", lax)


def columns_are_only_those_of_conditions(patch: Patch) -> None:
    patch.setattr(
        RowTests, "columns", lambda self, identity, table, atoms: frozenset(each.field.name for each in atoms)
    )


def what_is_tested_is_never_shown(patch: Patch) -> None:
    patch.setattr(RowTests, "_tested_columns", lambda self, identity, table: frozenset(self._fields.get(identity, ())))


def one_occurrence_is_seen_through_the_columns_of_another(patch: Patch) -> None:
    columns = RowTests.columns

    def of_any(self: RowTests, body: Any, identity: int, atoms: Any) -> Any:
        first = next(iter(self._rendering.columns.get(body.sources[identity].table, {})), None)
        return columns(self, replace(body, occurrences={identity: first}), identity, atoms)

    patch.setattr(RowTests, "columns", of_any)


def a_test_narrows_the_side_that_may_be_left_out(patch: Patch) -> None:
    patch.setattr(binding, "truth_of", lambda predicate, image: False)


def constraints_are_alike_whatever_their_test(patch: Patch) -> None:
    constraints = recorder.Recorder._add

    def first_of_alike(self: recorder.Recorder, found: Any) -> None:
        alike = {(each.table, each.columns, *each.conditions): each for each in reversed(list(found))}
        constraints(self, alike.values())

    patch.setattr(recorder.Recorder, "_add", first_of_alike)


def what_is_not_known_is_false(patch: Patch) -> None:
    value_of = expressions.value_of
    patch.setattr(read_set, "truth_of", lambda predicate, image: value_of(predicate, image) == 1)


def a_row_that_leaves_is_still_inside(patch: Patch) -> None:
    is_touched = RowTest.is_touched

    def by_old(self: RowTest, change: Change, **how: Any) -> bool:
        return is_touched(self, replace(change, after=change.before) if change.operation == "update" else change, **how)

    patch.setattr(RowTest, "is_touched", by_old)


def not_of_null_is_true(patch: Patch) -> None:
    operations: Any = expressions.OPERATIONS
    negated = operations["not"]
    patch.setitem(operations, "not", lambda values: 0 if values == [None] else negated(values))
    patch.setitem(operations, "or", lambda values: int(1 in values) if None in values else operations["and"](values))


def like_distinguishes_case(patch: Patch) -> None:
    patch.setattr(formula_binding.FormulaBinder, "_folding", lambda self, formula, value: "")


def like_knows_no_underscore(patch: Patch) -> None:
    pattern = expressions._pattern
    patch.setattr(expressions, "_pattern", lambda text, escape, reading: pattern(text.replace("_", "%"), "", reading))


def case_takes_its_last_condition(patch: Patch) -> None:
    case = expressions.OPERATIONS["case"]
    operations: Any = expressions.OPERATIONS
    patch.setitem(operations, "case", lambda values: case([*values[2:-1], *values[:2], values[-1]]))


def nothing_is_distinct_from_null(patch: Patch) -> None:
    operations: Any = expressions.OPERATIONS
    patch.setitem(operations, "is same", operations["="])


def coalesce_is_its_first_argument(patch: Patch) -> None:
    operations: Any = expressions.OPERATIONS
    patch.setitem(operations, "coalesce", lambda values: values[0])


def values_skip_the_bind_processor(patch: Patch) -> None:
    patch.setattr(recorder, "_processed", lambda value, processor: value)


def a_list_is_its_first_value(patch: Patch) -> None:
    given = binding.Binder._given
    patch.setattr(binding.Binder, "_given", lambda self, operand, values: (given(self, operand, values) or [None])[:1])


def bounds_are_exclusive(patch: Patch) -> None:
    comparison = binding.Binder._comparison

    def strict(self: binding.Binder, atom: Any, kind: Any, values: Any) -> Any:
        strictly: Any = {"ge": "gt", "le": "lt"}
        return comparison(self, replace(atom, operator=strictly.get(atom.operator, atom.operator)), kind, values)

    patch.setattr(binding.Binder, "_comparison", strict)


def an_unsure_value_is_left_out_of_its_list(patch: Patch) -> None:
    patch.setattr(binding, "comparable", lambda value, kind, dialect: value if isinstance(value, str) else -1)


def links_lead_back(patch: Patch) -> None:
    link = SelectScope._link

    def both_ways(self: SelectScope, terms: Any, restricted: Any, visible: Any) -> None:
        link(self, terms, restricted | visible, restricted | visible)
        self.where.extend([terms] if len(terms) == 1 else [])

    patch.setattr(SelectScope, "_link", both_ways)


def nothing_is_read_by_subqueries(patch: Patch) -> None:
    reads = analysis._reads
    patch.setattr(
        analysis,
        "_reads",
        lambda joined, *rest: () if joined.bodies[0].inherited else reads(joined, *rest),
    )


def only_the_outermost_body_is_read(patch: Patch) -> None:
    reads = analysis._reads
    patch.setattr(analysis, "_reads", lambda joined, *rest: reads(replace(joined, bodies=joined.bodies[:1]), *rest))


def not_exists_reads_as_exists(patch: Patch) -> None:
    terms = PredicateReader.terms

    def confused(self: PredicateReader, expression: Any, negated: bool = False) -> Any:
        return terms(self, expression, negated and getattr(expression, "operator", None) is not operators.exists)

    patch.setattr(PredicateReader, "terms", confused)


def a_body_with_a_limit_is_part_of_the_one_around_it(patch: Patch) -> None:
    patch.setattr(bodies, "is_plain_select", lambda select: True)


def any_row_of_a_compared_select_will_do(patch: Patch) -> None:
    exists = PredicateReader._exists
    patch.setattr(
        PredicateReader, "_exists", lambda self, element, compared, is_any=True: exists(self, element, compared)
    )


def an_aggregate_yields_rows_of_rows(patch: Patch) -> None:
    patch.setattr(bodies, "rows_come_from_rows", lambda select: True)


def a_cte_is_read_once(patch: Patch) -> None:
    patch.setattr(bodies, "Counter", lambda used: dict.fromkeys(used, 1))


def no_derived_table_is_left_out(patch: Patch) -> None:
    add = SelectScope.add

    def on_neither_side(self: SelectScope, source: Any) -> None:
        add(self, source)
        self.derived = {identity: (each, False) for identity, (each, _) in self.derived.items()}

    patch.setattr(SelectScope, "add", on_neither_side)


def a_table_is_one_row_in_every_body(patch: Patch) -> None:
    patch.setattr(bodies, "ChainMap", lambda own, around: {source: source for source in (*own, *around)})


def labels_are_ordered(patch: Patch) -> None:
    patch.setattr(binding, "ordered", lambda kind: True)


def times_lose_their_zone(patch: Patch) -> None:
    of_timestamp = comparable_values._microseconds
    converters: Any = comparable_values._ON_POSTGRESQL
    patch.setitem(converters, "timestamptz", lambda value: of_timestamp(value.replace(tzinfo=None)))


def parents_rest_on_each_other(patch: Patch) -> None:
    patch.setattr(enrichment, "_leads_to", lambda target, start, rests_on: start == target)


def is_null_of_a_parent_goes_over_an_on(patch: Patch) -> None:
    by_source = enrichment._by_source
    calls: list[Any] = []

    def first_of_two(atoms: Any) -> Any:
        calls.append(by_source(atoms))
        return calls[len(calls) - 1 & ~1]

    patch.setattr(enrichment, "_by_source", first_of_two)


def both_images_have_the_parent_of_the_new_one(patch: Patch) -> None:
    enriched = looked_up.enriched

    def by_new(changes: Any, found: Any, schema: Any) -> Any:
        virtual = {lookup.name for lookup in found}
        return tuple(
            replace(change, before={**change.before, **{n: v for n, v in change.after.items() if n in virtual}})
            if change.before is not None and change.after is not None
            else change
            for change in enriched(changes, found, schema)
        )

    patch.setattr(differential, "enriched", by_new)


def children_are_looked_up_by_any_row_of_the_parent(patch: Patch) -> None:
    def confused(pairs: Any, at_most: int) -> Any:
        found = list((looked_up.by_key(pairs, at_most) or {}).items())
        return {key: found[number - 1][1] for number, (key, _) in enumerate(found)}

    patch.setattr(differential, "by_key", confused)


def a_parents_parent_is_looked_up_by_the_first_key(patch: Patch) -> None:
    patch.setattr(differential, "followed", lambda first, then: {key: then.get(key, frozenset()) for key in first})


def conditions_on_two_parents_are_of_one(patch: Patch) -> None:
    def of_any(read: Any, lookups: Any) -> Any:
        named = [(lookups[each].name, each.last) for each in read.parents if each in lookups]
        return [(name, atom) for name, atom in named if not isinstance(atom, RowFormula)]

    patch.setattr(binding, "_of_one_parent", of_any)


def a_formula_of_a_parent_goes_over_an_on(patch: Patch) -> None:
    patch.setattr(enrichment, "is_null_of_null", lambda formula: True)


def a_circle_is_looked_for_at_the_first_parent_alone(patch: Patch) -> None:
    patch.setattr(ParentAtom, "parents", property(lambda self: (self.key.source,)))


def the_index_matches_new_images_only(patch: Patch) -> None:
    match = Index.match

    def only_after(self: Index[Any], change: Change) -> set[Any]:
        return match(self, replace(change, before=None) if change.operation == "update" else change)

    patch.setattr(Index, "match", only_after)


def case_is_distinguished(patch: Patch) -> None:
    kind = Declared.kind
    patch.setattr(Declared, "kind", lambda self, table, name: "text" if name == "n" else kind(self, table, name))


BUGS: tuple[tuple[Callable[[Patch], None], Dialect, int], ...] = (
    (or_reads_its_first_branch, "sqlite", 1),
    (unequal_reads_as_equal, "sqlite", 1),
    (left_join_is_as_good_as_where, "sqlite", 4),
    (is_null_restricts_the_nullable_side, "sqlite", 9),
    (values_skip_the_bind_processor, "sqlite", 5),
    (bounds_are_exclusive, "sqlite", 3),
    (links_lead_back, "sqlite", 4),
    (not_is_ignored_inside_and, "sqlite", 3),
    (left_join_restricts_its_left_side, "sqlite", 23),
    (full_join_restricts, "sqlite", 2),
    (columns_are_only_those_of_conditions, "sqlite", 1),
    (an_unsure_value_is_left_out_of_its_list, "sqlite", 1),
    (nothing_is_read_by_subqueries, "sqlite", 6),
    (only_the_outermost_body_is_read, "sqlite", 2),
    (not_exists_reads_as_exists, "sqlite", 22),
    (both_images_have_the_parent_of_the_new_one, "sqlite", 4),
    (children_are_looked_up_by_any_row_of_the_parent, "sqlite", 2),
    (the_index_matches_new_images_only, "sqlite", 1),
    (what_is_tested_is_never_shown, "sqlite", 3),
    (one_occurrence_is_seen_through_the_columns_of_another, "sqlite", 2),
    (what_is_not_known_is_false, "sqlite", 1),
    (a_row_that_leaves_is_still_inside, "sqlite", 1),
    (not_of_null_is_true, "sqlite", 3),
)


@pytest.mark.seeded_bug
@pytest.mark.parametrize(("bug", "dialect", "seed"), BUGS, ids=[bug.__name__ for bug, _, _ in BUGS])
def test_seeded_bug_is_found(
    bug: Callable[[Patch], None], dialect: Dialect, seed: int, differential_on: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The differential test fails where one rule is broken: it can fail, and its generator reaches the rule."""
    bug(monkeypatch)
    with pytest.raises(StaleError, match=f"STALE: seed {seed}, case"):
        differential_on(dialect).run(seed=seed, cases=BOUND)


def _circle(trial: Differential) -> None:
    """Pair a parent and a child that are each other's parents, and change both ends of the pair in one batch."""
    query = select(CHILDREN.c.id).where(
        CHILDREN.c.parent_id == PARENTS.c.id,
        PARENTS.c.x == CHILDREN.c.id,
        PARENTS.c.s == "p",
        CHILDREN.c.s == "p",
    )
    with trial.case("", "a circle") as case:
        case.fill({"parents": [{"id": 1, "x": 2, "s": "p"}], "children": [{"id": 2, "parent_id": 1, "s": "p"}]})
        case.ask(query)
        case.write(Write(table.update().values(s="q")) for table in (PARENTS, CHILDREN))


def _left_out(trial: Differential) -> None:
    """Change a child whose parent the ON leaves out for more than its key, where just such children are wanted."""
    on = and_(CHILDREN.c.parent_id == PARENTS.c.id, PARENTS.c.x == 1)
    query = select(CHILDREN.c.y).select_from(CHILDREN.outerjoin(PARENTS, on)).where(PARENTS.c.s.is_(None))
    with trial.case("", "left out") as case:
        case.fill({"parents": [{"id": 1, "x": 2, "s": "p"}], "children": [{"id": 2, "parent_id": 1, "y": 1}]})
        case.ask(query)
        case.write([Write(CHILDREN.update().values(y=2))])


def _other_case(trial: Differential) -> None:
    """Write a text that equals the one asked for, but for its case."""
    with trial.case("", "other case") as case:
        case.fill({"grandchildren": [{"id": 1, "n": "q"}]})
        case.ask(select(GRANDCHILDREN.c.id).where(GRANDCHILDREN.c.n == "p"))
        case.write([Write(GRANDCHILDREN.update().values(n="P"))])


def _other_zone(trial: Differential) -> None:
    """Write the time asked for, in another zone."""
    asked = datetime.datetime(2024, 1, 2, 11, tzinfo=datetime.timezone(datetime.timedelta(hours=2)))
    with trial.case("", "other zone") as case:
        case.fill({"children": [{"id": 1}]})
        case.ask(select(CHILDREN.c.id).where(CHILDREN.c.at == asked))
        case.write([Write(CHILDREN.update().values(at=asked.astimezone(datetime.UTC)))])


def _two_parents(trial: Differential) -> None:
    """Write a row that leads to two others, each of which satisfies a condition that the other one fails."""
    one, other = CHILDREN.alias("one"), CHILDREN.alias("other")
    asked = [exists().where(each.c.parent_id == PARENTS.c.id, each.c.y == y) for y, each in ((1, one), (2, other))]
    with trial.case("", "two parents") as case:
        children = [{"id": y, "parent_id": 1, "y": y} for y in (1, 2)]
        case.fill({"parents": [{"id": 1, "x": 1}], "children": children})
        case.ask(select(PARENTS.c.x).where(*asked))
        case.write([Write(PARENTS.update().values(x=2))])


def _instead_of_nulls(trial: Differential) -> None:
    """Write a row that an ON leaves alone, of whose parent the WHERE takes something else for a NULL."""
    joined = GRANDCHILDREN.outerjoin(CHILDREN, and_(CHILDREN.c.id == GRANDCHILDREN.c.child_id, CHILDREN.c.y == 1))
    with trial.case("", "instead of NULLs") as case:
        case.fill(
            {
                "parents": [{"id": 1}],
                "children": [{"id": 5, "y": 2, "doubled": 1}],
                "grandchildren": [{"id": 3, "child_id": 5, "z": 1}],
            }
        )
        case.ask(select(GRANDCHILDREN.c.z).select_from(joined).where(func.coalesce(CHILDREN.c.parent_id, 7) == 7))
        case.write([Write(CHILDREN.update().values(parent_id=1)), Write(GRANDCHILDREN.update().values(z=2))])


_CHAIN: Final = (GRANDCHILDREN.c.child_id == CHILDREN.c.id, CHILDREN.c.parent_id == PARENTS.c.id, PARENTS.c.s == "p")


def _two_hops(trial: Differential) -> None:
    """Write a row whose parent's parent is the one asked for."""
    with trial.case("", "two hops") as case:
        case.fill({"parents": [{"id": 1, "s": "p"}], "children": [{"id": 5, "parent_id": 1}]})
        case.ask(select(GRANDCHILDREN.c.id).where(*_CHAIN))
        case.write([Write(GRANDCHILDREN.insert().values(id=3, child_id=5))])


def _circle_over_two(trial: Differential) -> None:
    """Join a row with its parent's parent both ways, and change both in one batch."""
    back = (PARENTS.c.x == GRANDCHILDREN.c.id, GRANDCHILDREN.c.z == 1, CHILDREN.c.id == 5)
    with trial.case("", "a circle over two") as case:
        case.fill(
            {
                "parents": [{"id": 1, "s": "p", "x": 3}],
                "children": [{"id": 5, "parent_id": 1}],
                "grandchildren": [{"id": 3, "child_id": 5, "z": 1}],
            }
        )
        case.ask(select(GRANDCHILDREN.c.id).where(*_CHAIN, *back))
        case.write([Write(PARENTS.update().values(s="q")), Write(GRANDCHILDREN.update().values(z=2))])


def _limited(trial: Differential) -> None:
    """Write a row before the one that a LIMIT takes, with which nothing joins."""
    first = select(PARENTS.c.id).where(PARENTS.c.s == "p").order_by(PARENTS.c.id).limit(1)
    _takes_the_first(trial, CHILDREN.c.parent_id.in_(first))


def _compared(trial: Differential) -> None:
    """Write a row before the one that SQLite compares, with which nothing joins."""
    first = select(PARENTS.c.id).where(PARENTS.c.s == "p").order_by(PARENTS.c.id)
    _takes_the_first(trial, CHILDREN.c.parent_id == first.scalar_subquery())


def _takes_the_first(trial: Differential, condition: Any) -> None:
    with trial.case("", "the first") as case:
        case.fill({"parents": [{"id": 2, "s": "p"}], "children": [{"id": 1, "parent_id": 2}]})
        case.ask(select(CHILDREN.c.id).where(condition, CHILDREN.c.parent_id == 2))
        case.write([Write(PARENTS.insert().values(id=1, s="p"))])


def _two_rows_of_one_table(trial: Differential) -> None:
    """Ask for two rows of one table, which has no alias, and let the second be there."""
    first = exists().where(PARENTS.c.x == CHILDREN.c.y, PARENTS.c.id == 1)
    second = exists().where(PARENTS.c.x == CHILDREN.c.doubled, PARENTS.c.id == 2)
    with trial.case("", "two rows") as case:
        case.fill({"parents": [{"id": 1, "x": 1}, {"id": 2, "x": 3}], "children": [{"id": 1, "y": 1, "doubled": 1}]})
        case.ask(select(CHILDREN.c.id).where(first, second))
        case.write([Write(PARENTS.update().where(PARENTS.c.id == 2).values(x=2))])


def _numbered(trial: Differential) -> None:
    """Write a row before one that is numbered in a derived table, of which the other row alone is asked."""
    numbered = select(PARENTS.c.s, func.row_number().over(order_by=PARENTS.c.id).label("n")).subquery()
    with trial.case("", "numbered") as case:
        case.fill({"parents": [{"id": 2, "s": "p"}]})
        case.ask(select(numbered.c.n).where(numbered.c.s == "p"))
        case.write([Write(PARENTS.insert().values(id=1, s="q"))])


def _first_of_derived(trial: Differential) -> None:
    """Write a row before the one that a LIMIT in a derived table takes, of which that one alone is asked."""
    first = select(PARENTS.c.id, PARENTS.c.s).order_by(PARENTS.c.id).limit(1).subquery()
    with trial.case("", "first of derived") as case:
        case.fill({"parents": [{"id": 2, "s": "p"}]})
        case.ask(select(first.c.id).where(first.c.s == "p"))
        case.write([Write(PARENTS.insert().values(id=1, s="q"))])


def _read_twice(trial: Differential) -> None:
    """Write a row that the second reading of a CTE shows, and the first does not."""
    common = select(PARENTS.c.id, PARENTS.c.s).cte("common")
    again = common.alias("again")
    with trial.case("", "read twice") as case:
        case.fill({"parents": [{"id": 1, "s": "p"}]})
        case.ask(select(again.c.id).select_from(common.join(again, again.c.id != common.c.id)).where(common.c.s == "p"))
        case.write([Write(PARENTS.insert().values(id=2, s="q"))])


def _derived_on_the_right(trial: Differential) -> None:
    """Write a row of a derived table that keeps another from being shown with NULLs."""
    derived = select(CHILDREN.c.parent_id, CHILDREN.c.y).where(CHILDREN.c.y == 1).subquery()
    joined = PARENTS.outerjoin(derived, derived.c.parent_id == PARENTS.c.id)
    with trial.case("", "derived on the right") as case:
        case.fill({"parents": [{"id": 1, "x": 1}]})
        case.ask(select(PARENTS.c.x).select_from(joined))
        case.write([Write(PARENTS.update().values(x=2))])


def _listed(trial: Differential) -> None:
    """Write the second of the values asked for."""
    with trial.case("", "listed") as case:
        case.fill({"parents": [{"id": 1}]})
        case.ask(select(PARENTS.c.id).where(PARENTS.c.x.in_([1, 2])))
        case.write([Write(PARENTS.update().values(x=2))])


def _written(trial: Differential, column: Any, values: tuple[Any, Any], *conditions: Any) -> None:
    """Count the rows that satisfy a condition on a column, and write a value that changes the count."""
    table, (old, new) = column.table, values
    for condition in conditions:
        with trial.case("", str(condition)) as tried:
            tried.fill({table.name: [{"id": 1, column.name: old}]})
            tried.ask(select(func.count()).select_from(table).where(condition))
            tried.write([Write(table.update().values({column.name: new}))])


def _left_alone(trial: Differential) -> None:
    """Give a row that a LEFT JOIN shows with NULLs, which the WHERE wants, a partner that fails the WHERE."""
    joined = PARENTS.outerjoin(CHILDREN, CHILDREN.c.parent_id == PARENTS.c.id)
    with trial.case("", "left alone") as case:
        case.fill({"parents": [{"id": 1}]})
        case.ask(select(PARENTS.c.id).select_from(joined).where(func.coalesce(CHILDREN.c.y, 0) == 0))
        case.write([Write(CHILDREN.insert().values(id=1, parent_id=1, y=1))])


def _of_two_occurrences(trial: Differential) -> None:
    """Write what only the second of two occurrences of a table counts."""
    counts = [
        select(func.count()).select_from(each).where(each.c.x % 4 == rest).scalar_subquery()
        for each, rest in ((PARENTS.alias("first"), 1), (PARENTS.alias("second"), 2))
    ]
    with trial.case("", "two occurrences") as case:
        case.fill({"parents": [{"id": 1, "x": 0}]})
        case.ask(select(*counts))
        case.write([Write(PARENTS.update().values(x=2))])


def _patterns(trial: Differential) -> None:
    """Write text of another case, and text that is as long as a pattern asks for."""
    _written(trial, PARENTS.c.s, ("q", "p"), PARENTS.c.s.like("P%"), PARENTS.c.s.startswith("P"))


def _underscores(trial: Differential) -> None:
    _written(trial, PARENTS.c.s, ("p", "pq"), PARENTS.c.s.like("p_"), ~PARENTS.c.s.like("p_"))


def _unequal(trial: Differential) -> None:
    _written(trial, GRANDCHILDREN.c.n, ("q", "P"), GRANDCHILDREN.c.n != "p")


def _in_order(trial: Differential) -> None:
    _written(trial, PARENTS.c.color, (Color.red, Color.green), PARENTS.c.color > Color.red)


def _counted(trial: Differential) -> None:
    """Write a row of which a count is asked for: there always is one, of whichever rows."""
    counted = select(func.count()).select_from(CHILDREN).where(CHILDREN.c.parent_id == PARENTS.c.id)
    with trial.case("", "counted") as tried:
        tried.fill({"parents": [{"id": 2, "x": 1}]})
        tried.ask(select(PARENTS.c.x).where(exists(counted.where(CHILDREN.c.parent_id == 1).correlate(PARENTS))))
        tried.write([Write(PARENTS.update().values(x=2))])


def _by_case(trial: Differential) -> None:
    level = case((PARENTS.c.x > 0, "some"), (PARENTS.c.x > 2, "many"), else_="none")
    _written(trial, PARENTS.c.x, (0, 3), level == "some", level != "none")


def _distinct(trial: Differential) -> None:
    x = PARENTS.c.x
    _written(trial, x, (1, None), x.is_distinct_from(1), x.is_not_distinct_from(1), ~x.is_not_distinct_from(1))


def _without_value(trial: Differential) -> None:
    x = PARENTS.c.x
    _written(trial, x, (2, None), func.coalesce(x, 1) == 1, func.coalesce(x, 1, 2) < 2)


EXAMPLES: tuple[tuple[Callable[[Differential], None], Callable[[Patch], None], Dialect], ...] = (
    (_circle, parents_rest_on_each_other, "sqlite"),
    (_circle, parents_rest_on_each_other, "postgresql"),
    (_left_out, is_null_of_a_parent_goes_over_an_on, "sqlite"),
    (_left_out, is_null_of_a_parent_goes_over_an_on, "postgresql"),
    (_other_case, case_is_distinguished, "sqlite"),
    (_other_zone, times_lose_their_zone, "postgresql"),
    (_listed, a_list_is_its_first_value, "sqlite"),
    (_listed, a_list_is_its_first_value, "postgresql"),
    (_two_hops, a_parents_parent_is_looked_up_by_the_first_key, "sqlite"),
    (_two_hops, a_parents_parent_is_looked_up_by_the_first_key, "postgresql"),
    (_two_parents, conditions_on_two_parents_are_of_one, "sqlite"),
    (_two_parents, conditions_on_two_parents_are_of_one, "postgresql"),
    (_instead_of_nulls, a_formula_of_a_parent_goes_over_an_on, "sqlite"),
    (_instead_of_nulls, a_formula_of_a_parent_goes_over_an_on, "postgresql"),
    (_circle_over_two, a_circle_is_looked_for_at_the_first_parent_alone, "sqlite"),
    (_circle_over_two, a_circle_is_looked_for_at_the_first_parent_alone, "postgresql"),
    (_counted, an_aggregate_yields_rows_of_rows, "sqlite"),
    (_left_alone, a_test_narrows_the_side_that_may_be_left_out, "sqlite"),
    (_left_alone, a_test_narrows_the_side_that_may_be_left_out, "postgresql"),
    (_of_two_occurrences, constraints_are_alike_whatever_their_test, "sqlite"),
    (_patterns, like_distinguishes_case, "sqlite"),
    (_underscores, like_knows_no_underscore, "sqlite"),
    (_underscores, like_knows_no_underscore, "postgresql"),
    (_unequal, case_is_distinguished, "sqlite"),
    (_in_order, labels_are_ordered, "postgresql"),
    (_by_case, case_takes_its_last_condition, "sqlite"),
    (_by_case, case_takes_its_last_condition, "postgresql"),
    (_distinct, nothing_is_distinct_from_null, "sqlite"),
    (_distinct, nothing_is_distinct_from_null, "postgresql"),
    (_without_value, coalesce_is_its_first_argument, "sqlite"),
    (_without_value, coalesce_is_its_first_argument, "postgresql"),
    (_limited, a_body_with_a_limit_is_part_of_the_one_around_it, "sqlite"),
    (_limited, a_body_with_a_limit_is_part_of_the_one_around_it, "postgresql"),
    (_compared, any_row_of_a_compared_select_will_do, "sqlite"),
    (_numbered, an_aggregate_yields_rows_of_rows, "sqlite"),
    (_numbered, an_aggregate_yields_rows_of_rows, "postgresql"),
    (_first_of_derived, a_body_with_a_limit_is_part_of_the_one_around_it, "sqlite"),
    (_read_twice, a_cte_is_read_once, "sqlite"),
    (_read_twice, a_cte_is_read_once, "postgresql"),
    (_derived_on_the_right, no_derived_table_is_left_out, "sqlite"),
    (_derived_on_the_right, no_derived_table_is_left_out, "postgresql"),
    (_two_rows_of_one_table, a_table_is_one_row_in_every_body, "sqlite"),
    (_two_rows_of_one_table, a_table_is_one_row_in_every_body, "postgresql"),
)


@pytest.mark.seeded_bug
@pytest.mark.parametrize(
    ("example", "bug", "dialect"), EXAMPLES, ids=[f"{bug.__name__} on {dialect}" for _, bug, dialect in EXAMPLES]
)
def test_example_of_a_seldom_bug(
    example: Callable[[Differential], None],
    bug: Callable[[Patch], None],
    dialect: Dialect,
    differential_on: Open,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What chance seldom makes is tried on purpose: it is not stale, and it would be with the bug."""
    example(differential_on(dialect))
    bug(monkeypatch)
    with pytest.raises(StaleError):
        example(differential_on(dialect))
