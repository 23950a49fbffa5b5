"""Hold a rule against a model and the attributes of its users: every name is known, and both sides compare alike.

The bound tree is the same one with levels in place of rows, a kind at each comparison, and each value in the one
spelling of that kind.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from reactive_rpc.records.errors import RuleError
from reactive_rpc.records.rules.columns import ModelColumns
from reactive_rpc.records.rules.comparing import SYMBOLS, Comparing, ReachableRow
from reactive_rpc.records.rules.expressions import (
    AllOf,
    AnyOf,
    Compared,
    Custom,
    Negated,
    NullTest,
    Private,
    RecordField,
    RecordRow,
    Rule,
    RuleTerm,
    Some,
    Truth,
    UserAttribute,
    record,
)
from reactive_rpc.records.rules.kinds import AttributeType

__all__ = ["RuleBinder"]

_MOST_ROWS: Final = 4


@dataclass(frozen=True)
class RuleBinder:
    """Binds rules.

    Args:
        columns: the model's.
        attributes: of users.
    """

    columns: ModelColumns
    attributes: Mapping[str, AttributeType]

    def bind(self, rule: Rule) -> Rule:
        """Return the rule, bound.

        Raises:
            RuleError: it names something that is not there, or some reader could not decide it as the others do.
        """
        return self._rule(rule, (ReachableRow(record, self.columns),))

    def _rule(self, rule: Rule, rows: Sequence[ReachableRow]) -> Rule:
        match rule:
            case Truth():
                return rule
            case AllOf(parts) | AnyOf(parts):
                return replace(rule, parts=tuple(self._rule(part, rows) for part in parts))
            case Negated(part) | Private(part):
                return replace(rule, part=self._rule(part, rows))
            case NullTest(operand):
                return replace(rule, operand=self._operand(operand, rows))
            case Compared():
                return self._compared(rule, rows)
            case Some():
                return self._some(rule, rows)
            case Custom():
                types = {name: self._type_of(UserAttribute(name)) for name in rule.attributes}
                return replace(rule, types=types, row=len(rows) - 1)
        raise AssertionError(rule)

    def _some(self, rule: Some, rows: Sequence[ReachableRow]) -> Rule:
        level = self._level(rule.of, rows, rule.association)
        columns = rows[level].columns
        fault = columns.association_faults.get(rule.association)
        if fault is not None:
            raise RuleError(f"{columns.name}: some({rule.association!r}, ...) is not decided alike everywhere: {fault}")
        target = columns.associations.get(rule.association)
        if target is None:
            raise RuleError(f"{columns.name} {_unknown('relationship', rule.association, columns.associations)}")
        if len(rows) > _MOST_ROWS:
            raise RuleError(f"{columns.name}: some(...) stands in more than {_MOST_ROWS} others: write custom(sql=...)")
        part = self._rule(rule.part, (*rows, ReachableRow(rule.row, target)))
        return replace(rule, of=level, row=len(rows), part=part)

    def _compared(self, rule: Compared, rows: Sequence[ReachableRow]) -> Rule:
        comparison = Comparing(
            replace(rule, left=self._operand(rule.left, rows), right=self._operand(rule.right, rows)),
            rows=rows,
            attributes=self.attributes,
            whole=f"{self.columns.name}: {rule.left} {SYMBOLS[rule.operator]} {rule.right}",
        )
        return comparison.bound()

    def _operand(self, operand: RuleTerm, rows: Sequence[ReachableRow]) -> RuleTerm:
        if isinstance(operand, RecordField):
            level = self._level(operand.row, rows, operand.name)
            columns = rows[level].columns
            if operand.name not in columns.columns:
                way_out = (
                    f": write some({operand.name!r}, lambda row: ...)" if operand.name in columns.associations else ""
                )
                raise RuleError(f"{columns.name} {_unknown('column', operand.name, columns.columns)}{way_out}")
            return replace(operand, row=level)
        if isinstance(operand, UserAttribute):
            self._type_of(operand)
        return operand

    def _level(self, row: RecordRow | int, rows: Sequence[ReachableRow], name: str) -> int:
        for level, each in enumerate(rows):
            if each.name is row:
                return level
        raise RuleError(f"{self.columns.name}: {row}.{name} stands outside of the some(...) whose row it is")

    def _type_of(self, attribute: UserAttribute) -> AttributeType:
        found = self.attributes.get(attribute.name)
        if found is None:
            raise RuleError(f"{self.columns.name}: user {_unknown('attribute', attribute.name, self.attributes)}")
        return found


def _unknown(kind: str, name: str, known: Mapping[str, object]) -> str:
    return f"has no {kind} {name!r}; it has {', '.join(sorted(known)) or 'none'}"
