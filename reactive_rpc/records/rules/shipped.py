"""A rule as clients get it: JSON, of the normal form, with the user's attributes in it and without its private parts.

    true | false | ["ask"] | ["and" | "or", rule, ...] | [operator, kind, operand, operand]
    ["null" | "not_null", operand] | ["some" | "none", level, association, has_many, rule]
    operand: ["field", level, name] | ["user", name] | ["value", JSON, or a list of it]

`codegen/rules.py` and `codegen/typescript/rules.py` make source of it. Level 0 is the record, and each `some` adds one.
"""

from __future__ import annotations

from typing import Any

from reactive_rpc.records.rules.columns import ModelColumns
from reactive_rpc.records.rules.expressions import (
    AllOf,
    AnyOf,
    Compared,
    Custom,
    NullTest,
    Private,
    RecordField,
    Rule,
    RuleTerm,
    Some,
    Truth,
    UserAttribute,
    level_of,
    value_of,
)
from reactive_rpc.records.rules.kinds import Kind

__all__ = ["ship"]


def ship(rule: Rule, columns: ModelColumns) -> Any:
    """Return the JSON of a rule that is bound and in normal form; `["ask"]` stands where clients have to ask."""
    return _tree(rule, (columns,))


def _tree(rule: Rule, rows: tuple[ModelColumns, ...]) -> Any:
    match rule:
        case Truth(value):
            return value
        case Private() | Custom():
            return ["ask"]
        case AllOf(parts):
            return ["and", *(_tree(part, rows) for part in parts)]
        case AnyOf(parts):
            return ["or", *(_tree(part, rows) for part in parts)]
        case NullTest(operand, negated):
            return ["not_null" if negated else "null", _operand(operand, None)]
        case Some(association, of, _, part, negated):
            columns = rows[level_of(of)]
            inner = _tree(part, (*rows, columns.associations[association]))
            name = "none" if negated else "some"
            return [name, level_of(of), association, columns.is_list(association), inner]
        case Compared(operator, left, right):
            kind = rule.bound_kind
            return [operator, kind.name, _operand(left, kind), _operand(right, kind)]
    raise AssertionError(rule)


def _operand(operand: RuleTerm, kind: Kind | None) -> list[Any]:
    if isinstance(operand, RecordField):
        return ["field", level_of(operand.row), operand.name]
    if isinstance(operand, UserAttribute):
        return ["user", operand.name]
    value = value_of(operand)
    if kind is None:  # nobody is asked whether a value is null
        raise AssertionError(operand)
    return ["value", list(map(kind.wire, value)) if isinstance(value, tuple) else kind.wire(value)]
