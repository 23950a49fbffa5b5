"""Fold a rule by the attributes of a user: the rest speaks of the record alone.

INVARIANT (a None of the user makes a comparison false): it never reaches SQLAlchemy, whose `column == None` is IS NULL
and would open every record that has no owner.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, Final

from reactive_rpc.records.rules.canonical_text import spell
from reactive_rpc.records.rules.expressions import (
    AllOf,
    AnyOf,
    Compared,
    Custom,
    NullTest,
    Private,
    RecordField,
    Rule,
    RuleOperator,
    RuleTerm,
    RuleValue,
    Some,
    Truth,
    UserAttribute,
    level_of,
    nobody,
    value_of,
)
from reactive_rpc.records.rules.kinds import Kind
from reactive_rpc.records.rules.normal_form import MIRRORED

__all__ = ["COMPARE", "fold"]

COMPARE: Final[dict[RuleOperator, Callable[[Any, Any], bool]]] = {
    "eq": lambda left, right: bool(left == right),
    "ne": lambda left, right: bool(left != right),
    "lt": lambda left, right: bool(left < right),
    "lte": lambda left, right: bool(left <= right),
    "gt": lambda left, right: bool(left > right),
    "gte": lambda left, right: bool(left >= right),
}
"""Between keys of one kind, of which none is null."""


def fold(rule: Rule, attributes: Mapping[str, Any]) -> Rule:
    """Return the residual of a rule in normal form, in its canonical shape.

    Args:
        rule: bound, and in normal form; or a residual, which no attribute changes.
        attributes: of the user, each of its own kind (`policy.py` sees to that).
    """
    match rule:
        case Truth():
            return rule
        case Private(part):
            return fold(part, attributes)
        case AllOf(parts):
            return _joined(AllOf, (fold(part, attributes) for part in parts))
        case AnyOf(parts):
            return _joined(AnyOf, (fold(part, attributes) for part in parts))
        case Some(part=part, negated=negated):
            inner = fold(part, attributes)
            # No row satisfies it. If every row does, there still may be none.
            is_never = isinstance(inner, Truth) and not inner.value
            return Truth(negated) if is_never else replace(rule, part=inner)
        case NullTest(operand, negated):
            if isinstance(operand, RecordField):
                return rule
            is_null = _resolved(operand, attributes) is None
            return Truth(is_null != negated)
        case Custom(attributes=names):
            known = {name: value for name, (_, value) in rule.values.items()} if rule.values is not None else attributes
            return _custom(rule, {name: known[name] for name in names})
        case Compared():
            return _compared(rule, rule.bound_kind, attributes)
    raise AssertionError(rule)


def _custom(rule: Custom, values: Mapping[str, Any]) -> Rule:
    if any(value is None or (isinstance(value, tuple) and None in value) for value in values.values()):
        return nobody
    return replace(rule, values={name: rule.types[name].constant(value) for name, value in values.items()})


def _joined(join: type[AllOf] | type[AnyOf], parts: Iterable[Rule]) -> Rule:
    """Return parts joined in the order of their texts, each once, without those that say nothing."""
    decisive = join is AnyOf
    found: dict[str, Rule] = {}
    for part in parts:
        for each in part.parts if isinstance(part, join) else (part,):
            if not isinstance(each, Truth):
                found[spell(each)] = each
            elif each.value == decisive:
                return each
    if not found:
        return Truth(not decisive)
    ordered = tuple(found[text] for text in sorted(found))
    return ordered[0] if len(ordered) == 1 else join(ordered)


def _resolved(operand: RuleTerm, attributes: Mapping[str, Any]) -> Any:
    return attributes[operand.name] if isinstance(operand, UserAttribute) else value_of(operand)


def _compared(rule: Compared, kind: Kind, attributes: Mapping[str, Any]) -> Rule:
    if rule.operator in ("in", "not_in"):
        return _membership(rule, kind, attributes)
    left, right, operator = rule.left, rule.right, rule.operator
    if isinstance(left, RecordField) and isinstance(right, RecordField):
        return _between_fields(rule, left, right)
    if isinstance(right, RecordField):
        left, right, operator = right, left, MIRRORED[operator]
    value = _resolved(right, attributes)
    if value is None:
        return nobody
    value = kind.constant(value)
    if isinstance(left, RecordField):
        return Compared(operator, left, RuleValue(value), kind)
    other = _resolved(left, attributes)
    return nobody if other is None else Truth(COMPARE[operator](kind.constant(other), value))


def _between_fields(rule: Compared, left: RecordField, right: RecordField) -> Rule:
    if (level_of(left.row), left.name) <= (level_of(right.row), right.name):
        return rule
    return Compared(MIRRORED[rule.operator], right, left, rule.kind)


def _membership(rule: Compared, kind: Kind, attributes: Mapping[str, Any]) -> Rule:
    """Fold `in` and `not_in`.

    In SQL, nothing is in an empty list, not even null: so NOT IN () is true of all. A null in a list is equal to
    nothing, which IN may forget; by NOT IN, nothing is known to be unequal to it.
    """
    is_in = rule.operator == "in"
    found = _resolved(rule.right, attributes)
    if found is None:
        return nobody
    items = list(found)
    if not items:
        return Truth(not is_in)
    if None in items and not is_in:
        return nobody
    constants = [kind.constant(item) for item in items if item is not None]
    values: dict[Any, Any] = {kind.spell(value): value for value in constants}
    if isinstance(rule.left, RecordField):
        return _field_in(rule, kind, [values[spelled] for spelled in sorted(values)])
    value = _resolved(rule.left, attributes)
    return nobody if value is None else Truth((kind.constant(value) in values.values()) == is_in)


def _field_in(rule: Compared, kind: Kind, values: list[Any]) -> Rule:
    if not values:  # they were null, and so the operator is `in`
        return nobody
    if len(values) == 1:
        return Compared("eq" if rule.operator == "in" else "ne", rule.left, RuleValue(values[0]), kind)
    return replace(rule, right=RuleValue(tuple(values)))
