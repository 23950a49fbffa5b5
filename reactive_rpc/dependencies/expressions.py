"""Expressions over one row, evaluated on its image with SQL's three values, and a fourth: not known.

An expression is made of a statement's WHERE (`statements/formulas.py`), its values bound. Its value is NULL as None, a
truth value as 1 or 0, and `UNKNOWN` if the image does not tell it: a column that was not captured, text that a locale
may fold in its own way, numbers past 31 bits. What is known is what the database itself computes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from reactive_rpc.dependencies.change import UNKNOWN, Image, Known, Unknown, Value

__all__ = [
    "INTEGER_BOUND",
    "OPERATIONS",
    "SMALL_BOUND",
    "ColumnRef",
    "Expression",
    "FixedValue",
    "Membership",
    "OfParents",
    "RowOperation",
    "RowValue",
    "columns_of",
    "parts_of",
    "truth_of",
    "value_of",
    "values_in",
]

RowValue = Value | Unknown
"""The value of an expression."""

INTEGER_BOUND: Final = 2**31
SMALL_BOUND: Final = 2**15
"""Integers below its type's bound are added and multiplied alike by both databases; past it PostgreSQL fails."""


@dataclass(frozen=True, slots=True)
class ColumnRef:
    """The row's value of a column."""

    name: str


@dataclass(frozen=True, slots=True)
class FixedValue:
    """A value of the statement's; `UNKNOWN` stands for a part that is not understood."""

    value: RowValue


@dataclass(frozen=True, slots=True)
class Membership:
    """Whether an expression equals one of some values; `has_null` if NULL is among them."""

    of: Expression
    values: frozenset[Known]
    has_null: bool


@dataclass(frozen=True, slots=True)
class RowOperation:
    """One of `OPERATIONS`, with its arguments."""

    name: str
    arguments: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class OfParents:
    """Whether a condition on `column` is TRUE for one of the parents whose values a virtual column holds."""

    virtual: str
    column: str
    condition: Expression


Expression = ColumnRef | FixedValue | Membership | RowOperation | OfParents


def value_of(expression: Expression, image: Image) -> RowValue:
    """Return the value of `expression` for a row.

    >>> doubled = RowOperation("*", (ColumnRef("n"), FixedValue(2), FixedValue(INTEGER_BOUND)))
    >>> value_of(doubled, {"n": 4}), value_of(doubled, {"n": None}), value_of(doubled, {})
    (8, None, UNKNOWN)
    """
    if isinstance(expression, ColumnRef):
        value = image.get(expression.name, UNKNOWN)
        return UNKNOWN if isinstance(value, frozenset) else value
    if isinstance(expression, FixedValue):
        return expression.value
    if isinstance(expression, Membership):
        return _is_member(value_of(expression.of, image), expression)
    if isinstance(expression, OfParents):
        return _holds_of_one(expression, image)
    return OPERATIONS[expression.name]([value_of(each, image) for each in expression.arguments])


def truth_of(expression: Expression, image: Image) -> bool | None:
    """Tell whether `expression` is TRUE for a row, and not FALSE or NULL; None if that is not known."""
    value = value_of(expression, image)
    return None if isinstance(value, Unknown) else value == 1


def columns_of(expression: Expression) -> frozenset[str]:
    """Return the columns in an expression."""
    if isinstance(expression, ColumnRef):
        return frozenset({expression.name})
    return frozenset[str]().union(*map(columns_of, parts_of(expression)))


def parts_of(expression: Expression) -> tuple[Expression, ...]:
    """Return the expressions right inside an expression."""
    match expression:
        case Membership(of, _, _):
            return (of,)
        case RowOperation(_, arguments):
            return arguments
        case OfParents(_, _, condition):
            return (condition,)
    return ()


def values_in(expression: Expression) -> frozenset[Known]:
    """Return the values of the statement's in an expression."""
    if isinstance(expression, FixedValue):
        is_value = expression.value is not None and not isinstance(expression.value, Unknown)
        return frozenset({expression.value}) if is_value else frozenset()  # type: ignore[arg-type]  # looked at above
    own = expression.values if isinstance(expression, Membership) else frozenset[Known]()
    return own.union(*map(values_in, parts_of(expression)))


def _holds_of_one(expression: OfParents, image: Image) -> RowValue:
    values = image.get(expression.virtual, UNKNOWN)
    if not isinstance(values, frozenset):
        return UNKNOWN
    truths = {truth_of(expression.condition, {expression.column: value}) for value in values}
    if True in truths:
        return 1
    return UNKNOWN if None in truths else 0


def _is_member(value: RowValue, membership: Membership) -> RowValue:
    # Of an empty list even NULL is no member.
    if not membership.values and not membership.has_null:
        return 0
    if value is None or isinstance(value, Unknown):
        return value
    if value in membership.values:
        return 1
    if any(isinstance(each, str) != isinstance(value, str) for each in membership.values):
        return UNKNOWN
    return None if membership.has_null else 0


def _null_fails(compute: Callable[..., RowValue]) -> Callable[[Sequence[RowValue]], RowValue]:
    """Return an operation that is NULL if an argument is, whatever the others are."""

    def operation(arguments: Sequence[RowValue]) -> RowValue:
        if None in arguments:
            return None
        return UNKNOWN if any(isinstance(each, Unknown) for each in arguments) else compute(*arguments)

    return operation


def _compared(compare: Callable[[int], bool]) -> Callable[[Sequence[RowValue]], RowValue]:
    """Return a comparison of two values of one kind, by the sign of their difference."""

    def compute(left: Known, right: Known) -> RowValue:
        if isinstance(left, str) != isinstance(right, str):
            return UNKNOWN
        return int(compare((left > right) - (left < right)))  # type: ignore[operator]  # of one kind, as was looked at

    return _null_fails(compute)


def _and(arguments: Sequence[RowValue]) -> RowValue:
    # INVARIANT (a FALSE decides, then what is not known, then a NULL): NULL AND unknown may be FALSE or NULL, which a
    # NOT around it tells apart.
    if 0 in arguments:
        return 0
    return _decided(arguments, 1)


def _or(arguments: Sequence[RowValue]) -> RowValue:
    if 1 in arguments:
        return 1
    return _decided(arguments, 0)


def _decided(arguments: Sequence[RowValue], otherwise: int) -> RowValue:
    if any(isinstance(each, Unknown) for each in arguments):
        return UNKNOWN
    return None if None in arguments else otherwise


def _is_null(arguments: Sequence[RowValue]) -> RowValue:
    [value] = arguments
    return value if isinstance(value, Unknown) else int(value is None)


def _is_same(arguments: Sequence[RowValue]) -> RowValue:
    """IS NOT DISTINCT FROM."""
    if any(isinstance(each, Unknown) for each in arguments):
        return UNKNOWN
    if None in arguments:
        return int(arguments[0] is arguments[1])
    return OPERATIONS["="](arguments)


def _coalesce(arguments: Sequence[RowValue]) -> RowValue:
    return next((value for value in arguments if value is not None), None)


def _nullif(arguments: Sequence[RowValue]) -> RowValue:
    equal = OPERATIONS["="](arguments)
    if isinstance(equal, Unknown):
        return equal
    return None if equal == 1 else arguments[0]


def _case(arguments: Sequence[RowValue]) -> RowValue:
    """Take conditions and values in turn, and at last the value of ELSE."""
    for condition, value in zip(arguments[:-1:2], arguments[1:-1:2], strict=True):
        if isinstance(condition, Unknown):
            return UNKNOWN
        if condition == 1:
            return value
    return arguments[-1]


def _computed(compute: Callable[[int, int], int]) -> Callable[[Sequence[RowValue]], RowValue]:
    """Return an operation on two integers and the bound of the type in which the database computes them."""

    def operation(left: Known, right: Known, bound: Known) -> RowValue:
        if type(left) is not int or type(right) is not int or type(bound) is not int:
            return UNKNOWN
        result = compute(left, right)
        return result if abs(result) < bound else UNKNOWN

    return _null_fails(operation)


def _remainder(left: Known, right: Known, _bound: Known) -> RowValue:
    if type(left) is not int or type(right) is not int or right == 0:
        return UNKNOWN
    # Both databases round towards zero, Python does not.
    remainder = abs(left) % abs(right)
    return remainder if left >= 0 else -remainder


def _folded(fold: Callable[[str], str]) -> Callable[[Sequence[RowValue]], RowValue]:
    """Return `lower` or `upper`; the second argument holds the letters that a locale may fold in its own way."""

    def compute(value: Known, doubtful: Known) -> RowValue:
        if not isinstance(value, str) or not isinstance(doubtful, str) or not value.isascii():
            return UNKNOWN
        return UNKNOWN if any(letter in value for letter in doubtful) else fold(value)

    return _null_fails(compute)


def _number(value: Known) -> RowValue:
    return UNKNOWN if isinstance(value, str) else value


def _length(value: Known) -> RowValue:
    return len(value) if isinstance(value, str) else UNKNOWN


def _joined(left: Known, right: Known) -> RowValue:
    return left + right if isinstance(left, str) and isinstance(right, str) else UNKNOWN


def _as_text(value: Known, doubtful: Known) -> RowValue:
    """CAST to text; `doubtful` is 1 if 0 and 1 may be truth values, which PostgreSQL spells in words."""
    if isinstance(value, str):
        return value
    return UNKNOWN if type(value) is not int or (doubtful == 1 and value in (0, 1)) else str(value)


_INTEGER: Final = re.compile(r"0|-?[1-9][0-9]{0,8}")


def _as_integer(value: Known) -> RowValue:
    if type(value) is int:
        return value
    return int(value) if isinstance(value, str) and _INTEGER.fullmatch(value) else UNKNOWN


def _like(parts: Sequence[RowValue]) -> RowValue:
    """LIKE of a value, a pattern, an escape and one of the names of `_READINGS`.

    INVARIANT (known only if every reading agrees): SQLite folds ASCII letters unless somebody has set
    `case_sensitive_like`; ILIKE folds them by the locale, of which some treat `i` in their own way. All fold alone
    what is ASCII alone.
    """
    # INVARIANT (what is not known before NULL): what SQLite compares with a BLOB is FALSE, and not NULL, if it is NULL.
    if any(isinstance(each, Unknown) for each in parts):
        return UNKNOWN
    if None in parts:
        return None
    if not all(isinstance(each, str) for each in parts):
        return UNKNOWN
    value, pattern, escape, folding = map(str, parts)
    if folding and not (value.isascii() and pattern.isascii()):
        return UNKNOWN
    readings = [_pattern(pattern, escape, reading) for reading in _READINGS[folding]]
    found = {None if each is None else each.fullmatch(value) is not None for each in readings}
    answer = found.pop()
    return UNKNOWN if found or answer is None else int(answer)


_READINGS: Final[Mapping[str, tuple[str, ...]]] = {
    "": ("exact",),
    "unsure": ("exact", "folded"),
    "folded": ("folded",),
    "all but i": ("folded", "all but i"),
}


@lru_cache(maxsize=2048)
def _pattern(pattern: str, escape: str, reading: str) -> re.Pattern[str] | None:
    """Return a LIKE pattern as a regular expression; None if it ends in its escape, or holds NUL."""
    parts, characters = [], iter(pattern)
    for character in characters:
        if escape and character == escape:
            literal = next(characters, None)
            if literal is None:
                return None
            parts.append(_literal(literal, reading))
        else:
            parts.append({"%": ".*", "_": "."}.get(character) or _literal(character, reading))
    if "\0" in pattern:
        return None
    flags = re.DOTALL | re.ASCII
    return re.compile("".join(parts), flags if reading == "exact" else flags | re.IGNORECASE)


def _literal(character: str, reading: str) -> str:
    spelled = re.escape(character)
    return f"(?-i:{spelled})" if reading == "all but i" and character in "iI" else spelled


OPERATIONS: Final[Mapping[str, Callable[[Sequence[RowValue]], RowValue]]] = {
    "=": _compared(lambda sign: sign == 0),
    "<": _compared(lambda sign: sign < 0),
    "<=": _compared(lambda sign: sign <= 0),
    ">": _compared(lambda sign: sign > 0),
    ">=": _compared(lambda sign: sign >= 0),
    "and": _and,
    "or": _or,
    "not": _null_fails(lambda value: int(value != 1)),
    "is null": _is_null,
    "is same": _is_same,
    "coalesce": _coalesce,
    "nullif": _nullif,
    "case": _case,
    "+": _computed(lambda left, right: left + right),
    "-": _computed(lambda left, right: left - right),
    "*": _computed(lambda left, right: left * right),
    "%": _null_fails(_remainder),
    "lower": _folded(str.lower),
    "upper": _folded(str.upper),
    "number": _null_fails(_number),
    "length": _null_fails(_length),
    "||": _null_fails(_joined),
    "as text": _null_fails(_as_text),
    "as integer": _null_fails(_as_integer),
    "like": _like,
}
"""`{name: operation}`; a name goes over the wire."""
