"""The normal form of a rule: negation at the leaves, once, and none above.

Without NOT above a comparison, "unknown" and "false" have the same effect on whether a rule is true. So every reader
may say that a comparison with null is false, and needs two truth values only (`docs/internals/records.md`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from reactive_rpc.records.rules.expressions import (
    AllOf,
    AnyOf,
    Compared,
    Custom,
    Negated,
    NullTest,
    Private,
    Rule,
    RuleOperator,
    Some,
    Truth,
)

__all__ = ["MIRRORED", "normal_form"]

_OPPOSITE: Final[dict[RuleOperator, RuleOperator]] = {
    "eq": "ne",
    "ne": "eq",
    "lt": "gte",
    "gte": "lt",
    "gt": "lte",
    "lte": "gt",
    "in": "not_in",
    "not_in": "in",
}
"""NOT of a comparison: both are unknown of null."""

MIRRORED: Final[dict[RuleOperator, RuleOperator]] = {
    "eq": "eq",
    "ne": "ne",
    "lt": "gt",
    "gt": "lt",
    "lte": "gte",
    "gte": "lte",
}
"""The same comparison with its sides exchanged."""


def normal_form(rule: Rule, *, negated: bool = False) -> Rule:
    """Return a rule without `Negated` that is true of the same records."""
    match rule:
        case Negated(part):
            return normal_form(part, negated=not negated)
        case Truth(value):
            return Truth(value != negated)
        case AllOf(parts) | AnyOf(parts):
            inner = tuple(normal_form(part, negated=negated) for part in parts)
            return AllOf(inner) if isinstance(rule, AllOf) != negated else AnyOf(inner)  # de Morgan
        case Compared(operator):
            return replace(rule, operator=_OPPOSITE[operator] if negated else operator)
        case Private(part):
            return Private(normal_form(part, negated=negated))
        case Some(part=part):
            # EXISTS is never unknown: its sign stays outside, and the rule inside keeps its own.
            return replace(rule, part=normal_form(part), negated=rule.negated != negated)
        case NullTest() | Custom():
            return replace(rule, negated=rule.negated != negated)
    raise AssertionError(rule)
