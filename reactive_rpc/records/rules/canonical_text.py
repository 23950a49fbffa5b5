"""The canonical text of a residual, which is JSON: two residuals have one text only if no row tells them apart.

It is part of the keys of results, and whoever computes a result again has nothing else of who asked: `read` makes of a
text the residual that was spelled, and refuses every text that `spell` would not have written. That its parts are in
the order of `fold`, `Policy.read` sees to.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from reactive_rpc.records.errors import RuleError
from reactive_rpc.records.rules.columns import ModelColumns
from reactive_rpc.records.rules.expressions import (
    AllOf,
    AnyOf,
    Compared,
    Custom,
    NullTest,
    RecordField,
    Rule,
    RuleOperator,
    RuleValue,
    Some,
    Truth,
    field_of,
    level_of,
    value_of,
)
from reactive_rpc.records.rules.kinds import AttributeType, Kind

__all__ = ["TextReader", "spell"]

_OPERATORS: Final[dict[str, RuleOperator]] = {
    "eq": "eq", "ne": "ne", "lt": "lt", "lte": "lte", "gt": "gt", "gte": "gte", "in": "in", "not_in": "not_in",
}  # fmt: skip


def spell(rule: Rule) -> str:
    """Return the canonical text of a residual that `fold` has made."""
    return json.dumps(_tree(rule), separators=(",", ":"))


def _tree(rule: Rule) -> Any:
    match rule:
        case Truth(value):
            return value
        case AllOf(parts):
            return ["and", *map(_tree, parts)]
        case AnyOf(parts):
            return ["or", *map(_tree, parts)]
        case NullTest(operand, negated):
            return ["not_null" if negated else "null", _field_tree(field_of(operand))]
        case Some(association, of, _, part, negated):
            return ["none" if negated else "some", of, association, _tree(part)]
        case Custom(name, row=row, negated=negated):
            values = rule.values or {}
            spelled = {key: _custom_value(*values[key]) for key in sorted(values)}
            return ["not_custom" if negated else "custom", name, row, spelled]
        case Compared(operator, left, right):
            is_field = isinstance(right, RecordField)
            other = _field_tree(field_of(right)) if is_field else _value_tree(rule.bound_kind, value_of(right))
            return [operator, _field_tree(field_of(left)), other]
    raise AssertionError(rule)


def _field_tree(field: RecordField) -> dict[str, str]:
    return {str(level_of(field.row)): field.name}


def _value_tree(kind: Kind, value: Any) -> Any:
    return list(map(kind.spell, value)) if isinstance(value, tuple) else kind.spell(value)


def _custom_value(kind: Kind, value: Any) -> list[Any]:
    return [kind.name, _value_tree(kind, value)]


@dataclass(frozen=True)
class TextReader:
    """Reads canonical texts.

    Args:
        columns: of the model that the rule is bound to.
        customs: the bound conditions of the rule, by their names.
    """

    columns: ModelColumns
    customs: Mapping[str, Custom]

    def read(self, text: str) -> Rule:
        """Return the residual that a text spells.

        Raises:
            RuleError: `spell` has not written it, or for a model or a rule that is another now.
        """
        try:
            rule = self._rule(json.loads(text), (self.columns,))
            is_canonical = spell(rule) == text
        except (ValueError, KeyError, TypeError, IndexError, RecursionError) as exc:
            raise RuleError(f"{self.columns.name}: {text!r} is no rule of this model: {exc}") from exc
        if not is_canonical:
            raise RuleError(f"{self.columns.name}: {text!r} is not the canonical text of its rule")
        return rule

    def _rule(self, tree: Any, rows: tuple[ModelColumns, ...]) -> Rule:
        if isinstance(tree, bool):
            return Truth(tree)
        name, *parts = tree
        if name in ("and", "or"):
            inner = tuple(self._rule(part, rows) for part in parts)
            if len(inner) < 2:
                raise ValueError(f"{name!r} joins several parts")
            return AllOf(inner) if name == "and" else AnyOf(inner)
        if name in _OPERATORS:
            return _comparison(_OPERATORS[name], *parts, rows=rows)
        if name in ("null", "not_null"):
            (operand,) = parts
            return NullTest(_field(operand, rows)[0], negated=name == "not_null")
        if name in ("some", "none"):
            of, association, part = parts
            target = rows[_level(of, rows)].associations[association]
            return Some(association, of, len(rows), self._rule(part, (*rows, target)), negated=name == "none")
        if name in ("custom", "not_custom"):
            return self._custom(*parts, negated=name == "not_custom")
        raise ValueError(f"{name!r} is no part of a rule")

    def _custom(self, name: str, row: int, spelled: Mapping[str, Any], *, negated: bool) -> Rule:
        custom = self.customs[name]
        values = {key: _read_custom_value(custom.types[key], *value) for key, value in spelled.items()}
        if values.keys() != set(custom.attributes) or row != custom.row:
            raise ValueError(f"custom(sql={name}) asks for other attributes, or stands elsewhere")
        return replace(custom, values=values, negated=negated)


def _read_custom_value(type_: AttributeType, name: str, spelled: Any) -> tuple[Kind, Any]:
    (kind,) = (kind for kind in type_.kinds if kind.name == name)
    if type_.is_list:
        return kind, tuple(kind.read(item) for item in spelled)
    return kind, kind.read(spelled)


def _level(level: Any, rows: tuple[ModelColumns, ...]) -> int:
    if type(level) is not int or not 0 <= level < len(rows):
        raise ValueError(f"{level!r} is no row")
    return level


def _field(tree: Any, rows: tuple[ModelColumns, ...]) -> tuple[RecordField, Kind | None]:
    ((level, name),) = tree.items()
    row = _level(int(level), rows)
    return RecordField(name, row), rows[row].columns[name].kind


def _comparison(operator: RuleOperator, left: Any, right: Any, *, rows: tuple[ModelColumns, ...]) -> Rule:
    field, kind = _field(left, rows)
    if kind is None:
        raise ValueError(f"{field.name} is not compared")
    if isinstance(right, dict):
        other, other_kind = _field(right, rows)
        if other_kind != kind or operator in ("in", "not_in"):
            raise ValueError(f"{other.name} does not compare with {field.name}")
        return Compared(operator, field, other, kind)
    if (operator in ("in", "not_in")) != isinstance(right, list):
        raise ValueError(f"{right!r} is nothing for {operator}")
    value = tuple(map(kind.read, right)) if isinstance(right, list) else kind.read(right)
    return Compared(operator, field, RuleValue(value), kind)
