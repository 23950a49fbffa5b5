"""Read a residual as a condition of SQLAlchemy's: the reader that decides.

Values are bound by types that do not change them: a cast to NUMERIC(10, 2) would round what it is compared with, and
one to INTEGER refuse it. PostgreSQL orders text by its code points, too, whatever the database's own order is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Date,
    DateTime,
    Numeric,
    String,
    and_,
    bindparam,
    false,
    not_,
    or_,
    true,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import aliased
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.expression import Grouping
from sqlalchemy.types import TypeEngine

from reactive_rpc.compat.sqlalchemy import variant_of
from reactive_rpc.records.errors import RuleError
from reactive_rpc.records.rules.columns import DIALECTS, is_decorated
from reactive_rpc.records.rules.expressions import (
    AllOf,
    AnyOf,
    Compared,
    Custom,
    NullTest,
    RecordField,
    Rule,
    RuleTerm,
    Some,
    Truth,
    field_of,
    level_of,
    value_of,
)
from reactive_rpc.records.rules.kinds import Kind

__all__ = ["condition_of"]


class _ByCodePoints(ColumnElement[str]):
    """A text that is ordered by its code points, whatever its collation."""

    inherit_cache = True

    def __init__(self, column: Any) -> None:
        self.column = column
        self.type = String()

    def get_children(self, **kwargs: Any) -> Sequence[Any]:
        """Return the column, so that FROM and aliases know of it."""
        return (self.column,)


@compiles(_ByCodePoints)
def _as_it_is(element: _ByCodePoints, compiler: SQLCompiler, **kwargs: Any) -> str:
    return compiler.process(element.column, **kwargs)


@compiles(_ByCodePoints, "postgresql")
def _by_code_points(element: _ByCodePoints, compiler: SQLCompiler, **kwargs: Any) -> str:
    return f'{compiler.process(element.column, **kwargs)} COLLATE "C"'


_ORDERED_TEXT: Final = String().with_variant(String(collation="C"), "postgresql")
_BOUND_AS: Final[dict[str, TypeEngine[Any]]] = {
    "text": String(),
    "int": BigInteger(),
    "decimal": Numeric(),
    "moment": DateTime(timezone=True),
    "local": DateTime(),
    "date": Date(),
}
"""The others are bound by the type of their column."""

_COMPARE: Final[dict[str, Callable[[Any, Any], ColumnElement[bool]]]] = {
    "eq": lambda column, other: column == other,
    "ne": lambda column, other: column != other,
    "lt": lambda column, other: column < other,
    "lte": lambda column, other: column <= other,
    "gt": lambda column, other: column > other,
    "gte": lambda column, other: column >= other,
    "in": lambda column, other: column.in_(other),
    "not_in": lambda column, other: column.not_in(other),
}


def condition_of(rule: Rule, entity: Any) -> ColumnElement[bool]:
    """Return the condition of the rows of which a residual is true; of the others it is false or NULL.

    Args:
        rule: a residual.
        entity: the model, or an alias of it.

    Raises:
        RuleError: a `custom(sql=...)` returned no condition.
    """
    return _condition(rule, (entity,))


def _condition(rule: Rule, entities: Sequence[Any]) -> ColumnElement[bool]:
    match rule:
        case Truth(value):
            return true() if value else false()
        case AllOf(parts):
            return _joined(and_, parts, entities)
        case AnyOf(parts):
            return _joined(or_, parts, entities)
        case NullTest(operand, negated):
            column = _column(operand, entities)
            is_null: ColumnElement[bool] = column.is_not(None) if negated else column.is_(None)
            return is_null
        case Some(association, of, _, part, negated):
            found = _exists(getattr(entities[level_of(of)], association), part, entities)
            return not_(found) if negated else found
        case Custom():
            return _custom(rule, entities[level_of(rule.row)])
        case Compared():
            return _compared(rule, entities)
    raise AssertionError(rule)


def _joined(
    join: Callable[..., ColumnElement[bool]], parts: Sequence[Rule], entities: Sequence[Any]
) -> ColumnElement[bool]:
    if not parts:  # SQLAlchemy leaves out an OR of nothing, and so opens every row
        raise AssertionError("a rule joins nothing")
    return join(*(_condition(part, entities) for part in parts))


def _exists(association: Any, part: Rule, entities: Sequence[Any]) -> ColumnElement[bool]:
    # An alias of its own: the association may lead back to a model that stands outside.
    row = aliased(association.property.mapper.class_)
    through = association.of_type(row)
    condition = _condition(part, (*entities, row))
    found: ColumnElement[bool] = through.any(condition) if association.property.uselist else through.has(condition)
    return found


def _custom(rule: Custom, entity: Any) -> ColumnElement[bool]:
    """Return an application's condition in brackets: nothing else tells where `literal_column("a OR b")` ends."""
    made: Any = rule.make(entity, **{name: value for name, (_, value) in (rule.values or {}).items()})
    if isinstance(made, bool):
        made = true() if made else false()
    if hasattr(made, "__clause_element__"):  # a model's attribute
        made = made.__clause_element__()
    if not isinstance(made, ColumnElement):
        raise RuleError(
            f"custom(sql={rule.name}) returned {made!r}, which is no condition of SQLAlchemy's: join comparisons by "
            "and_() and or_(), and write SQL of your own as literal_column(...)"
        )
    condition: ColumnElement[bool] = Grouping(made)
    return not_(condition) if rule.negated else condition


def _compared(rule: Compared, entities: Sequence[Any]) -> ColumnElement[bool]:
    column, kind = _column(rule.left, entities), rule.bound_kind
    is_text_order = kind.name == "text" and rule.operator in ("lt", "lte", "gt", "gte")
    if isinstance(rule.right, RecordField):
        other = _column(rule.right, entities)
        return _COMPARE[rule.operator](_ByCodePoints(column) if is_text_order else column, other)
    type_ = _bound_as(column.type, kind, is_text_order=is_text_order)
    # A decorator binds as it stores, and knows no collation.
    left = _ByCodePoints(column) if is_text_order and type_ is not _ORDERED_TEXT else column
    return _COMPARE[rule.operator](left, _bound(value_of(rule.right), type_))


def _bound(value: Any, type_: TypeEngine[Any]) -> Any:
    if isinstance(value, tuple):
        return bindparam(None, list(value), type_=type_, unique=True, expanding=True)
    return bindparam(None, value, type_=type_, unique=True)


@lru_cache(maxsize=1024)
def _bound_as(type_: TypeEngine[Any], kind: Kind, *, is_text_order: bool) -> TypeEngine[Any]:
    bound = _ORDERED_TEXT if is_text_order else _BOUND_AS.get(kind.name)
    if bound is None:
        return type_
    for name, dialect in DIALECTS.items():
        variant = variant_of(type_, dialect)
        if is_decorated(variant):
            bound = (String() if is_text_order else bound).with_variant(variant, name)
    return bound


def _column(operand: RuleTerm, entities: Sequence[Any]) -> Any:
    field = field_of(operand)
    return getattr(entities[level_of(field.row)], field.name)
