"""Put columns and values into a formula: what of it the database's kinds let be known, and what is `UNKNOWN`.

INVARIANT (known only if Python computes it as the database does): a column without a kind, a value that its kind may
convert, and two sides of different kinds are not known. That of a part which is not known costs only what rests on it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from reactive_rpc.dependencies.change import UNKNOWN, Value
from reactive_rpc.dependencies.expressions import (
    INTEGER_BOUND,
    OPERATIONS,
    SMALL_BOUND,
    ColumnRef,
    Expression,
    FixedValue,
    Membership,
    RowOperation,
    value_of,
)
from reactive_rpc.dependencies.schema import ColumnKind
from reactive_rpc.statements.comparable_values import comparable, ordered
from reactive_rpc.statements.formulas import Applied, Formula, Missing
from reactive_rpc.statements.predicates import Constant, Field, Parameter

__all__ = ["MAX_LISTED", "FormulaBinder"]

MAX_LISTED: Final = 64
"""A longer list is not held beside the conditions."""

GivenValues = Sequence[object] | None
"""The values of a parameter, as the driver gets them; None if they are not known."""

_UNKNOWN: Final = FixedValue(UNKNOWN)
_TEXTS: Final[frozenset[ColumnKind]] = frozenset({"text", "label"})
_ORDERED: Final = frozenset({"<", "<=", ">", ">="})


@dataclass(frozen=True, slots=True)
class _Bound:
    """An expression and how its values compare; None if they may compare in any way."""

    expression: Expression
    kind: ColumnKind | None


_NOTHING: Final = _Bound(_UNKNOWN, None)


@dataclass(frozen=True, slots=True)
class FormulaBinder:
    """Binds formulas of one execution.

    Attributes:
        dialect: the database's name in SQLAlchemy.
        column_of: the spelling and the kind of a column; no kind if it is not exact.
        given: the values of a parameter.
        is_small: whether the database computes with a column in 16 bits.
    """

    dialect: str
    column_of: Callable[[Field], tuple[str, ColumnKind | None]]
    given: Callable[[Parameter | Constant], GivenValues]
    is_small: Callable[[Field], bool]

    def bind(self, formula: Formula) -> Expression:
        """Return the expression of a truth value."""
        return self._bind(formula).expression

    def bind_value(self, formula: Formula) -> Expression:
        """Return the expression of a value that is compared with nothing but itself, before and after a change."""
        if not isinstance(formula, Applied) or formula.name != "case":
            return self._bind(formula).expression
        *parts, last = formula.arguments
        pairs = zip(map(self.bind, parts[::2]), map(self.bind_value, parts[1::2]), strict=True)
        return RowOperation("case", (*(part for pair in pairs for part in pair), self.bind_value(last)))

    def _bind(self, formula: Formula, kind: ColumnKind | None = None) -> _Bound:
        """Bind a formula; a value of the statement's is compared as `kind`."""
        if isinstance(formula, Field):
            name, own = self.column_of(formula)
            return _NOTHING if own is None else _Bound(ColumnRef(name), own)
        if isinstance(formula, Missing):
            return _Bound(FixedValue(None), kind) if formula.is_null else _NOTHING
        if isinstance(formula, Applied):
            bind = _BINDERS.get(formula.name, FormulaBinder._compared)
            return bind(self, formula, kind)
        return self._value(formula, kind)

    def _value(self, operand: Parameter | Constant, kind: ColumnKind | None) -> _Bound:
        given = self.given(operand)
        if given is None or len(given) != 1:
            return _NOTHING
        if given[0] is None:
            return _Bound(FixedValue(None), kind)
        kind = kind or self._kind_of_value(given[0])
        value = None if kind is None else comparable(given[0], kind, self.dialect)
        return _NOTHING if value is None else _Bound(FixedValue(value), kind)

    @property
    def _computed_text(self) -> ColumnKind:
        """How text compares that is no column's: on PostgreSQL in an order that is not known here."""
        return "text" if self.dialect == "sqlite" else "label"

    def _kind_of_value(self, value: object) -> ColumnKind | None:
        """Return the kind of a value that stands beside no column."""
        if isinstance(value, str):
            return self._computed_text
        return "integer" if isinstance(value, int) else None

    def _alike(
        self, arguments: Sequence[Formula], kind: ColumnKind | None = None
    ) -> tuple[list[_Bound], ColumnKind] | None:
        """Bind arguments that are of one kind: that of those which have one by themselves."""
        own = [self._bind(each) for each in arguments if not isinstance(each, Parameter | Constant | Missing)]
        kinds: set[ColumnKind | None] = {each.kind for each in own} or {kind}
        if kinds == {None}:
            kinds = {bound.kind for each in arguments if (bound := self._bind(each)).kind is not None}
        if len(kinds) != 1 or (common := next(iter(kinds))) is None:
            return None
        return [self._bind(each, common) for each in arguments], common

    def _joined(self, formula: Applied, _kind: ColumnKind | None) -> _Bound:
        return _Bound(RowOperation(formula.name, tuple(map(self.bind, formula.arguments))), "integer")

    def _compared(self, formula: Applied, _kind: ColumnKind | None) -> _Bound:
        name, arguments = formula.name, formula.arguments
        if name == "is same" and any(each == Missing(is_null=True) for each in arguments):
            [value] = [each for each in arguments if each != Missing(is_null=True)] or [Missing(is_null=True)]
            return _Bound(RowOperation("is null", (self.bind(value),)), "integer")
        found = self._alike(arguments)
        if found is None or (name in _ORDERED and not ordered(found[1])):
            return _NOTHING
        return _Bound(RowOperation(name, self._numbers(*found)), "integer")

    def _numbers(self, sides: Sequence[_Bound], kind: ColumnKind) -> tuple[Expression, ...]:
        """Return the sides of a comparison; of two columns of numbers only numbers.

        SQLite's may hold text that their affinity could not convert, compared by a collation that nobody knows here.
        """
        found = tuple(each.expression for each in sides)
        if kind not in ("integer", "real") or any(isinstance(each, FixedValue) for each in found):
            return found
        return tuple(RowOperation("number", (each,)) for each in found)

    def _member(self, formula: Applied, _kind: ColumnKind | None) -> _Bound:
        value, listed = formula.arguments
        bound = self._bind(value)
        given = self.given(listed) if isinstance(listed, Parameter) else None
        if bound.kind is None or given is None or len(given) > MAX_LISTED:
            return _NOTHING
        values = [comparable(each, bound.kind, self.dialect) for each in given if each is not None]
        known = frozenset(each for each in values if each is not None)
        if None in values:
            return _NOTHING
        return _Bound(Membership(bound.expression, known, None in given), "integer")

    def _like(self, formula: Applied, _kind: ColumnKind | None) -> _Bound:
        value = self._bind(formula.arguments[0])
        pattern = self._bind(formula.arguments[1], "text")
        if value.kind not in _TEXTS or pattern.kind not in _TEXTS:
            return _NOTHING
        # A backslash escapes on PostgreSQL even if nobody says so.
        escape = formula.detail or ("\\" if self.dialect == "postgresql" else "")
        of_case = self._folding(formula, value)
        # INVARIANT (folded before anything in it escapes): SQLite has no ILIKE, so this is rendered as lower(...) LIKE
        # lower(...), where the case of an escape that is a letter counts.
        is_lowered = formula.name == "ilike" and self.dialect == "sqlite"
        written = _lowered(pattern.expression) if is_lowered else pattern.expression
        parts = (value.expression, written, FixedValue(escape), FixedValue(of_case))
        return _Bound(RowOperation("like", parts), "integer")

    def _folding(self, formula: Applied, value: _Bound) -> str:
        if formula.name == "like":
            return "unsure" if self.dialect == "sqlite" else ""
        # SQLAlchemy renders ILIKE as lower(...) LIKE lower(...) on SQLite, whose functions know ASCII alone.
        return "folded" if self.dialect == "sqlite" or value.kind == "text" else "all but i"

    def _folded(self, formula: Applied, _kind: ColumnKind | None) -> _Bound:
        name, value = formula.name, self._bind(formula.arguments[0], "text")
        if value.kind not in _TEXTS:
            return _NOTHING
        doubtful = "" if self.dialect == "sqlite" or value.kind == "text" else {"lower": "I", "upper": "i"}[name]
        return _Bound(RowOperation(name, (value.expression, FixedValue(doubtful))), value.kind)

    def _of_text(self, formula: Applied, _kind: ColumnKind | None) -> _Bound:
        name, values = formula.name, [self._bind(each, "text") for each in formula.arguments]
        kind: ColumnKind = "integer" if name == "length" else self._computed_text
        if any(each.kind not in _TEXTS for each in values):
            return _NOTHING
        found = tuple(each.expression for each in values)
        fixed = [each.value for each in found if isinstance(each, FixedValue)]
        if len(fixed) == len(found):
            return _Bound(FixedValue(OPERATIONS[name](fixed)), kind)
        return _Bound(RowOperation(name, found), kind)

    def _arithmetic(self, formula: Applied, _kind: ColumnKind | None) -> _Bound:
        name, values = formula.name, [self._bind(each, "integer") for each in formula.arguments]
        if any(each.kind not in ("integer", "numeric") for each in values):
            return _NOTHING
        bound = FixedValue(INTEGER_BOUND if self._is_wide(formula) else SMALL_BOUND)
        return _Bound(RowOperation(name, (*(each.expression for each in values), bound)), "integer")

    def _is_wide(self, formula: Formula) -> bool:
        """Tell whether the database surely computes a number in 32 bits or more.

        INVARIANT (a result that fails is not known): smallint and smallint are computed as smallint, and a parameter
        has the type that it is sent with, which may be that one.
        """
        if isinstance(formula, Field):
            return not self.is_small(formula)
        if not isinstance(formula, Applied):
            return False
        if formula.name in ("+", "-", "*", "%"):
            return any(map(self._is_wide, formula.arguments))
        if formula.name == "case":
            return all(map(self._is_wide, (*formula.arguments[1:-1:2], formula.arguments[-1])))
        return formula.name in ("length", "as integer") or all(map(self._is_wide, formula.arguments))

    def _cast(self, formula: Applied, _kind: ColumnKind | None) -> _Bound:
        name, value = formula.name, self._bind(formula.arguments[0])
        if value.kind not in (*_TEXTS, "integer"):
            return _NOTHING
        if name == "as integer":
            return _Bound(RowOperation(name, (value.expression,)), "integer")
        is_doubtful: Value = int(self.dialect == "postgresql")
        return _Bound(RowOperation(name, (value.expression, FixedValue(is_doubtful))), self._computed_text)

    def _one_of(self, formula: Applied, kind: ColumnKind | None) -> _Bound:
        found = self._alike(formula.arguments, kind)
        if found is None:
            return _NOTHING
        return _Bound(RowOperation(formula.name, self._numbers(*found)), found[1])

    def _case(self, formula: Applied, kind: ColumnKind | None) -> _Bound:
        arguments = formula.arguments
        conditions, values = arguments[:-1:2], [*arguments[1:-1:2], arguments[-1]]
        found = self._alike(values, kind)
        if found is None:
            return _NOTHING
        bound = [each.expression for each in found[0]]
        parts = [part for pair in zip(map(self.bind, conditions), bound[:-1], strict=True) for part in pair]
        return _Bound(RowOperation("case", (*parts, bound[-1])), found[1])


def _lowered(pattern: Expression) -> Expression:
    lowered = RowOperation("lower", (pattern, FixedValue("")))
    return FixedValue(value_of(lowered, {})) if isinstance(pattern, FixedValue) else lowered


_BINDERS: Final[Mapping[str, Callable[[FormulaBinder, Applied, ColumnKind | None], _Bound]]] = {
    **dict.fromkeys(("and", "or", "not"), FormulaBinder._joined),
    **dict.fromkeys(("+", "-", "*", "%"), FormulaBinder._arithmetic),
    **dict.fromkeys(("like", "ilike"), FormulaBinder._like),
    **dict.fromkeys(("lower", "upper"), FormulaBinder._folded),
    **dict.fromkeys(("length", "||"), FormulaBinder._of_text),
    **dict.fromkeys(("as text", "as integer"), FormulaBinder._cast),
    **dict.fromkeys(("coalesce", "nullif"), FormulaBinder._one_of),
    "case": FormulaBinder._case,
    "in": FormulaBinder._member,
    "percent": lambda _binder, _formula, _kind: _Bound(FixedValue("%"), "text"),
}
"""`{name: how it is bound}`; the others are comparisons."""
