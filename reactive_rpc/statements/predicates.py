"""Read a WHERE as a disjunction of conjunctions of atoms.

The one rule: whenever the predicate is TRUE (not NULL) for a row, at least one conjunction's atoms all hold. What is
not understood says nothing, so it is left out of its conjunction, which makes it wider. SQL's three values need no
more care than that: NOT(x < 5) and x >= 5 are NULL for the same rows, and a negation that no atom expresses (NOT x = 5)
is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Final, Literal

from sqlalchemy.sql import operators
from sqlalchemy.sql.elements import (
    AsBoolean,
    BinaryExpression,
    BindParameter,
    ColumnClause,
    ExpressionClauseList,
    False_,
    Grouping,
    Null,
    True_,
    Tuple,
    UnaryExpression,
)
from sqlalchemy.sql.lambdas import LambdaElement
from sqlalchemy.sql.selectable import ScalarSelect, SelectStatementGrouping

from reactive_rpc.compat.sqlalchemy import resolved_lambda
from reactive_rpc.statements.tables import base_table, derived_select

__all__ = [
    "ANYTHING",
    "DERIVED",
    "MAX_TERMS",
    "NEVER",
    "Atom",
    "Comparison",
    "Constant",
    "Exists",
    "Field",
    "Nullness",
    "Operand",
    "Operator",
    "Parameter",
    "PredicateReader",
    "SameValue",
    "Term",
    "Terms",
    "conjunction",
    "field_of",
    "ungrouped",
]

_OF_PARTS: Final = (operators.and_, operators.or_, operators.inv)

DERIVED: Final = ""
"""The name of a table that is none: a derived table or a CTE (`bodies.py` puts the columns behind its in)."""

MAX_TERMS: Final = 64
"""A predicate with more conjunctions than this is read as saying nothing."""

Operator = Literal["eq", "in", "lt", "le", "gt", "ge"]


@dataclass(frozen=True, slots=True)
class Field:
    """A column of one occurrence of a table in a FROM.

    Attributes:
        source: the identity of the occurrence: two aliases of a table differ.
        table: the table's full name; `DERIVED` if it is a SELECT in a FROM.
        name: the column's name.
    """

    source: int
    table: str
    name: str

    @property
    def qualified(self) -> str:
        """The column with its table, for people."""
        return f"{self.table}.{self.name}"


@dataclass(frozen=True, slots=True)
class Parameter:
    """A bound parameter.

    Attributes:
        name: under which the compiled statement knows it.
        place: `(i, n)` if it is a list of n-tuples, one after the other, and the i-th of each is meant.
    """

    name: str
    place: tuple[int, int] = (0, 1)


@dataclass(frozen=True, slots=True)
class Constant:
    """A value that the text itself holds: TRUE and FALSE, as 1 and 0."""

    value: int


Operand = Parameter | Constant


@dataclass(frozen=True, slots=True)
class Comparison:
    """The field compares so with a value; never true for NULL.

    Attributes:
        path: the fields whose equality carried this here; the value compares alike only if all are of one kind.
    """

    field: Field
    operator: Operator
    operand: Operand
    path: tuple[Field, ...] = ()


@dataclass(frozen=True, slots=True)
class Nullness:
    """The field is NULL, or is not."""

    field: Field
    null: bool


@dataclass(frozen=True, slots=True)
class SameValue:
    """Two fields are equal."""

    left: Field
    right: Field


@dataclass(frozen=True, slots=True)
class Exists:
    """A SELECT inside yields a row.

    Attributes:
        body: the index of that SELECT.
        equal: `(field, place)`: the row's column at that place equals the field.
        is_any: whether any row will do; else which one is compared rests on the others, too.
    """

    body: int
    equal: tuple[tuple[Field, int], ...] = ()
    is_any: bool = True


Atom = Comparison | Nullness | SameValue | Exists
Term = tuple[Atom, ...]
Terms = tuple[Term, ...]

ANYTHING: Final[Terms] = ((),)
"""Says nothing: one conjunction without an atom."""

NEVER: Final[Terms] = ()
"""Is never true."""

_COMPARISONS: Final[dict[Any, Operator]] = {
    operators.eq: "eq",
    operators.lt: "lt",
    operators.le: "le",
    operators.gt: "gt",
    operators.ge: "ge",
}
_NEGATED: Final[dict[Any, Any]] = {
    operators.eq: operators.ne,
    operators.ne: operators.eq,
    operators.lt: operators.ge,
    operators.ge: operators.lt,
    operators.gt: operators.le,
    operators.le: operators.gt,
    operators.is_: operators.is_not,
    operators.is_not: operators.is_,
    operators.in_op: operators.not_in_op,
    operators.not_in_op: operators.in_op,
    operators.between_op: operators.not_between_op,
    operators.not_between_op: operators.between_op,
}
_MIRRORED: Final[dict[Any, Any]] = {
    operators.eq: operators.eq,
    operators.lt: operators.gt,
    operators.gt: operators.lt,
    operators.le: operators.ge,
    operators.ge: operators.le,
}
_STRICT: Final[dict[Any, Any]] = {
    operators.lt: operators.lt,
    operators.le: operators.lt,
    operators.gt: operators.gt,
    operators.ge: operators.gt,
}


def field_of(expression: object) -> Field | None:
    """Return the table column that `expression` is; None for anything else."""
    if not isinstance(expression, ColumnClause) or expression.is_literal:
        return None
    table = base_table(expression.table)
    if derived_select(expression.table) is not None:
        return Field(hash(expression.table), DERIVED, expression.name)
    # An annotated FROM hashes like the one it annotates: they are the same occurrence.
    return None if table is None else Field(hash(expression.table), table.fullname, expression.name)


def conjunction(parts: Iterable[Terms]) -> Terms:
    """Return the terms of AND; a part that would make too many is left out."""
    terms = ANYTHING
    for part in parts:
        if len(terms) * len(part) <= MAX_TERMS:
            terms = tuple(left + right for left, right in product(terms, part))
    return terms


def disjunction(parts: Iterable[Terms]) -> Terms:
    """Return the terms of OR; too many say nothing."""
    terms = tuple(term for part in parts for term in part)
    return terms if len(terms) <= MAX_TERMS else ANYTHING


def ungrouped(expression: Any) -> Any:
    while isinstance(expression, Grouping | LambdaElement):
        expression = expression.element if isinstance(expression, Grouping) else resolved_lambda(expression)
    return expression


class PredicateReader:
    """Reads the predicates of one compiled statement.

    Args:
        name_of: the name of a bound parameter whose value reaches the database as it is bound; None for any other:
            one that its type wraps into SQL, or that the statement does not render.
        body_of: the index of the SELECT that an element is, if each of its rows comes of a row that passes its WHERE;
            None for any other element.

    Attributes:
        unread: the parts that said nothing.
    """

    def __init__(
        self,
        name_of: Callable[[BindParameter[Any]], str | None],
        body_of: Callable[[object], int | None] = lambda element: None,
    ) -> None:
        self._name_of = name_of
        self._body_of = body_of
        self.unread: list[Any] = []

    def terms(self, expression: Any, negated: bool = False) -> Terms:
        """Return the terms of `expression`, or of NOT `expression`."""
        expression = ungrouped(expression)
        terms = self._terms(expression, negated)
        if terms == ANYTHING and getattr(expression, "operator", None) not in _OF_PARTS:
            self.unread.append(expression)
        return terms

    def _terms(self, expression: Any, negated: bool) -> Terms:
        if isinstance(expression, True_ | False_):
            return ANYTHING if isinstance(expression, True_) != negated else NEVER
        if isinstance(expression, AsBoolean):
            return self._as_boolean(expression, negated)
        if isinstance(expression, UnaryExpression) and expression.operator is operators.inv:
            return self.terms(expression.element, not negated)
        if isinstance(expression, UnaryExpression) and expression.operator is operators.exists:
            return ANYTHING if negated else self._exists(expression.element, ())
        if isinstance(expression, ExpressionClauseList) and expression.operator in (operators.and_, operators.or_):
            parts = [self.terms(clause, negated) for clause in expression.clauses]
            return conjunction(parts) if (expression.operator is operators.and_) != negated else disjunction(parts)
        if isinstance(expression, BinaryExpression):
            return self._binary(expression, negated)
        return ANYTHING

    def _as_boolean(self, expression: AsBoolean, negated: bool) -> Terms:
        truth = expression.operator is operators.is_true
        field = field_of(ungrouped(expression.element))
        if field is None:
            return self.terms(expression.element, negated != (not truth))
        # Where booleans are numbers this renders "= 1" or "= 0", and NOT of it holds for every other number.
        return ANYTHING if negated else ((Comparison(field, "eq", Constant(int(truth))),),)

    def _binary(self, expression: BinaryExpression[Any], negated: bool) -> Terms:
        left, right = ungrouped(expression.left), ungrouped(expression.right)
        operator: Any = expression.operator
        if negated:
            operator = _NEGATED.get(operator)
        if isinstance(left, Tuple):
            return self._row(list(left.clauses), operator, right)
        if operator in (operators.is_, operators.is_not):
            return self._is(left, right, operator is operators.is_not)
        if operator is operators.in_op and not isinstance(right, BindParameter):
            return self._exists(right, [left])
        if operator is operators.in_op:
            return self._compare(left, "in", right)
        if operator is operators.between_op and not expression.modifiers.get("symmetric"):
            return self._between(left, right)
        if field_of(left) is None and operator in _MIRRORED:
            left, right, operator = right, left, _MIRRORED[operator]
        if operator is operators.eq and isinstance(right, ScalarSelect):
            return self._exists(right, [left], is_any=False)
        if operator in _COMPARISONS:
            return self._compare(left, _COMPARISONS[operator], right)
        return ANYTHING

    def _exists(self, element: Any, compared: Sequence[Any], *, is_any: bool = True) -> Terms:
        """Read that a SELECT yields a row whose columns equal `compared`."""
        while isinstance(element, Grouping | ScalarSelect | SelectStatementGrouping):
            element = element.element
        body = self._body_of(element)
        if body is None:
            return ANYTHING
        fields = enumerate(field_of(ungrouped(each)) for each in compared)
        equal = tuple((field, place) for place, field in fields if field is not None)
        return ((Exists(body, equal, is_any),),)

    def _row(self, columns: list[Any], operator: Any, right: Any) -> Terms:
        """Read a comparison of row values, column by column."""
        if operator is operators.in_op and isinstance(right, BindParameter):
            width = len(columns)
            return conjunction(self._compare(each, "in", right, (i, width)) for i, each in enumerate(columns))
        if operator is operators.in_op:
            return self._exists(right, columns)
        if not isinstance(right, Tuple) or len(right.clauses) != len(columns):
            return ANYTHING
        values = list(right.clauses)
        if operator is operators.eq:
            pairs = zip(columns, values, strict=True)
            return conjunction(self._compare(ungrouped(left), "eq", ungrouped(value)) for left, value in pairs)
        return self._row_order(columns, operator, values) if operator in _STRICT else ANYTHING

    def _row_order(self, columns: list[Any], operator: Any, values: list[Any]) -> Terms:
        """Read `(a, b) > (x, y)` as `a > x OR (a = x AND b > y)`.

        INVARIANT (TRUE for the same rows): the databases compare from the left until two values differ, or one is
        NULL. So a comparison that is TRUE was decided by one column, before which all are equal; the last one decides
        also if it is equal, where the operator says so.
        """
        terms: list[Terms] = []
        before: Terms = ANYTHING
        for place, (column, value) in enumerate(zip(map(ungrouped, columns), map(ungrouped, values), strict=True)):
            decides = operator if place == len(columns) - 1 else _STRICT[operator]
            terms.append(conjunction([before, self._compare(column, _COMPARISONS[decides], value)]))
            before = conjunction([before, self._compare(column, "eq", value)])
        return disjunction(terms)

    def _is(self, left: Any, right: Any, negated: bool) -> Terms:
        field = field_of(left)
        if field is None:
            return ANYTHING
        if isinstance(right, Null):
            return ((Nullness(field, not negated),),)
        if isinstance(right, True_ | False_) and not negated:
            return self._compare(left, "eq", right)
        return ANYTHING

    def _between(self, left: Any, right: Any) -> Terms:
        low, high = (ungrouped(bound) for bound in right.clauses)
        return conjunction([self._compare(left, "ge", low), self._compare(left, "le", high)])

    def _compare(self, left: Any, operator: Operator, right: Any, place: tuple[int, int] = (0, 1)) -> Terms:
        field, other = field_of(left), field_of(right)
        if field is None:
            return ANYTHING
        if other is not None:
            return ((SameValue(field, other),),) if operator == "eq" else ANYTHING
        operand = self._operand(right, operator, place)
        return ANYTHING if operand is None else ((Comparison(field, operator, operand),),)

    def _operand(self, expression: Any, operator: Operator, place: tuple[int, int]) -> Operand | None:
        if isinstance(expression, True_ | False_):
            return Constant(int(isinstance(expression, True_)))
        if not isinstance(expression, BindParameter) or bool(expression.expanding) != (operator == "in"):
            return None
        name = self._name_of(expression)
        return None if name is None else Parameter(name, place)
