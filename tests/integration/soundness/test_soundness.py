"""No result goes stale without its read set being touched; and a rule that is broken is found out.

`REACTIVE_SOUNDNESS_CASES` sets how many cases the first test runs.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import BinaryExpression
from sqlalchemy.sql import operators

from reactive_rpc.reactive.schema import Kind
from reactive_rpc.sql import analysis, binding, predicates, recorder, scope
from reactive_rpc.sql.predicates import PredicateReader
from reactive_rpc.sql.scope import Scope

from .differential import Differential, StaleError
from .model import Declared

CASES = int(os.environ.get("REACTIVE_SOUNDNESS_CASES", "800"))
BOUND = 400
"""Cases within which a seeded bug is found; each has the seed that finds it soonest."""


class Differentials:
    """Opens differentials and closes them at the end."""

    def __init__(self) -> None:
        self.opened: list[Differential] = []

    def open(self, schema: Declared) -> Differential:
        self.opened.append(Differential(schema))
        return self.opened[-1]


@pytest.fixture
def differentials() -> Iterator[Differentials]:
    opened = Differentials()
    yield opened
    for differential in opened.opened:
        differential.close()


def test_a_changed_result_has_had_its_read_set_touched(
    differentials: Differentials, record_property: Callable[[str, object], None]
) -> None:
    """Over random queries and writes no result goes stale, nothing is opaque, and far less is touched than by table."""
    differential = differentials.open(Declared())
    differential.run(seed=20240131, cases=CASES)
    counters = differential.counters
    record_property("soundness", dict(counters))
    assert counters["changed"] > CASES // 5
    assert counters["opaque"] == 0
    assert counters["touched"] < 0.7 * counters["by_table"]


# Each bug breaks one rule from outside, as a wrong line in that rule would.

Patch = pytest.MonkeyPatch


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
    left_join = Scope._left_join

    def both(self: Scope, left: Any, right: Any, terms: Any) -> Any:
        self._restrict(left, terms)
        return left_join(self, left, right, terms)

    patch.setattr(Scope, "_left_join", both)


def left_join_is_as_good_as_where(patch: Patch) -> None:
    left_join = Scope._left_join

    def where(self: Scope, left: Any, right: Any, terms: Any) -> Any:
        self.where.append(terms)
        return left_join(self, left, right, terms)

    patch.setattr(Scope, "_left_join", where)


def full_join_restricts(patch: Patch) -> None:
    full_join = Scope._full_join

    def restricted(self: Scope, both: Any, terms: Any) -> Any:
        self._restrict(both, terms)
        return full_join(self, both, terms)

    patch.setattr(Scope, "_full_join", restricted)


def is_null_restricts_the_nullable_side(patch: Patch) -> None:
    restricting = scope.restricting

    def lax(term: Any, source: int, nullable: bool) -> Any:
        return restricting(term, source, False)

    patch.setattr(scope, "restricting", lax)
    patch.setattr(analysis, "restricting", lax)


def columns_are_only_those_of_conditions(patch: Patch) -> None:
    patch.setattr(analysis, "_columns", lambda table, atoms, rendering: frozenset(atom.field.name for atom in atoms))


def values_skip_the_bind_processor(patch: Patch) -> None:
    driver_values = recorder._driver_values
    patch.setattr(
        recorder, "_driver_values", lambda parameters, expanded, processors: driver_values(parameters, expanded, {})
    )


def a_list_is_its_first_value(patch: Patch) -> None:
    driver_values = recorder._driver_values
    patch.setattr(
        recorder,
        "_driver_values",
        lambda parameters, expanded, processors: driver_values(
            parameters, {name: names[:1] for name, names in expanded.items()}, processors
        ),
    )


def bounds_are_exclusive(patch: Patch) -> None:
    comparison = binding.Binder._comparison

    def strict(self: binding.Binder, atom: Any, values: Any) -> Any:
        strictly: Any = {"ge": "gt", "le": "lt"}
        return comparison(self, replace(atom, operator=strictly.get(atom.operator, atom.operator)), values)

    patch.setattr(binding.Binder, "_comparison", strict)


def an_unsure_value_is_left_out_of_its_list(patch: Patch) -> None:
    patch.setattr(binding, "comparable", lambda value, kind, dialect: value if isinstance(value, str) else -1)


def links_lead_back(patch: Patch) -> None:
    link = Scope._link

    def both_ways(self: Scope, terms: Any, restricted: Any, visible: Any) -> None:
        link(self, terms, restricted | visible, restricted | visible)
        self.where.extend([terms] if len(terms) == 1 else [])

    patch.setattr(Scope, "_link", both_ways)


def nothing_is_read_by_subqueries(patch: Patch) -> None:
    reads = analysis._reads
    patch.setattr(
        analysis, "_reads", lambda body, term, rendering: () if body.inherited else reads(body, term, rendering)
    )


class Nocase(Declared):
    """Says that a NOCASE column compares bytewise."""

    def kind(self, table: str, column: str) -> Kind | None:
        return "text" if column == "n" else super().kind(table, column)


@pytest.mark.parametrize(
    ("bug", "seed"),
    [
        pytest.param(or_reads_its_first_branch, 1, id="or_reads_its_first_branch"),
        pytest.param(unequal_reads_as_equal, 2, id="unequal_reads_as_equal"),
        pytest.param(left_join_is_as_good_as_where, 2, id="left_join_is_as_good_as_where"),
        pytest.param(is_null_restricts_the_nullable_side, 3, id="is_null_restricts_the_nullable_side"),
        pytest.param(values_skip_the_bind_processor, 4, id="values_skip_the_bind_processor"),
        pytest.param(bounds_are_exclusive, 5, id="bounds_are_exclusive"),
        pytest.param(links_lead_back, 2, id="links_lead_back"),
        pytest.param(not_is_ignored_inside_and, 5, id="not_is_ignored_inside_and"),
        pytest.param(left_join_restricts_its_left_side, 2, id="left_join_restricts_its_left_side"),
        pytest.param(full_join_restricts, 5, id="full_join_restricts"),
        pytest.param(columns_are_only_those_of_conditions, 1, id="columns_are_only_those_of_conditions"),
        pytest.param(a_list_is_its_first_value, 4, id="a_list_is_its_first_value"),
        pytest.param(an_unsure_value_is_left_out_of_its_list, 1, id="an_unsure_value_is_left_out_of_its_list"),
        pytest.param(nothing_is_read_by_subqueries, 1, id="nothing_is_read_by_subqueries"),
    ],
)
def test_seeded_bug_is_found(
    bug: Callable[[Patch], None], seed: int, differentials: Differentials, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The differential test fails where one rule is broken: it can fail, and its generator reaches the rule."""
    bug(monkeypatch)
    with pytest.raises(StaleError, match=f"STALE: seed {seed}, case"):
        differentials.open(Declared()).run(seed=seed, cases=BOUND)


def test_wrong_kind_of_a_column_is_found(differentials: Differentials) -> None:
    """A schema that calls a NOCASE column bytewise makes results stale, and the test sees it."""
    with pytest.raises(StaleError, match="STALE: seed 1"):
        differentials.open(Nocase()).run(seed=1, cases=BOUND)
