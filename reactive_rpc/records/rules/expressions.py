"""Rules as users write them: a tree over the record and the user, built by Python's operators.

    (user.role == "admin") | (record.client_id == user.client_id)

A tree is data: `binding.py` holds it against a model, `normal_form.py` and `residual.py` rewrite it, and `sql.py`,
`python.py` and `typescript.py` read it. Wrong spellings are refused as they are written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from typing import Any, Final, Literal, NoReturn, TypeAlias
from uuid import UUID

from reactive_rpc.records.errors import RuleError
from reactive_rpc.records.rules.kinds import AttributeType, Kind

__all__ = [
    "AllOf",
    "AnyOf",
    "Compared",
    "Custom",
    "Negated",
    "NullTest",
    "Private",
    "RecordField",
    "RecordRow",
    "Rule",
    "RuleOperator",
    "RuleTerm",
    "RuleValue",
    "Some",
    "Truth",
    "UserAttribute",
    "anyone",
    "as_rule",
    "field_of",
    "level_of",
    "nobody",
    "record",
    "user",
    "value_of",
]

RuleOperator: TypeAlias = Literal["eq", "ne", "lt", "lte", "gt", "gte", "in", "not_in"]


class Rule:
    """A condition that is true or not of a record and a user."""

    def __and__(self, other: object) -> Rule:
        return AllOf((self, as_rule(other)))

    def __rand__(self, other: object) -> Rule:
        return AllOf((as_rule(other), self))

    def __or__(self, other: object) -> Rule:
        return AnyOf((self, as_rule(other)))

    def __ror__(self, other: object) -> Rule:
        return AnyOf((as_rule(other), self))

    def __invert__(self) -> Rule:
        return Negated(self)

    def __bool__(self) -> bool:
        return _refuse_truth()

    # Two rules are compared by their canonical texts: `==` between them is more likely a slip than a question.
    def __eq__(self, other: object) -> NoReturn:
        raise RuleError("a rule is not compared: write a & b | ~a & ~b if both shall be true or neither")

    __hash__ = None  # type: ignore[assignment]  # nothing that equality finds


class RuleTerm:
    """One side of a comparison: a field of the record, an attribute of the user, or a value."""

    def __eq__(self, other: object) -> Rule:  # type: ignore[override]
        return _compare("eq", self, other)

    def __ne__(self, other: object) -> Rule:  # type: ignore[override]
        return _compare("ne", self, other)

    def __lt__(self, other: object) -> Rule:
        return _compare("lt", self, other)

    def __le__(self, other: object) -> Rule:
        return _compare("lte", self, other)

    def __gt__(self, other: object) -> Rule:
        return _compare("gt", self, other)

    def __ge__(self, other: object) -> Rule:
        return _compare("gte", self, other)

    def in_(self, values: object) -> Rule:
        """Return whether it is among some values, or in a list of the user's: `record.team_id.in_(user.team_ids)`."""
        return _membership("in", self, values)

    def not_in(self, values: object) -> Rule:
        """Return whether it is not among some values: false if it is null, unless there are none."""
        return _membership("not_in", self, values)

    def is_null(self) -> Rule:
        """Return whether it is null."""
        return NullTest(self)

    def not_null(self) -> Rule:
        """Return whether it is not null."""
        return NullTest(self, negated=True)

    def __and__(self, other: object) -> Rule:
        return as_rule(self) & other

    def __rand__(self, other: object) -> Rule:
        return as_rule(other) & self

    def __or__(self, other: object) -> Rule:
        return as_rule(self) | other

    def __ror__(self, other: object) -> Rule:
        return as_rule(other) | self

    def __invert__(self) -> Rule:
        return ~as_rule(self)

    def __bool__(self) -> bool:
        return _refuse_truth()

    def __contains__(self, other: object) -> NoReturn:
        raise RuleError(f"Python makes a truth value of `in`: write x.in_({self})")

    def __iter__(self) -> NoReturn:
        raise RuleError(f"{self} has no values before there is a user: write x.in_({self})")

    __hash__ = None  # type: ignore[assignment]  # nothing that equality finds


def _refuse_truth() -> NoReturn:
    raise RuleError(
        "a rule has no truth value before there are a record and a user: write & | ~ for and, or, not, with brackets "
        "around each comparison, and (a < b) & (b < c) for a < b < c"
    )


# -- operands


@dataclass(frozen=True, eq=False)
class RecordField(RuleTerm):
    """A column of a row, or the row's association.

    Attributes:
        name: as the model has it.
        row: whose it is. Of a bound rule its level: 0 is the record, 1 the row of a `some`, 2 of one inside of it.
    """

    name: str
    row: RecordRow | int

    def __str__(self) -> str:
        return f"{self.row if isinstance(self.row, RecordRow) else 'record'}.{self.name}"


@dataclass(frozen=True, eq=False)
class UserAttribute(RuleTerm):
    """An attribute of whoever asks."""

    name: str

    def __str__(self) -> str:
        return f"user.{self.name}"


@dataclass(frozen=True, eq=False)
class RuleValue(RuleTerm):
    """A constant; a tuple of `in_` and `not_in`. None only in a residual: the user has no such attribute."""

    value: Any

    def __str__(self) -> str:
        return repr(list(self.value)) if isinstance(self.value, tuple) else repr(self.value)


class RecordRow:
    """The row that a rule speaks of: its attributes are the model's."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> RecordField:
        _refuse_private(name)
        return RecordField(name, self)

    def __str__(self) -> str:
        return self._name


class _User:
    def __getattr__(self, name: str) -> UserAttribute:
        _refuse_private(name)
        return UserAttribute(name)


def _refuse_private(name: str) -> None:
    # Python and its tools ask for names such as `__wrapped__`, and take any answer for one.
    if name.startswith("_"):
        raise AttributeError(name)


record: Final = RecordRow("record")
"""The record that a rule speaks of."""

user: Final = _User()
"""Who asks."""


# -- truth values


@dataclass(frozen=True, eq=False)
class Truth(Rule):
    """True of every record, or of none."""

    value: bool


@dataclass(frozen=True, eq=False)
class AllOf(Rule):
    """True if all of its parts are."""

    parts: tuple[Rule, ...]


@dataclass(frozen=True, eq=False)
class AnyOf(Rule):
    """True if one of its parts is."""

    parts: tuple[Rule, ...]


@dataclass(frozen=True, eq=False)
class Negated(Rule):
    """NOT, as SQL has it: unknown if its part is. No rule in normal form has one."""

    part: Rule


@dataclass(frozen=True, eq=False)
class Compared(Rule):
    """A comparison, which null makes unknown.

    Attributes:
        kind: how values are compared; None until the rule is bound.
    """

    operator: RuleOperator
    left: RuleTerm
    right: RuleTerm
    kind: Kind | None = None

    @property
    def bound_kind(self) -> Kind:
        """The kind, of a rule that is bound."""
        if self.kind is None:
            raise AssertionError(f"{self.left} is not bound")
        return self.kind


@dataclass(frozen=True, eq=False)
class NullTest(Rule):
    """Whether something is null; `negated`: whether it is not."""

    operand: RuleTerm
    negated: bool = False


@dataclass(frozen=True, eq=False)
class Some(Rule):
    """Whether some row of an association satisfies a rule; `negated`: whether none does.

    Attributes:
        of: the row whose association it is; a level, as `row`, if it is bound.
        row: the row that the inner rule speaks of.
    """

    association: str
    of: RecordRow | int
    row: RecordRow | int
    part: Rule
    negated: bool = False


@dataclass(frozen=True, eq=False)
class Private(Rule):
    """A rule that clients do not get: they ask the server."""

    part: Rule


@dataclass(frozen=True, eq=False)
class Custom(Rule):
    """A condition that SQLAlchemy makes, which only a database decides.

    Attributes:
        name: the same in all processes.
        make: gets the entity, and by name the values of `attributes`; returns the condition.
        attributes: those of the user that it asks for.
        types: of the attributes; none until the rule is bound.
        values: of the attributes, with their kinds; None until the rule is folded.
        row: the level of the row that it speaks of.
    """

    name: str
    make: Callable[..., Any]
    attributes: tuple[str, ...]
    types: Mapping[str, AttributeType] = field(default_factory=dict)
    values: Mapping[str, tuple[Kind, Any]] | None = None
    row: int = 0
    negated: bool = False


def level_of(row: RecordRow | int) -> int:
    """Return the level of a row of a bound rule."""
    if not isinstance(row, int):
        raise AssertionError(f"{row} is not bound")
    return row


def field_of(operand: RuleTerm) -> RecordField:
    """Return an operand of a residual that is a field: the left one of a comparison, and that of a null test."""
    if not isinstance(operand, RecordField):
        raise AssertionError(f"{operand} is no field: is the rule folded?")
    return operand


def value_of(operand: RuleTerm) -> Any:
    """Return the value of an operand of a residual that is no field."""
    if not isinstance(operand, RuleValue):
        raise AssertionError(f"{operand} is no value: is the rule folded?")
    return operand.value


anyone: Final[Rule] = Truth(True)
"""True of every record, whoever asks."""

nobody: Final[Rule] = Truth(False)
"""True of no record."""


def as_rule(value: object) -> Rule:
    """Return a rule as it is, and of a field or an attribute whether it is true.

    Raises:
        RuleError: it is neither.
    """
    if isinstance(value, Rule):
        return value
    if isinstance(value, RuleTerm):
        return Compared("eq", value, RuleValue(True))
    raise RuleError(
        f"{value!r} is no rule: compare something, or write `anyone` or `nobody`; & and | bind tighter than ==, so put "
        "brackets around each comparison"
    )


# -- comparisons


_SYMBOLS: Final[dict[str, str]] = {"eq": "==", "ne": "!=", "lt": "<", "lte": "<=", "gt": ">", "gte": ">="}


def _compare(operator: RuleOperator, left: RuleTerm, right: object) -> Rule:
    if right is None and operator in ("eq", "ne"):
        way_out = f"{left}.is_null()" if operator == "eq" else f"{left}.not_null()"
        raise RuleError(f"{left} {_SYMBOLS[operator]} None is never true in SQL: write {way_out}")
    return Compared(operator, left, _operand(right, f"{left} {_SYMBOLS[operator]} {right!r}"))


def _operand(value: object, whole: str) -> RuleTerm:
    if isinstance(value, RuleTerm):
        return value
    if isinstance(value, Rule):
        raise RuleError(f"{whole}: a rule is no value; & and | bind tighter than ==: put brackets around comparisons")
    return RuleValue(_checked(value, whole))


_TYPES: Final = (str, int, datetime, date, UUID, Enum, Decimal)


def _checked(value: object, whole: str) -> object:
    if isinstance(value, float) and not isinstance(value, Enum):
        raise RuleError(
            f"{whole}: floats do not compare alike everywhere (they are rounded, and have NaN): use an int or a Decimal"
        )
    if isinstance(value, list | tuple | set | frozenset):
        raise RuleError(f"{whole}: a list is not compared: write .in_({list(value)!r})")
    if not isinstance(value, _TYPES):
        raise RuleError(
            f"{whole}: a {type(value).__name__} cannot stand in a rule: compare with text, int, bool, Decimal, "
            "datetime, date, UUID or an Enum"
        )
    return value


def _membership(operator: RuleOperator, left: RuleTerm, values: object) -> Rule:
    if isinstance(values, UserAttribute):
        return Compared(operator, left, values)
    spelled = f"{left}.{'in_' if operator == 'in' else 'not_in'}({values!r})"
    if isinstance(values, RuleTerm):
        raise RuleError(f"{spelled}: only an attribute of the user's is a list: compare a field by ==")
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        raise RuleError(f"{spelled}: give a list of values")
    return Compared(operator, left, RuleValue(tuple(_checked_items(left, values, spelled))))


def _checked_items(left: RuleTerm, values: Iterable[object], whole: str) -> Iterator[object]:
    for value in values:
        if value is None:
            raise RuleError(
                f"{whole}: None is in the list, where it is equal to nothing: write {left}.is_null() beside it"
            )
        if isinstance(value, RuleTerm | Rule):
            raise RuleError(f"{whole}: only values can be in a list: write {left} == {value} beside it")
        yield _checked(value, whole)
