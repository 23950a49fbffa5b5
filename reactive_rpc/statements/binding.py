"""From a template and the parameters of one execution to constraints on rows.

Every step that is not sure leaves its condition out, which is wider. Only one thing makes a constraint go away: a
conjunction that no row can satisfy, such as `x = NULL` or `x = 1 AND x = 2`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from math import prod
from typing import Final

from reactive_rpc.dependencies.expressions import (
    Expression,
    FixedValue,
    OfParents,
    RowOperation,
    columns_of,
    truth_of,
)
from reactive_rpc.dependencies.lookup import Lookup
from reactive_rpc.dependencies.read_set import Between, Condition, Constraint, Equals, IsNull, NotNull, RowTest
from reactive_rpc.dependencies.schema import ColumnKind, Schema
from reactive_rpc.statements.comparable_values import Comparable, comparable, ordered
from reactive_rpc.statements.explanation import (
    ExplainedRead,
    Unused,
    UnusedCondition,
    described,
    expressed,
    formulated,
    may_fail,
    spelled,
    unread_conditions,
)
from reactive_rpc.statements.formula_binding import FormulaBinder
from reactive_rpc.statements.formulas import has_unread, is_said_by_atoms
from reactive_rpc.statements.parent_conditions import judged, usable
from reactive_rpc.statements.predicates import Comparison, Constant, Field, Nullness, Operand
from reactive_rpc.statements.template import FormulaTest, ParentAtom, Read, RowAtom, RowFormula, Template, Window
from reactive_rpc.statements.windows import shown_rows

__all__ = ["MAX_VALUES", "Binder", "ParameterValues", "intersection"]

MAX_VALUES: Final = 2_000
"""An IN list with more values than this is left out."""

MAX_KEYS: Final = 256
"""A constraint whose lists of values spell more keys than this becomes several: an index would widen it."""

ParameterValues = Callable[[str], Sequence[object] | None]
"""The values that the driver gets for a parameter of this name: one, or an IN list; None if they are not known."""

_UNSATISFIABLE: Final = Equals(frozenset())
_ANY_ROW: Final = RowTest(FixedValue(1), frozenset(), narrows=False)


class Binder:
    """Binds templates.

    Args:
        schema: the captured tables, and how columns compare.
        dialect: the database's name in SQLAlchemy, for example `sqlite`.
    """

    def __init__(self, schema: Schema, dialect: str) -> None:
        self._schema = schema
        self._dialect = dialect

    def opaque(self, template: Template) -> str | None:
        """Return why a result of `template` must not be cached; None if it may."""
        if template.opaque is not None:
            return template.opaque
        redefined = next(filter(self._schema.redefines, sorted(template.calls)), None)
        if redefined is not None:
            return f"calls {redefined}, which somebody has defined in this database: pass in its value"
        return next((reason for name in template.tables if (reason := self._unseen(name)) is not None), None)

    def tables(self, template: Template) -> frozenset[str]:
        """Return every table that `template` names, by canonical name; for a view those behind it."""
        return frozenset[str]().union(*(self._behind(name) for name in template.tables))

    def constraints(
        self, template: Template, values: ParameterValues, shown: Expression | None = None
    ) -> Iterator[Constraint]:
        """Yield the constraints of `template` with these values.

        Args:
            shown: what `shown_rows` says of a row, once its window has been read.
        """
        lookups = usable(template.reads, self._schema)
        formulas = self._formulas(values)
        for read in template.reads:
            table = self._schema.table(read.table)
            if table is None:
                # What a view shows under a column's name need not be what a row of its tables holds there.
                yield from map(Constraint, sorted(self._behind(read.table)))
                continue
            conditions = self._conditions(read, lookups, values=values, left_out=[])
            if conditions is not None:
                test = self._own_test(read.test, table, formulas) if read.test is not None else None
                resting: tuple[Lookup, ...] = ()
                if read.parents:
                    test = self._with_parents(test, read, formulas=formulas, lookups=lookups)
                    resting = _resting(read, lookups, conditions=conditions, test=test)
                test = test if shown is None or not read.is_windowed else _windowed(test, shown)
                for part in _parts(conditions):
                    yield Constraint(table, self._columns(read, table), part, resting, test)

    def shown(self, window: Window, values: ParameterValues, rows: Sequence[Sequence[object]]) -> Expression | None:
        """Return what a statement's rows say of where its window ends; None if they do not."""
        limit = values(window.limit.name)
        column_of = self._exact_column
        given = None if limit is None or len(limit) != 1 else limit[0]
        return shown_rows(window, rows, limit=given, column_of=column_of, dialect=self._dialect)

    def explained(
        self, template: Template, values: ParameterValues, shown: Expression | None = None
    ) -> Iterator[ExplainedRead]:
        """Yield the reads behind the constraints, with the conditions that do not narrow them."""
        parents = judged(template.reads, self._schema)
        lookups = {atom: found for atom, found in parents.items() if isinstance(found, Lookup)}
        formulas = self._formulas(values)
        for read in template.reads:
            table = self._schema.table(read.table)
            if table is None:
                for each in sorted(self._behind(read.table)):
                    yield ExplainedRead(table=each, columns=None, unused=(Unused.OF_VIEW.of(read.table),))
                continue
            left_out: list[tuple[RowAtom, Unused]] = []
            conditions = self._conditions(read, lookups, values=values, left_out=left_out)
            if conditions is None:
                continue
            own = None if read.test is None else self._own_test(read.test, table, formulas)
            refused = [(atom, why) for atom in read.parents if isinstance(why := parents.get(atom), Unused)]
            columns = self._columns(read, table)
            yield ExplainedRead(
                table=table,
                columns=None if columns is None else tuple(sorted(columns)),
                conditions=(
                    *(described(column, condition) for column, condition in sorted(conditions.items())),
                    *_expressed(self._with_parents(own, read, formulas=formulas, lookups=lookups)),
                    *([] if shown is None or not read.is_windowed else [expressed(shown)]),
                ),
                aggregated=() if own is None or not own.columns else tuple(map(expressed, own.aggregated)),
                unused=tuple(
                    dict.fromkeys(
                        [
                            *(why.of(spelled(atom), column=atom.field.qualified) for atom, why in left_out),
                            *(
                                why.of(spelled(atom), column=atom.column.qualified, key=atom.key.qualified)
                                for atom, why in refused
                            ),
                            *unread_conditions(template.unread, read.table),
                            *self._unknown(read, formulas),
                            *self._unused_limit(template, read, shown),
                        ]
                    )
                ),
            )

    def _formulas(self, values: ParameterValues) -> FormulaBinder:
        return FormulaBinder(
            self._dialect, self._exact_column, lambda operand: self._given(operand, values), self._is_small
        )

    def _is_small(self, field: Field) -> bool:
        table = self._schema.table(field.table)
        return table is None or self._schema.is_small(table, self._spelled(table, field.name))

    def _unused_limit(self, template: Template, read: Read, shown: Expression | None) -> Iterator[UnusedCondition]:
        """Yield why a statement's LIMIT does not narrow a read that it could."""
        if template.window is None and template.is_limited:
            yield Unused.NO_ORDER.of("LIMIT")
        elif template.window is not None and read.is_windowed and shown is None:
            exact = self._exact_column(template.window.keys[0].field)[1]
            is_exact = exact is not None and ordered(exact)
            yield (Unused.NOT_FULL if is_exact else Unused.NO_ORDER).of("LIMIT")

    def _unknown(self, read: Read, formulas: FormulaBinder) -> Iterator[UnusedCondition]:
        """Yield the conditions that were understood, and that no row is known to fail."""
        for formula in () if read.test is None else read.test.formulas:
            if not (has_unread(formula) or is_said_by_atoms(formula) or may_fail(formulas.bind(formula))):
                yield Unused.NOT_KNOWN.of(formulated(formula))

    def _unseen(self, name: str) -> str | None:
        """Return why writes to the tables that a statement calls `name` are not seen; None if they are."""
        view = None if self._schema.table(name) is not None else self._schema.view(name)
        if view is not None and view.opaque is not None:
            return f"reads the view {name}, which {view.opaque}"
        unseen = sorted(table for table in self._behind(name) if not self._schema.captured(table))
        return f"reads table {unseen[0]}, whose writes are not captured" if unseen else None

    def _behind(self, name: str) -> frozenset[str]:
        """Return the tables that a statement calls `name`; a name that nobody knows stands for itself."""
        table = self._schema.table(name)
        if table is not None:
            return frozenset({table})
        view = self._schema.view(name)
        return frozenset({name}) if view is None else view.tables

    def _columns(self, read: Read, table: str) -> frozenset[str] | None:
        """Return the columns rendered, as the database spells them; None, which is all, if one is not known."""
        if read.columns is None:
            return None
        known = self._schema.columns(table)
        columns = read.columns if read.columns <= known else frozenset(self._spelled(table, c) for c in read.columns)
        return columns if columns <= known else None

    def _with_parents(
        self, own: RowTest | None, read: Read, *, formulas: FormulaBinder, lookups: Mapping[ParentAtom, Lookup]
    ) -> RowTest | None:
        """Return the test of a read with the conditions on parents that are evaluated."""
        of_parents = tuple(dict.fromkeys(self._of_parents(read, formulas, lookups)))
        return replace(own or _ANY_ROW, of_parents=of_parents) if of_parents else own

    def _of_parents(
        self, read: Read, formulas: FormulaBinder, lookups: Mapping[ParentAtom, Lookup]
    ) -> Iterator[OfParents]:
        """Yield the conditions on parents that are evaluated on their values, of which anything is known."""
        for atom in read.parents:
            if atom in lookups and isinstance(atom.last, RowFormula):
                condition = formulas.bind(atom.last.formula)
                for column in columns_of(condition):  # one, or none if nothing is known
                    yield OfParents(lookups[atom].name, column, condition)

    def _own_test(self, test: FormulaTest, table: str, formulas: FormulaBinder) -> RowTest | None:
        """Return the test of one execution; None if it says nothing beside the conditions."""
        bound = tuple(map(formulas.bind, test.formulas))
        counted = None if test.counted is None else formulas.bind(test.counted)
        # A condition that no row is known to fail would make it unknown which side a row is on.
        is_counted = counted is not None and may_fail(counted)
        predicate = RowOperation("and", (*bound, *((counted,) if counted is not None and is_counted else ())))
        columns = frozenset(self._spelled(table, each) for each in test.columns)
        # INVARIANT (a row that an outer join leaves out is all NULL): if such a row may be TRUE, one that fails may
        # keep it from being there.
        nulls = dict.fromkeys(columns_of(predicate))
        is_missing_known = not (test.nullable and truth_of(predicate, nulls) is not False)
        narrows = (test.says_more or is_counted) and is_missing_known
        aggregated = tuple(map(formulas.bind_value, test.aggregated))
        return RowTest(predicate, columns, narrows, aggregated=aggregated) if columns or narrows else None

    def _exact_column(self, field: Field) -> tuple[str, ColumnKind | None]:
        return self._spelled(self._schema.table(field.table), field.name), self._kind_of(field)

    def _spelled(self, table: str | None, column: str) -> str:
        """Return a column as the database spells it: SQLite takes `ID` for `id`, but a change is told of `id`."""
        if table is None or self._dialect != "sqlite" or self._schema.kind(table, column) is not None:
            return column
        folded = column.lower() if column.isascii() else column
        return next((known for known in self._schema.columns(table) if known.lower() == folded), column)

    def _conditions(
        self,
        read: Read,
        lookups: Mapping[ParentAtom, Lookup],
        *,
        values: ParameterValues,
        left_out: list[tuple[RowAtom, Unused]],
    ) -> dict[str, Condition] | None:
        """Return `{column, or virtual column: condition}`; None if no row satisfies them.

        Args:
            left_out: takes the conditions that do not count, and why.
        """
        conditions: dict[str, Condition] = {}
        own = [(self._spelled(self._schema.table(read.table), atom.field.name), atom) for atom in read.atoms]
        for column, atom in [*own, *(_of_one_parent(read, lookups) if read.parents else ())]:
            condition = self._condition(atom, values)
            if isinstance(condition, Unused):
                left_out.append((atom, condition))
                continue
            merged = intersection(conditions[column], condition) if column in conditions else condition
            if merged == _UNSATISFIABLE:
                return None
            conditions[column] = merged
        return conditions

    def _condition(self, atom: RowAtom, values: ParameterValues) -> Condition | Unused:
        """Return the condition of `atom` on its column; why there is none if that is not sure."""
        kind = self._kind(atom)
        if kind is None:
            return Unused.INEXACT
        if isinstance(atom, Nullness):
            return IsNull() if atom.null else NotNull()
        given = self._given(atom.operand, values)
        if given is None or len(given) > MAX_VALUES:
            return Unused.TOO_MANY
        # NULL compares true with nothing.
        found = [comparable(value, kind, self._dialect) for value in given if value is not None]
        known = [value for value in found if value is not None]
        if len(known) != len(found):
            return Unused.INCOMPARABLE
        return self._comparison(atom, kind, known) or Unused.UNORDERED

    def _given(self, operand: Operand, values: ParameterValues) -> Sequence[object] | None:
        if isinstance(operand, Constant):
            return (operand.value,)
        given, (first, width) = values(operand.name), operand.place
        return None if given is None else given[first::width]

    def _kind(self, atom: RowAtom) -> ColumnKind | None:
        """Return how the atom's column compares; None if unsure, or if a carried value met another kind."""
        kind = self._kind_of(atom.field)
        path = atom.path if isinstance(atom, Comparison) else ()
        if path and kind == "real":
            return None
        return kind if all(self._kind_of(field) == kind for field in path) else None

    def _kind_of(self, field: Field) -> ColumnKind | None:
        table = self._schema.table(field.table)
        return None if table is None else self._schema.kind(table, self._spelled(table, field.name))

    def _comparison(self, atom: Comparison, kind: ColumnKind, values: list[Comparable]) -> Condition | None:
        if atom.operator in ("eq", "in") or not values:
            return Equals(frozenset(values))
        bound = values[0]
        if not ordered(kind):
            return None
        if atom.operator in ("gt", "ge"):
            return Between(bound, atom.operator == "ge", None, False)
        return Between(None, False, bound, atom.operator == "le")


def _windowed(test: RowTest | None, shown: Expression) -> RowTest:
    """Return a test with where its window ends as one more condition of the WHERE."""
    predicate = None if test is None else test.predicate
    parts = predicate.arguments if isinstance(predicate, RowOperation) else ()
    columns: frozenset[str] = frozenset() if test is None else test.columns
    # INVARIANT (such a read is of no row that an outer join leaves out): so whatever fails it cannot matter.
    found = RowTest(RowOperation("and", (*parts, shown)), columns, narrows=True, is_windowed=True)
    return found if test is None else replace(found, of_parents=test.of_parents, aggregated=test.aggregated)


def _resting(
    read: Read, lookups: Mapping[ParentAtom, Lookup], *, conditions: Mapping[str, Condition], test: RowTest | None
) -> tuple[Lookup, ...]:
    """Return the look-ups of the virtual columns that conditions or a test name."""
    named = {*conditions, *(each.virtual for each in (() if test is None else test.of_parents))}
    used = dict.fromkeys(lookups[atom] for atom in read.parents if atom in lookups)
    return tuple(lookup for lookup in used if lookup.name in named)


def _of_one_parent(read: Read, lookups: Mapping[ParentAtom, Lookup]) -> Iterator[tuple[str, RowAtom]]:
    """Yield the atoms about parents, by virtual column; of several that one leads to, about the first alone."""
    chosen: dict[str, tuple[int, ...]] = {}
    for atom in read.parents:
        if atom in lookups and not isinstance(atom.last, RowFormula):
            name = lookups[atom].name
            # INVARIANT (conditions are joined by AND if one row has to satisfy them all): two aliases of a table may
            # be two parents, each of which satisfies its own conditions.
            if chosen.setdefault(name, atom.parents) == atom.parents:
                yield name, atom.last


def _expressed(test: RowTest | None) -> Iterator[str]:
    """Yield the conditions that are evaluated on rows, and that some row is known to fail."""
    if test is not None and test.narrows and isinstance(test.predicate, RowOperation):
        yield from (expressed(part) for part in test.predicate.arguments if columns_of(part) and may_fail(part))
    if test is not None:
        yield from map(expressed, filter(may_fail, test.of_parents))


def _parts(conditions: Mapping[str, Condition]) -> Iterator[Mapping[str, Condition]]:
    """Split the longest list of values, so that the lists spell few enough keys together."""
    lists = {column: condition.values for column, condition in conditions.items() if isinstance(condition, Equals)}
    if prod(map(len, lists.values())) <= MAX_KEYS:
        yield conditions
        return
    longest = max(lists, key=lambda column: len(lists[column]))
    others = prod(len(values) for column, values in lists.items() if column != longest)
    size = max(1, MAX_KEYS // others)
    # In order, so that a statement that runs again has the same constraints.
    values = sorted(lists[longest], key=lambda value: (str(type(value)), value))
    for start in range(0, len(values), size):
        yield {**conditions, longest: Equals(frozenset(values[start : start + size]))}


def intersection(left: Condition, right: Condition) -> Condition:
    """Return the condition that holds where both hold, or a wider one; `Equals` of nothing if none can.

    >>> intersection(Equals(frozenset({1, 2})), Between(2, True, None, False))
    Equals(values=(2,))
    """
    if isinstance(left, Equals):
        return Equals(frozenset(value for value in left.values if right.admits(value)))
    if isinstance(right, Equals):
        return intersection(right, left)
    if isinstance(left, IsNull) or isinstance(right, IsNull):
        return left if type(left) is type(right) else _UNSATISFIABLE
    if isinstance(left, NotNull):
        return right
    if isinstance(right, NotNull):
        return left
    return _overlap(left, right)


def _overlap(left: Between, right: Between) -> Between:
    low = _tightest([(left.low, left.low_inclusive), (right.low, right.low_inclusive)], _higher)
    high = _tightest([(left.high, left.high_inclusive), (right.high, right.high_inclusive)], _lower)
    return Between(*low, *high)


_Bound = tuple[Comparable | None, bool]


def _tightest(bounds: Iterable[_Bound], tighter: Callable[[Comparable, Comparable], bool]) -> _Bound:
    """Return the tightest bound; of two of different kinds the first stays, which is wider."""
    best: _Bound = (None, False)
    for value, inclusive in bounds:
        if value is None or (best[0] is not None and isinstance(value, str) != isinstance(best[0], str)):
            continue
        if best[0] is None or tighter(value, best[0]) or (value == best[0] and not inclusive):
            best = (value, inclusive)
    return best


def _higher(value: Comparable, than: Comparable) -> bool:
    return value > than  # type: ignore[operator]  # same kind: the caller has checked


def _lower(value: Comparable, than: Comparable) -> bool:
    return value < than  # type: ignore[operator]  # same kind: the caller has checked
