"""Hold a rule against a model and the attributes of its users: every name is known, and both sides compare alike.

What comes out is the same tree with levels in place of rows, a kind at each comparison, and each value in the one
spelling of that kind.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from reactive_rpc.records.errors import RuleError
from reactive_rpc.records.rules.columns import ModelColumns
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
    RuleValue,
    Some,
    Truth,
    UserAttribute,
    level_of,
    record,
)
from reactive_rpc.records.rules.kinds import AttributeType, Kind

__all__ = ["RuleBinder"]

_SYMBOLS = {"eq": "==", "ne": "!=", "lt": "<", "lte": "<=", "gt": ">", "gte": ">=", "in": "in", "not_in": "not in"}
_MOST_ROWS = 4


@dataclass(frozen=True, slots=True)
class _Row:
    """A row that a rule may speak of, and its model."""

    name: RecordRow | int
    columns: ModelColumns


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
            RuleError: it names what is not there, or some reader could not decide it as the others do.
        """
        return self._rule(rule, (_Row(record, self.columns),))

    def _rule(self, rule: Rule, rows: Sequence[_Row]) -> Rule:
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

    def _some(self, rule: Some, rows: Sequence[_Row]) -> Rule:
        level = self._level(rule.of, rows, rule.association)
        columns = rows[level].columns
        target = columns.associations.get(rule.association)
        if target is None:
            raise RuleError(_unknown(columns.name, rule.association, "relationship", columns.associations))
        if len(rows) > _MOST_ROWS:
            raise RuleError(f"{columns.name}: some(...) stands in more than {_MOST_ROWS} others: write custom(sql=...)")
        part = self._rule(rule.part, (*rows, _Row(rule.row, target)))
        return replace(rule, of=level, row=len(rows), part=part)

    def _compared(self, rule: Compared, rows: Sequence[_Row]) -> Rule:
        left, right = self._operand(rule.left, rows), self._operand(rule.right, rows)
        whole = f"{self.columns.name}: {rule.left} {_SYMBOLS[rule.operator]} {rule.right}"
        self._check_lists(rule, whole)
        kind = self._kind(left, right, rows, whole)
        if rule.operator in ("lt", "lte", "gt", "gte"):
            self._check_order(kind, (left, right), rows, whole)
        return replace(rule, left=_constant(left, kind, whole), right=_constant(right, kind, whole), kind=kind)

    def _check_lists(self, rule: Compared, whole: str) -> None:
        is_list = [isinstance(each, UserAttribute) and self._type_of(each).is_list for each in (rule.left, rule.right)]
        if is_list[0] or (is_list[1] and rule.operator not in ("in", "not_in")):
            attribute = rule.left if is_list[0] else rule.right
            raise RuleError(f"{whole}: {attribute} is a list: write x.in_({attribute})")
        if isinstance(rule.right, UserAttribute) and rule.operator in ("in", "not_in") and not is_list[1]:
            raise RuleError(f"{whole}: {rule.right} is no list: compare by ==")

    def _kind(self, left: RuleTerm, right: RuleTerm, rows: Sequence[_Row], whole: str) -> Kind:
        """Return the kind that both sides have.

        A column has one, an attribute may have two, and a value those that it can be taken for.
        """
        for one, other in ((left, right), (right, left)):
            if isinstance(one, RecordField):
                kind = self._column(one, rows, whole)
                if isinstance(other, RecordField) and self._column(other, rows, whole) != kind:
                    raise RuleError(f"{whole}: {self._said(one, rows)}, and {self._said(other, rows)}")
                if isinstance(other, RecordField) and _storage(one, rows) != _storage(other, rows):
                    raise RuleError(f"{whole}: the columns store their values differently: give them one type")
                if isinstance(other, UserAttribute) and not self._type_of(other).as_kind(kind):
                    raise RuleError(f"{whole}: {self._said(one, rows)}, and {self._said(other, rows)}")
                return kind
        for one, other in ((left, right), (right, left)):
            if isinstance(one, UserAttribute):
                return self._kind_of_attribute(one, other, rows, whole)
        raise RuleError(f"{whole}: it compares values alone, and is always true or always false")

    def _kind_of_attribute(self, one: UserAttribute, other: RuleTerm, rows: Sequence[_Row], whole: str) -> Kind:
        kinds = self._type_of(one).kinds
        if isinstance(other, UserAttribute):
            kinds = tuple(kind for kind in kinds if self._type_of(other).as_kind(kind))
            if not kinds:
                raise RuleError(f"{whole}: {self._said(one, rows)}, and {self._said(other, rows)}")
        for kind in kinds[:-1]:
            try:
                _constant(other, kind, whole)
            except RuleError:
                continue
            return kind
        return kinds[-1]

    def _check_order(self, kind: Kind, sides: Sequence[RuleTerm], rows: Sequence[_Row], whole: str) -> None:
        fields = [side for side in sides if isinstance(side, RecordField)]
        faults = [rows[level_of(field.row)].columns.columns[field.name].order_fault for field in fields]
        fault = next(filter(None, faults), "")
        if not kind.is_ordered:
            fault = f"a {kind.name} has no order that all databases and clients share"
        if fault:
            raise RuleError(f"{whole}: {fault}. Compare by ==, != or in_")

    def _operand(self, operand: RuleTerm, rows: Sequence[_Row]) -> RuleTerm:
        if isinstance(operand, RecordField):
            level = self._level(operand.row, rows, operand.name)
            columns = rows[level].columns
            if operand.name not in columns.columns:
                way_out = (
                    f": write some({operand.name!r}, lambda row: ...)" if operand.name in columns.associations else ""
                )
                raise RuleError(_unknown(columns.name, operand.name, "column", columns.columns) + way_out)
            return replace(operand, row=level)
        if isinstance(operand, UserAttribute):
            self._type_of(operand)
        return operand

    def _level(self, row: RecordRow | int, rows: Sequence[_Row], name: str) -> int:
        for level, each in enumerate(rows):
            if each.name is row:
                return level
        raise RuleError(f"{self.columns.name}: {row}.{name} stands outside of the some(...) whose row it is")

    def _column(self, operand: RecordField, rows: Sequence[_Row], whole: str) -> Kind:
        columns = rows[level_of(operand.row)].columns
        found = columns.columns[operand.name]
        if found.kind is None:
            name = f"{columns.name}.{operand.name}"
            raise RuleError(f"{whole}: {name} is not compared in rules: {found.fault}. It may be asked .is_null()")
        return found.kind

    def _type_of(self, attribute: UserAttribute) -> AttributeType:
        found = self.attributes.get(attribute.name)
        if found is None:
            raise RuleError(f"{self.columns.name}: {_unknown('user', attribute.name, 'attribute', self.attributes)}")
        return found

    def _said(self, operand: RecordField | UserAttribute, rows: Sequence[_Row]) -> str:
        if isinstance(operand, RecordField):
            columns = rows[level_of(operand.row)].columns
            kind = columns.columns[operand.name].kind
            return f"{columns.name}.{operand.name} is {_kind_said(kind)}"
        return f"{operand} is {' or '.join(map(_kind_said, self._type_of(operand).kinds))}"


def _storage(field: RecordField, rows: Sequence[_Row]) -> tuple[object, ...]:
    return rows[level_of(field.row)].columns.columns[field.name].storage


def _kind_said(kind: Kind | None) -> str:
    if kind is None:
        return "not compared"
    if kind.enum is not None:
        return kind.enum.__name__
    return {"moment": "datetime with an offset", "local": "datetime without an offset"}.get(kind.name, kind.name)


def _constant(operand: RuleTerm, kind: Kind, whole: str) -> RuleTerm:
    if not isinstance(operand, RuleValue):
        return operand
    try:
        if isinstance(operand.value, tuple):
            return RuleValue(tuple(kind.constant(item) for item in operand.value))
        return RuleValue(kind.constant(operand.value))
    except ValueError as fault:
        raise RuleError(f"{whole}: {fault}") from fault


def _unknown(owner: str, name: str, what: str, known: Mapping[str, object]) -> str:
    names = ", ".join(sorted(known)) or "none"
    return f"{owner} has no {what} {name!r}; it has {names}"
