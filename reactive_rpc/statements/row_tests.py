"""Which columns of a table's occurrence a statement shows, and which it only tests.

A column is only *tested* if each of its renderings stands in a condition of a WHERE, or of an ON that is as good as
one, or inside of an aggregate (`aggregates.py`), that is read as a formula about this occurrence alone. Then the
statement sees it through the truth of those conditions, and through the values that those aggregates take up
(`dependencies/read_set.py`, `RowTest`). `docs/internals/read-sets.md` argues why that suffices.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from sqlalchemy.sql import operators, visitors
from sqlalchemy.sql.elements import BindParameter, ExpressionClauseList

from reactive_rpc.statements.aggregates import has_rows_counted, seen_value
from reactive_rpc.statements.bodies import Body
from reactive_rpc.statements.formulas import Applied, Formula, FormulaReader, fields_in, has_unread, is_said_by_atoms
from reactive_rpc.statements.predicates import Constant, Field, Parameter, field_of, ungrouped
from reactive_rpc.statements.recording_compiler import Rendering
from reactive_rpc.statements.template import FormulaTest, RowAtom, RowFormula

__all__ = ["RowTests"]


class RowTests:
    """The conditions of one statement, by the occurrences that they are about.

    Args:
        name_of: the names of its parameters, as of `PredicateReader`.
        rendering: what it renders.
        bodies: all of its SELECTs.
    """

    def __init__(
        self,
        name_of: Callable[[BindParameter[Any]], str | None],
        rendering: Rendering,
        bodies: Sequence[Body],
    ) -> None:
        self._rendering = rendering
        self._known = {source for body in bodies for source in body.occurrences.values()}
        self._formulas: dict[tuple[int, int], list[Formula]] = {}
        self._aggregated: dict[tuple[int, int], list[tuple[Formula, bool]]] = {}
        self._fields: dict[int, Counter[str]] = {}
        self._read: set[int] = set()
        for body in bodies:
            for condition in _conjuncts(body.conditions):
                for source in _sources(condition).intersection(body.occurrences.values()):
                    self._add(body.index, FormulaReader(name_of, source), condition)
            for source in body.occurrences.values() if body.aggregates else ():
                for aggregate in body.aggregates:
                    self._add_aggregate(body.index, FormulaReader(name_of, source), aggregate)

    def _add(self, body: int, reader: FormulaReader, condition: Any) -> None:
        formula = reader.read(condition)
        if reader.fields:
            self._formulas.setdefault((body, reader.source), []).append(formula)
            self._fields.setdefault(reader.source, Counter()).update(reader.fields)
            if not has_unread(formula):
                self._read.update(map(id, visitors.iterate(condition)))

    def _add_aggregate(self, body: int, reader: FormulaReader, aggregate: Any) -> None:
        value = seen_value(aggregate, reader)
        self._aggregated.setdefault((body, reader.source), []).append((value, bool(reader.fields)))
        if reader.fields:
            self._fields.setdefault(reader.source, Counter()).update(reader.fields)

    def has_read(self, expression: Any) -> bool:
        """Tell whether an expression is part of a condition that was read as a whole."""
        return id(expression) in self._read

    def columns(self, body: Body, identity: int, atoms: Sequence[RowAtom]) -> frozenset[str] | None:
        """Return the columns through which an occurrence is seen; None for all of them."""
        # INVARIANT (all columns of the occurrence that the statement renders anywhere): an update of another one
        # leaves every body's rows as they are.
        if self._rendering.stars:
            return None
        table = body.sources[identity].table
        rendered = self._rendering.columns.get(table, {}).get(body.occurrences[identity], ())
        return frozenset(rendered) | self._strays(table) | {atom.field.name for atom in atoms}

    def _strays(self, table: str) -> frozenset[str]:
        """Return the columns rendered of an occurrence that stands in no FROM that was read: they may be any one's."""
        rendered = self._rendering.columns.get(table, {})
        return frozenset(name for identity, names in rendered.items() if identity not in self._known for name in names)

    def test(self, body: Body, identity: int) -> FormulaTest | None:
        """Return a body's conditions about an occurrence; None if they say nothing that its atoms do not."""
        source, occurrence = body.sources[identity], body.occurrences[identity]
        formulas = self._formulas.get((body.index, occurrence), [])
        # A column that equals one value cannot change and equal it still.
        columns = self._tested_columns(occurrence, source.table) - set(map(_equal_column, formulas))
        says_more = not all(map(is_said_by_atoms, formulas))
        seen = self._aggregated.get((body.index, occurrence), [])
        counted = self._counted([value for value, _ in seen]) if body.is_aggregated else None
        if not (columns or says_more or counted is not None):
            return None
        # An aggregate of which no tested column was read sees none of them, whatever else it holds.
        aggregated = tuple(dict.fromkeys(value for value, is_of_columns in seen if is_of_columns))
        return FormulaTest(tuple(formulas), frozenset(columns), says_more, source.nullable, aggregated, counted)

    def _counted(self, seen: Sequence[Formula]) -> Formula | None:
        """Return a condition without which a row is NULL to every aggregate; None if it may be something to one."""
        found = tuple(dict.fromkeys(map(has_rows_counted, seen)))
        if any(not fields_in(each) or has_unread(each) for each in found):
            return None
        return found[0] if len(found) == 1 else Applied("or", found)

    def formulas(self, body: Body) -> Iterator[RowFormula]:
        """Yield what a body's conditions say of one column of a row, beside the atoms."""
        for identity, occurrence in body.occurrences.items():
            for formula in self._formulas.get((body.index, occurrence), ()):
                names = {each.name for each in fields_in(formula)}
                if len(names) == 1 and not has_unread(formula) and not is_said_by_atoms(formula):
                    yield RowFormula(Field(identity, body.sources[identity].table, *names), formula)

    def _tested_columns(self, occurrence: int, table: str) -> frozenset[str]:
        if self._rendering.stars:
            return frozenset()
        rendered = self._rendering.columns.get(table, {}).get(occurrence, Counter())
        tested = self._fields.get(occurrence, Counter())
        # INVARIANT (each rendering stands in a condition): what is rendered once more is shown, grouped, joined or
        # ordered by. The conditions of every body count, as an occurrence may stand in several.
        return frozenset(name for name, count in tested.items() if rendered[name] == count) - self._strays(table)


def _conjuncts(conditions: Sequence[Any]) -> Iterator[Any]:
    """Yield the conditions that AND joins."""
    for condition in map(ungrouped, conditions):
        if isinstance(condition, ExpressionClauseList) and condition.operator is operators.and_:
            yield from _conjuncts(list(condition.clauses))
        elif condition is not None:
            yield condition


def _sources(condition: Any) -> set[int]:
    found = (field_of(each) for each in visitors.iterate(condition))
    return {each.source for each in found if each is not None}


def _equal_column(formula: Formula) -> str | None:
    """Return the column that a formula wants to equal a value; None if it wants something else."""
    match formula:
        case Applied("=", (Field(name=name), Parameter() | Constant())):
            return name
        case Applied("=", (Parameter() | Constant(), Field(name=name))):
            return name
    return None
