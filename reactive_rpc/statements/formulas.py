"""Read a condition as a formula over one row, for what columns, values and AND of atoms (`predicates.py`) do not say.

A formula is evaluated on images (`dependencies/expressions.py`), so it must say just what the condition does, TRUE,
FALSE and NULL: a part that is not understood is *unread*, and its value is not known. `formula_binding.py` puts in
columns and values, and decides what the database's kinds let be known.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy.sql import operators, sqltypes
from sqlalchemy.sql.elements import (
    AsBoolean,
    BinaryExpression,
    BindParameter,
    Case,
    Cast,
    ExpressionClauseList,
    False_,
    Null,
    True_,
    Tuple,
    UnaryExpression,
)
from sqlalchemy.sql.functions import Function, FunctionElement

from reactive_rpc.statements.predicates import Constant, Field, Parameter, field_of, ungrouped

__all__ = [
    "NULL",
    "PERCENT",
    "UNREAD",
    "Applied",
    "Formula",
    "FormulaReader",
    "Missing",
    "fields_in",
    "has_unread",
    "is_null_of_null",
    "is_plain_call",
    "is_said_by_atoms",
]


@dataclass(frozen=True, slots=True)
class Missing:
    """NULL, or a part that is not understood."""

    is_null: bool


@dataclass(frozen=True, slots=True)
class Applied:
    """An operation of `dependencies/expressions.py`, or `in` of a value and a list, or one of LIKE's.

    Attributes:
        detail: of LIKE the escape; None if none was given.
    """

    name: str
    arguments: tuple[Formula, ...]
    detail: str | None = None


Formula = Field | Parameter | Constant | Missing | Applied

UNREAD: Final = Missing(is_null=False)
NULL: Final = Missing(is_null=True)

_COMPARED: Final[Mapping[Any, str]] = {
    operators.eq: "=",
    operators.lt: "<",
    operators.le: "<=",
    operators.gt: ">",
    operators.ge: ">=",
    operators.is_: "is same",
    operators.is_not_distinct_from: "is same",
    operators.add: "+",
    operators.sub: "-",
    operators.mul: "*",
    operators.mod: "%",
    operators.concat_op: "||",
    operators.like_op: "like",
    operators.ilike_op: "ilike",
    operators.contains_op: "like",
    operators.icontains_op: "ilike",
    operators.startswith_op: "like",
    operators.istartswith_op: "ilike",
    operators.endswith_op: "like",
    operators.iendswith_op: "ilike",
    operators.in_op: "in",
}
_NEGATIONS: Final[Mapping[Any, Any]] = {
    operators.ne: operators.eq,
    operators.is_not: operators.is_,
    operators.is_distinct_from: operators.is_not_distinct_from,
    operators.not_in_op: operators.in_op,
    operators.not_between_op: operators.between_op,
    operators.not_like_op: operators.like_op,
    operators.not_ilike_op: operators.ilike_op,
    operators.not_contains_op: operators.contains_op,
    operators.not_icontains_op: operators.icontains_op,
    operators.not_startswith_op: operators.startswith_op,
    operators.not_istartswith_op: operators.istartswith_op,
    operators.not_endswith_op: operators.endswith_op,
    operators.not_iendswith_op: operators.iendswith_op,
}
_PERCENTS: Final[Mapping[Any, tuple[bool, bool]]] = {
    operators.contains_op: (True, True),
    operators.icontains_op: (True, True),
    operators.startswith_op: (False, True),
    operators.istartswith_op: (False, True),
    operators.endswith_op: (True, False),
    operators.iendswith_op: (True, False),
}
"""`{operator: whether % stands before and after the operand}`."""
_STRICT: Final = {operators.lt: "<", operators.le: "<", operators.gt: ">", operators.ge: ">"}
_FUNCTIONS: Final[Mapping[str, tuple[str, int]]] = {
    "char_length": ("length", 1),
    "length": ("length", 1),
    "lower": ("lower", 1),
    "nullif": ("nullif", 2),
    "upper": ("upper", 1),
}
"""`{function: operation, number of arguments}`."""
PERCENT: Final = Applied("percent", ())


def fields_in(formula: Formula) -> frozenset[Field]:
    """Return the columns in a formula."""
    if isinstance(formula, Applied):
        return frozenset[Field]().union(*map(fields_in, formula.arguments))
    return frozenset({formula}) if isinstance(formula, Field) else frozenset()


def has_unread(formula: Formula) -> bool:
    """Tell whether a part is not understood."""
    return formula == UNREAD or (isinstance(formula, Applied) and any(map(has_unread, formula.arguments)))


def is_plain_call(function: FunctionElement[Any]) -> bool:
    """Tell whether SQLAlchemy itself renders a function, as a plain call of a function without a schema."""
    is_known = isinstance(function, Function) or type(function).__module__ == "sqlalchemy.sql.functions"
    return is_known and not getattr(function, "packagenames", ())


def is_null_of_null(formula: Formula) -> bool:
    """Tell whether a formula of one column is surely NULL, and so not TRUE, if the column is."""
    if isinstance(formula, Field):
        return True
    return isinstance(formula, Applied) and formula.name in _STRICTS and any(map(is_null_of_null, formula.arguments))


@dataclass(slots=True)
class FormulaReader:
    """Reads the conditions of one compiled statement, as they are about one occurrence of a table.

    Attributes:
        name_of: as of `PredicateReader`.
        source: the occurrence.
        fields: how often each of its columns was read.
    """

    name_of: Callable[[BindParameter[Any]], str | None]
    source: int
    fields: Counter[str] = field(default_factory=Counter)

    def read(self, expression: Any) -> Formula:
        """Return the formula of an expression."""
        expression = ungrouped(expression)
        found = field_of(expression)
        if found is not None:
            return self._field(found)
        read = next((read for kind, read in _READERS.items() if isinstance(expression, kind)), None)
        return UNREAD if read is None else read(self, expression)

    def _field(self, found: Field) -> Formula:
        if found.source != self.source:
            return UNREAD
        self.fields[found.name] += 1
        return found

    def _parameter(self, parameter: BindParameter[Any]) -> Formula:
        name = self.name_of(parameter)
        return UNREAD if name is None else Parameter(name)

    def _as_boolean(self, expression: AsBoolean) -> Formula:
        is_true = expression.operator is operators.is_true
        inner = self.read(expression.element)
        if isinstance(inner, Applied) and inner.name in _TRUTHS:
            return inner if is_true else Applied("not", (inner,))
        # Rendered as "= 1" or "= 0", or bare where the database knows booleans: they are 1 and 0 in an image.
        return Applied("=", (inner, Constant(int(is_true))))

    def _unary(self, expression: UnaryExpression[Any]) -> Formula:
        return Applied("not", (self.truth(expression.element),)) if expression.operator is operators.inv else UNREAD

    def _list(self, expression: ExpressionClauseList[Any]) -> Formula:
        if expression.operator not in (operators.and_, operators.or_):
            return UNREAD
        name = "and" if expression.operator is operators.and_ else "or"
        return Applied(name, tuple(map(self.truth, expression.clauses)))

    def truth(self, expression: Any) -> Formula:
        """Read a condition as AND, OR and NOT take it: a truth value."""
        found = self.read(expression)
        if isinstance(found, Applied) and found.name in _TRUTHS:
            return found
        return found if isinstance(found, Constant) else UNREAD

    def _binary(self, expression: BinaryExpression[Any]) -> Formula:
        operator: Any = expression.operator
        if operator in _NEGATIONS:
            return Applied("not", (self._positive(expression, _NEGATIONS[operator]),))
        return self._positive(expression, operator)

    def _positive(self, expression: BinaryExpression[Any], operator: Any) -> Formula:
        left, right = ungrouped(expression.left), ungrouped(expression.right)
        if isinstance(left, Tuple):
            return self._row(list(left.clauses), operator, right)
        if operator is operators.between_op:
            return UNREAD if expression.modifiers.get("symmetric") else self._between(left, right)
        name = _COMPARED.get(operator)
        if name is None:
            return UNREAD
        if name in ("like", "ilike"):
            return self._like(name, expression, operator)
        if name == "in":
            listed = isinstance(right, BindParameter) and right.expanding
            return Applied("in", (self.read(left), self.read(right))) if listed else UNREAD
        return Applied(name, (self.read(left), self.read(right)))

    def _between(self, left: Any, right: Any) -> Formula:
        # The database evaluates a column once; here it is read once and compared twice.
        value, (low, high) = self.read(left), (self.read(bound) for bound in right.clauses)
        return Applied("and", (Applied(">=", (value, low)), Applied("<=", (value, high))))

    def _like(self, name: str, expression: BinaryExpression[Any], operator: Any) -> Formula:
        escape = expression.modifiers.get("escape")
        if not (escape is None or (isinstance(escape, str) and len(escape) == 1)):
            return UNREAD
        before, after = _PERCENTS.get(operator, (False, False))
        pattern = self.read(expression.right)
        pattern = Applied("||", (PERCENT, pattern)) if before else pattern
        pattern = Applied("||", (pattern, PERCENT)) if after else pattern
        return Applied(name, (self.read(expression.left), pattern), escape)

    def _row(self, columns: list[Any], operator: Any, right: Any) -> Formula:
        """Read a comparison of row values by the rule of `PredicateReader`; NULL and FALSE come out the same, too."""
        if not isinstance(right, Tuple) or len(right.clauses) != len(columns):
            return UNREAD
        pairs = [(self.read(left), self.read(value)) for left, value in zip(columns, right.clauses, strict=True)]
        if operator is operators.eq:
            return Applied("and", tuple(Applied("=", pair) for pair in pairs))
        return self._row_order(pairs, operator) if operator in _STRICT else UNREAD

    def _row_order(self, pairs: list[tuple[Formula, Formula]], operator: Any) -> Formula:
        *first, last = pairs
        found = Applied(_COMPARED[operator], last)
        for pair in reversed(first):
            found = Applied("or", (Applied(_STRICT[operator], pair), Applied("and", (Applied("=", pair), found))))
        return found

    def _function(self, function: FunctionElement[Any]) -> Formula:
        if not is_plain_call(function):
            return UNREAD
        name, arguments = str(getattr(function, "name", "")).lower(), list(function.clauses)
        if name == "coalesce" and len(arguments) > 1:
            return Applied("coalesce", tuple(map(self.read, arguments)))
        operation, count = _FUNCTIONS.get(name, ("", -1))
        return Applied(operation, tuple(map(self.read, arguments))) if len(arguments) == count else UNREAD

    def _case(self, case: Case[Any]) -> Formula:
        value = None if case.value is None else self.read(case.value)
        read: list[Formula] = []
        for when, then in case.whens:
            read += (self.truth(when) if value is None else Applied("=", (value, self.read(when))), self.read(then))
        return Applied("case", (*read, NULL if case.else_ is None else self.read(case.else_)))

    def _cast(self, cast: Cast[Any]) -> Formula:
        operation = next(_cast_operations(cast.type), None)
        return UNREAD if operation is None else Applied(operation, (self.read(cast.clause),))


def _cast_operations(type_: Any) -> Iterator[str]:
    if type(type_) in _INTEGERS:
        yield "as integer"
    if type(type_) in _TEXTS and type_.length is None and type_.collation is None:
        yield "as text"


def is_said_by_atoms(formula: Formula) -> bool:
    """Tell whether the atoms of `predicates.py` say as much of a row."""
    match formula:
        case Missing():
            return True
        case Applied("and" | "or", arguments):
            return all(map(is_said_by_atoms, arguments))
        case Applied("not", (Applied("is same", (Field(), Missing(is_null=True))),)):
            return True
        case Applied("is same", (Field(), Missing(is_null=True))):
            return True
        case Applied("=" | "<" | "<=" | ">" | ">=" | "in", (Field(), Parameter() | Constant() | Missing())):
            return True
        case Applied("=" | "<" | "<=" | ">" | ">=", (Parameter() | Constant() | Missing(), Field())):
            return True
    return False


_INTEGERS: Final = (sqltypes.Integer, sqltypes.BigInteger, sqltypes.INTEGER, sqltypes.BIGINT)
_TEXTS: Final = (sqltypes.String, sqltypes.Text, sqltypes.Unicode, sqltypes.VARCHAR, sqltypes.TEXT)

_STRICTS: Final = frozenset({
    "=", "<", "<=", ">", ">=", "not", "like", "ilike", "+", "-", "*", "%", "||",
    "lower", "upper", "length", "as text", "as integer",
})  # fmt: skip
"""The operations that are NULL if an argument is; `in` is not, of an empty list."""

_TRUTHS: Final = frozenset({"=", "<", "<=", ">", ">=", "is same", "in", "like", "ilike", "and", "or", "not"})
"""The operations whose value is a truth value."""

_READERS: Final[Mapping[type, Callable[[FormulaReader, Any], Formula]]] = {
    BindParameter: FormulaReader._parameter,
    True_: lambda _reader, _expression: Constant(1),
    False_: lambda _reader, _expression: Constant(0),
    Null: lambda _reader, _expression: NULL,
    AsBoolean: FormulaReader._as_boolean,
    UnaryExpression: FormulaReader._unary,
    ExpressionClauseList: FormulaReader._list,
    BinaryExpression: FormulaReader._binary,
    FunctionElement: FormulaReader._function,
    Case: FormulaReader._case,
    Cast: FormulaReader._cast,
}
"""AsBoolean is a kind of UnaryExpression: it comes first."""
