"""Rules that have a name, among those that users write: about associations and roles, private ones, and SQL."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

from reactive_rpc.records.errors import RuleError
from reactive_rpc.records.rules.expressions import (
    Custom,
    Private,
    RecordField,
    RecordRow,
    Rule,
    Some,
    as_rule,
    record,
    user,
)

__all__ = ["client_member", "custom", "owner", "private", "role", "some"]


def some(association: str | RecordField, make: Callable[[Any], object]) -> Rule:
    """Return whether some row of an association satisfies a rule: `some("members", lambda m: m.user_id == user.id)`.

    Args:
        association: a relationship of the model's; of another row, `some(row.members, ...)`.
        make: gets the row, and returns its rule, which may also speak of `record` and `user`.
    """
    if isinstance(association, str):
        association = RecordField(association, record)
    if not isinstance(association, RecordField):
        raise RuleError(f"some({association!r}, ...): give the name of a relationship of the model's")
    row = RecordRow(f"{association.name}[...]")
    return Some(association.name, association.row, row, as_rule(make(row)))


def role(*names: object) -> Rule:
    """Return whether the user has one of some roles: `user.role.in_(names)`."""
    if not names:
        raise RuleError("role(): name at least one role")
    return user.role.in_(names)


def owner() -> Rule:
    """Return whether the record is the user's: `record.user_id == user.id`."""
    return record.user_id == user.id


def client_member() -> Rule:
    """Return whether the record is one of the user's client: `record.client_id == user.client_id`."""
    return record.client_id == user.client_id


def private(rule: object) -> Rule:
    """Return a rule that is decided as it stands and that clients do not get: they ask the server."""
    return Private(as_rule(rule))


def custom(rule: object = None, *, sql: Callable[..., Any] | None = None, name: str | None = None) -> Rule:
    """Return a rule of your own: any rule, or by `sql=` a condition that only a database can decide.

    Args:
        rule: any rule.
        sql: gets the model, or an alias of it, and returns a condition of SQLAlchemy's. Further parameters are named
            after attributes of the user, and get their values. If one is None, the condition is not asked, and the rule
            is false.
        name: tells the condition from others of its model, the same in all processes: that of `sql` where left out.
    """
    if sql is None:
        if rule is None or name is not None:
            raise RuleError("custom(...): give a rule, or sql= and, if that has no name, name=")
        return as_rule(rule)
    if rule is not None:
        raise RuleError("custom(rule, sql=...): give one of them, and join them by & or |")
    if not callable(sql):
        raise RuleError("custom(sql=...): give a function that gets the model and returns a condition of SQLAlchemy's")
    name = name or str(getattr(sql, "__name__", "<lambda>"))
    if name == "<lambda>":
        raise RuleError('custom(sql=...): a lambda has no name, which the keys of results need: give name="..."')
    return Custom(name, sql, tuple(_further_parameters(name, sql)))


def _further_parameters(name: str, sql: Callable[..., Any]) -> Iterator[str]:
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    first, *others = inspect.signature(sql).parameters.values() or (None,)
    if first is None or first.kind is inspect.Parameter.KEYWORD_ONLY:
        raise RuleError(f"custom(sql={name}): its first parameter gets the model")
    for parameter in others:
        if parameter.kind not in by_name:
            raise RuleError(f"custom(sql={name}): name each attribute of the user that it asks for, instead of *")
        yield parameter.name
