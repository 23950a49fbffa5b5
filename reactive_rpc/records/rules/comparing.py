"""The kind of one comparison: its sides are held against each other, and constants get the kind's one spelling."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from reactive_rpc.records.errors import RuleError
from reactive_rpc.records.rules.columns import ColumnRule, ModelColumns
from reactive_rpc.records.rules.expressions import (
    Compared,
    RecordField,
    RecordRow,
    Rule,
    RuleTerm,
    RuleValue,
    UserAttribute,
    level_of,
)
from reactive_rpc.records.rules.kinds import AttributeType, Kind

__all__ = ["SYMBOLS", "Comparing", "ReachableRow"]

SYMBOLS: Final[Mapping[str, str]] = {
    "eq": "==", "ne": "!=", "lt": "<", "lte": "<=", "gt": ">", "gte": ">=", "in": "in", "not_in": "not in",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class ReachableRow:
    """A row that a rule may speak of, and its model."""

    name: RecordRow | int
    columns: ModelColumns


@dataclass(frozen=True)
class Comparing:
    """One comparison.

    Args:
        rule: with known names.
        rows: the record, and those of each `some` around it.
        attributes: of users.
        whole: the comparison as written, for messages.
    """

    rule: Compared
    rows: Sequence[ReachableRow]
    attributes: Mapping[str, AttributeType]
    whole: str

    def bound(self) -> Rule:
        """Return the comparison with its kind.

        Raises:
            RuleError: the sides do not compare, or not alike everywhere.
        """
        self._check_lists()
        kind = self._kind()
        if self.rule.operator in ("lt", "lte", "gt", "gte"):
            self._check_order(kind)
        left, right = self._constant(self.rule.left, kind), self._constant(self.rule.right, kind)
        return replace(self.rule, left=left, right=right, kind=kind)

    def _check_lists(self) -> None:
        left, right, is_membership = self.rule.left, self.rule.right, self.rule.operator in ("in", "not_in")
        for side in (left,) if is_membership else (left, right):
            if isinstance(side, UserAttribute) and self.attributes[side.name].is_list:
                raise RuleError(f"{self.whole}: {side} is a list: write x.in_({side})")
        if is_membership and isinstance(right, UserAttribute) and not self.attributes[right.name].is_list:
            raise RuleError(f"{self.whole}: {right} is no list: compare by ==")

    def _kind(self) -> Kind:
        """Return the kind that both sides have: a column has one, an attribute may have two, a value what it fits."""
        both = ((self.rule.left, self.rule.right), (self.rule.right, self.rule.left))
        for one, other in both:
            if isinstance(one, RecordField):
                return self._kind_of_field(one, other)
        for one, other in both:
            if isinstance(one, UserAttribute):
                return self._kind_of_attribute(one, other)
        raise RuleError(f"{self.whole}: it compares values alone, and is always true or always false")

    def _kind_of_field(self, one: RecordField, other: RuleTerm) -> Kind:
        kind = self._kind_of_column(one)
        if isinstance(other, RecordField):
            if self._kind_of_column(other) != kind:
                raise self._mismatch(one, other)
            if self._column(other).storage != self._column(one).storage:
                raise RuleError(f"{self.whole}: the columns store their values differently: give them one type")
        if isinstance(other, UserAttribute) and not self.attributes[other.name].as_kind(kind):
            raise self._mismatch(one, other)
        return kind

    def _kind_of_attribute(self, one: UserAttribute, other: RuleTerm) -> Kind:
        kinds = self.attributes[one.name].kinds
        if isinstance(other, UserAttribute):
            kinds = tuple(kind for kind in kinds if self.attributes[other.name].as_kind(kind))
            if not kinds:
                raise self._mismatch(one, other)
        for kind in kinds[:-1]:
            try:
                self._constant(other, kind)
            except RuleError:
                continue
            return kind
        return kinds[-1]

    def _check_order(self, kind: Kind) -> None:
        fields = [side for side in (self.rule.left, self.rule.right) if isinstance(side, RecordField)]
        fault = next(filter(None, (self._column(field).order_fault for field in fields)), "")
        if not kind.is_ordered:
            fault = f"a {kind.name} has no order that all databases and clients share"
        if fault:
            raise RuleError(f"{self.whole}: {fault}. Compare by ==, != or in_")

    def _constant(self, operand: RuleTerm, kind: Kind) -> RuleTerm:
        if not isinstance(operand, RuleValue):
            return operand
        try:
            if isinstance(operand.value, tuple):
                return RuleValue(tuple(kind.constant(item) for item in operand.value))
            return RuleValue(kind.constant(operand.value))
        except ValueError as fault:
            raise RuleError(f"{self.whole}: {fault}") from fault

    def _column(self, field: RecordField) -> ColumnRule:
        return self.rows[level_of(field.row)].columns.columns[field.name]

    def _kind_of_column(self, field: RecordField) -> Kind:
        found = self._column(field)
        if found.kind is None:
            name = f"{self.rows[level_of(field.row)].columns.name}.{field.name}"
            raise RuleError(f"{self.whole}: {name} is not compared in rules: {found.fault}. It may be asked .is_null()")
        return found.kind

    def _mismatch(self, one: RuleTerm, other: RuleTerm) -> RuleError:
        return RuleError(f"{self.whole}: {self._said(one)}, and {self._said(other)}")

    def _said(self, operand: RuleTerm) -> str:
        if isinstance(operand, RecordField):
            name = f"{self.rows[level_of(operand.row)].columns.name}.{operand.name}"
            return f"{name} is {_kind_said(self._kind_of_column(operand))}"
        kinds = self.attributes[operand.name].kinds if isinstance(operand, UserAttribute) else ()
        return f"{operand} is {' or '.join(map(_kind_said, kinds))}"


def _kind_said(kind: Kind) -> str:
    if kind.enum is not None:
        return kind.enum.__name__
    return {"moment": "datetime with an offset", "local": "datetime without an offset"}.get(kind.name, kind.name)
