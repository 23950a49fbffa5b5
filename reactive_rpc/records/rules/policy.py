"""A rule of one model, bound and in normal form, and its residual for one user: the door to rules for everybody else.

policy = bind((record.client_id == user.client_id) & ~record.archived, Job, {"client_id": str | None})
jobs = await db.exec(policy.filter(select(Job), ctx))
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar, get_type_hints

from sqlalchemy import ColumnElement, Delete, Select, Update

from reactive_rpc.records.errors import RuleError
from reactive_rpc.records.rules.binding import RuleBinder
from reactive_rpc.records.rules.canonical_text import TextReader, spell
from reactive_rpc.records.rules.columns import DIALECTS, ModelColumns, columns_of
from reactive_rpc.records.rules.expressions import (
    AllOf,
    AnyOf,
    Compared,
    Custom,
    Negated,
    NullTest,
    Private,
    RecordField,
    Rule,
    Some,
    UserAttribute,
    as_rule,
)
from reactive_rpc.records.rules.kinds import AttributeType, attribute_type
from reactive_rpc.records.rules.normal_form import normal_form
from reactive_rpc.records.rules.python import holds
from reactive_rpc.records.rules.residual import fold
from reactive_rpc.records.rules.shipped import ship
from reactive_rpc.records.rules.sql import condition_of
from reactive_rpc.records.rules.statements import reads_table

__all__ = ["Policy", "Residual", "attributes_of", "bind"]

StatementT = TypeVar("StatementT", bound="Select[Any] | Update | Delete")


@dataclass(frozen=True, eq=False)
class Residual:
    """The rest of a rule, when the user is known.

    Attributes:
        columns: of the model.
        rule: the residual, which speaks of the record alone.
    """

    columns: ModelColumns
    rule: Rule

    @cached_property
    def text(self) -> str:
        """The canonical text, by which results are kept apart; `Policy.read` reads it."""
        return spell(self.rule)

    def condition(self, entity: Any = None) -> ColumnElement[bool]:
        """Return the condition of the rows of which it is true; of the others it is false or NULL.

        Args:
            entity: an alias of the model; the model itself where left out.
        """
        return condition_of(self.rule, self.columns.model if entity is None else entity)

    def check(self, row: object) -> bool:
        """Tell whether it is true of a row: a mapping, or an object with the model's attributes.

        Rows of associations are read of it likewise, and have to be all that there are.

        Raises:
            RuleError: the row lacks something that the rule speaks of, or has a value of another type; or only a
                database can decide it, as it has a `custom(sql=...)`.
        """
        return holds(self.rule, row)


@dataclass(frozen=True, eq=False)
class Policy:
    """A rule that is bound to a model. `bind` makes them.

    Attributes:
        columns: of the model.
        attributes: of users, by their names.
        written: the rule as its author wrote it, bound.
        rule: its normal form, with the attributes of the user in it.
    """

    columns: ModelColumns
    attributes: Mapping[str, AttributeType]
    written: Rule

    @cached_property
    def rule(self) -> Rule:
        return normal_form(self.written)

    @cached_property
    def asks_for(self) -> frozenset[str]:
        """The attributes of the user that the rule asks for: no other one changes its residual."""
        return frozenset(_attributes_in(self.rule))

    @cached_property
    def fields(self) -> frozenset[str]:
        """The columns and associations of the record itself that the rule speaks of."""
        return frozenset(_fields_in(self.rule))

    def fold(self, user: object) -> Residual:
        """Return the residual of the rule for a user: a mapping, or an object with such attributes.

        Raises:
            RuleError: an attribute is missing, or of another type than was said.
        """
        known = {name: self._attribute(name, user) for name in sorted(self.asks_for)}
        try:
            return Residual(self.columns, fold(self.rule, known))
        except ValueError as fault:  # a plain datetime, which a rule compares with another kind of moments
            raise RuleError(f"{self.columns.name}: a rule cannot be folded for a user: {fault}") from fault

    def read(self, text: str) -> Residual:
        """Return the residual that a canonical text spells.

        Raises:
            RuleError: it is none of this model's, or not what `fold` makes and `spell` writes: a join of nothing,
                parts or lists out of order.
        """
        rule = TextReader(self.columns, self._customs).read(text)
        try:
            is_canonical = spell(fold(rule, {})) == text
        except (ValueError, RecursionError) as fault:
            raise RuleError(f"{self.columns.name}: {text!r} is no rule of this model: {fault}") from fault
        if not is_canonical:
            raise RuleError(f"{self.columns.name}: {text!r} is not the canonical text of its rule")
        return Residual(self.columns, rule)

    def shipped(self) -> Any:
        """Return the rule as clients get it, JSON without its private parts (`shipped.py`)."""
        return ship(self.rule, self.columns)

    def filter(self, statement: StatementT, user: object) -> StatementT:
        """Return a statement of the model's that has only rows of which the rule is true.

        It says nothing of other models that the statement reads, nor of an alias of this one beside it: each has a
        condition of its own (`Residual.condition`).

        Raises:
            RuleError: it does not read the model's table itself, but an alias, a subquery or another model; or it
                changes another table.
        """
        if not reads_table(statement, self.columns.table):
            raise RuleError(
                f"{self.columns.name}: a statement is filtered by the rule of a model that it does not read: select "
                f"from {self.columns.name} itself, or write statement.where(policy.fold(user).condition(alias))"
            )
        filtered: StatementT = statement.where(self.fold(user).condition())  # type: ignore[assignment]  # it is its own
        return filtered

    def check(self, row: object, user: object) -> bool:
        """Tell whether the rule is true of a row for a user (`Residual.check`)."""
        return self.fold(user).check(row)

    @cached_property
    def _customs(self) -> dict[str, Custom]:
        return {rule.name: rule for rule in _walk(self.rule) if isinstance(rule, Custom)}

    def _attribute(self, name: str, user: object) -> Any:
        try:
            value = user[name] if isinstance(user, Mapping) else getattr(user, name)
        except (KeyError, AttributeError) as exc:
            raise RuleError(f"{self.columns.name}: the user has no attribute {name!r}, which a rule asks for") from exc
        if value is None:
            return None
        try:
            return self.attributes[name].constant(value)[1]
        except ValueError as fault:
            raise RuleError(f"{self.columns.name}: user.{name} is {value!r}: {fault}") from fault


def bind(
    rule: object, model: type[Any], attributes: Mapping[str, Any], *, databases: Iterable[str] = tuple(DIALECTS)
) -> Policy:
    """Return a rule held against a model and the attributes of its users.

    Args:
        rule: as written.
        model: of SQLModel or SQLAlchemy, with its mapper configured.
        attributes: `{name: annotation}` of all that may be known of a user: `{"id": str, "team_ids": list[int]}`.
        databases: on which it has to be decided: each that the application runs on, also in its tests.

    Raises:
        RuleError: it names something that is not there, or some reader could not decide it exactly.
    """
    columns = columns_of(model, databases)
    types = {name: _type_of(name, annotation) for name, annotation in attributes.items()}
    policy = Policy(columns, types, RuleBinder(columns, types).bind(as_rule(rule)))
    _check_names(columns, [rule for rule in _walk(policy.rule) if isinstance(rule, Custom)])
    return policy


def attributes_of(kind: type) -> dict[str, Any]:
    """Return the attributes of users by the annotations of a class: those that rules can compare.

    >>> from reactive_rpc import Login
    >>> sorted(attributes_of(Login))
    ['expires_at', 'identity', 'tenant']
    """
    found = {}
    for name, annotation in get_type_hints(kind, include_extras=True).items():
        try:
            attribute_type(annotation)
        except ValueError:
            continue
        found[name] = annotation
    return found


def _type_of(name: str, annotation: Any) -> AttributeType:
    try:
        return attribute_type(annotation)
    except ValueError as fault:
        raise RuleError(f"user.{name}: {fault}") from fault


def _check_names(columns: ModelColumns, customs: list[Custom]) -> None:
    by_name: dict[str, Custom] = {}
    for custom in customs:
        other = by_name.setdefault(custom.name, custom)
        if (other.make, other.row) != (custom.make, custom.row):
            raise RuleError(
                f"{columns.name}: two custom(sql=...) of one rule are called {custom.name!r}, and stand for different "
                "conditions: give one of them another name="
            )


def _walk(rule: Rule) -> Iterator[Rule]:
    """Yield a rule and all that is in it."""
    yield rule
    match rule:
        case AllOf(parts) | AnyOf(parts):
            for part in parts:
                yield from _walk(part)
        case Negated(part) | Private(part) | Some(part=part):
            yield from _walk(part)


def _operands(rule: Rule) -> Iterator[object]:
    for each in _walk(rule):
        if isinstance(each, Compared):
            yield from (each.left, each.right)
        elif isinstance(each, NullTest):
            yield each.operand


def _attributes_in(rule: Rule) -> Iterator[str]:
    yield from (operand.name for operand in _operands(rule) if isinstance(operand, UserAttribute))
    for each in _walk(rule):
        if isinstance(each, Custom):
            yield from each.attributes


def _fields_in(rule: Rule) -> Iterator[str]:
    yield from (each.name for each in _operands(rule) if isinstance(each, RecordField) and each.row == 0)
    yield from (each.association for each in _walk(rule) if isinstance(each, Some) and each.of == 0)
