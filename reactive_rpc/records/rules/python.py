"""Read a residual in Python, of a row that is here; `codegen/rules.py` writes source for clients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from reactive_rpc.records.errors import RuleError
from reactive_rpc.records.rules.expressions import (
    AllOf,
    AnyOf,
    Compared,
    Custom,
    NullTest,
    Rule,
    RuleTerm,
    RuleValue,
    Some,
    Truth,
    field_of,
    level_of,
    value_of,
)
from reactive_rpc.records.rules.kinds import Kind
from reactive_rpc.records.rules.residual import COMPARE

__all__ = ["holds"]


def holds(rule: Rule, row: object) -> bool:
    """Tell whether a residual is true of a row (`Residual.check`)."""
    return _holds(rule, (row,))


def _holds(rule: Rule, rows: Sequence[object]) -> bool:
    match rule:
        case Truth(value):
            return value
        case AllOf(parts):
            return all(_holds(part, rows) for part in parts)
        case AnyOf(parts):
            return any(_holds(part, rows) for part in parts)
        case NullTest(operand, negated):
            return (_field(operand, rows) is None) != negated
        case Some(association, of, _, part, negated):
            found = _read(rows[level_of(of)], association)
            others = found if isinstance(found, list | tuple | set | frozenset) else [] if found is None else [found]
            return any(_holds(part, (*rows, other)) for other in others) != negated
        case Custom(name):
            raise RuleError(f"only a database decides custom(sql={name}): use filter, or condition, in a statement")
        case Compared():
            return _compared(rule, rows)
    raise AssertionError(rule)


def _compared(rule: Compared, rows: Sequence[object]) -> bool:
    kind = rule.bound_kind
    value = _key(rule.left, kind, rows)
    if value is None:
        return False
    if rule.operator in ("in", "not_in"):
        return (value in map(kind.key, value_of(rule.right))) == (rule.operator == "in")
    other = _key(rule.right, kind, rows)
    return other is not None and COMPARE[rule.operator](value, other)


def _key(operand: RuleTerm, kind: Kind, rows: Sequence[object]) -> Any:
    value = operand.value if isinstance(operand, RuleValue) else _field(operand, rows)
    if value is None:
        return None
    try:
        return kind.key(value)
    except ValueError as fault:
        raise RuleError(f"{operand} is {value!r}: {fault}") from fault


def _field(operand: RuleTerm, rows: Sequence[object]) -> Any:
    field = field_of(operand)
    return _read(rows[level_of(field.row)], field.name)


def _read(row: object, name: str) -> Any:
    try:
        return row[name] if isinstance(row, Mapping) else getattr(row, name)
    except (KeyError, AttributeError) as exc:
        raise RuleError(f"the row has no {name!r}, which the rule speaks of: select it") from exc
