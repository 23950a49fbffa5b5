"""What a mapper says of a model, as rules need it: which column compares how, and where its relationships lead."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import cached_property
from itertools import pairwise
from typing import Any, Final

from sqlalchemy import (
    CHAR,
    NCHAR,
    BigInteger,
    Boolean,
    Date,
    DateTime,
    Enum,
    Float,
    Integer,
    Numeric,
    String,
    Uuid,
    inspect,
)
from sqlalchemy.dialects.postgresql import CITEXT
from sqlalchemy.dialects.postgresql.base import PGDialect
from sqlalchemy.dialects.sqlite.base import SQLiteDialect
from sqlalchemy.engine import Dialect
from sqlalchemy.exc import NoInspectionAvailable
from sqlalchemy.orm import Mapper
from sqlalchemy.types import TypeDecorator, TypeEngine
from sqlmodel import AutoString

from reactive_rpc.compat.sqlalchemy import declared_type
from reactive_rpc.records.errors import RuleError
from reactive_rpc.records.rules.kinds import KINDS, Kind, enum_kind

__all__ = ["DIALECTS", "ColumnRule", "ModelColumns", "columns_of"]

DIALECTS: Final[dict[str, Dialect]] = {
    "sqlite": SQLiteDialect(),
    "postgresql": PGDialect(),  # type: ignore[no-untyped-call]  # of SQLAlchemy
}


@dataclass(frozen=True, slots=True)
class ColumnRule:
    """How a column takes part in rules.

    Attributes:
        kind: of its values; None if they are not compared, but may be null or not.
        fault: why they are not compared.
        order_fault: why they are not ordered, if only that.
    """

    kind: Kind | None
    fault: str = ""
    order_fault: str = ""


@dataclass(frozen=True, eq=False)
class ModelColumns:
    """A model as rules see it.

    Attributes:
        model: the mapped class.
        databases: the names of the dialects on which rules are decided.
    """

    model: type[Any]
    databases: tuple[str, ...]

    @property
    def name(self) -> str:
        """The model's, for messages."""
        return self.model.__name__

    @cached_property
    def columns(self) -> dict[str, ColumnRule]:
        """`{attribute: its column}`; expressions that are mapped like columns are none."""
        found: dict[str, ColumnRule] = {}
        for attribute in self._mapper.column_attrs:
            (column, *_) = attribute.columns
            if getattr(column, "table", None) is not None:
                found[attribute.key] = _column_rule(column.type, self.databases)
        return found

    @cached_property
    def associations(self) -> dict[str, ModelColumns]:
        """`{relationship: the model that it leads to}`."""
        return {each.key: ModelColumns(each.mapper.class_, self.databases) for each in self._mapper.relationships}

    def is_list(self, association: str) -> bool:
        """Tell whether an association has many rows."""
        return bool(self._mapper.relationships[association].uselist)

    @property
    def _mapper(self) -> Mapper[Any]:
        mapper: Mapper[Any] = inspect(self.model)
        return mapper


def columns_of(model: type[Any], databases: Iterable[str]) -> ModelColumns:
    """Return what rules need to know of a model.

    Raises:
        RuleError: it is no mapped class, or rules know nothing of a database.
    """
    try:
        is_mapped = isinstance(inspect(model), Mapper)
    except NoInspectionAvailable:
        is_mapped = False
    if not is_mapped:
        raise RuleError(f"{model!r} is no mapped class: give a model of SQLModel with table=True, or of SQLAlchemy")
    names = tuple(databases)
    for name in names:
        if name not in DIALECTS:
            raise RuleError(f"rules are not decided on {name!r}: name some of {', '.join(DIALECTS)}")
    return ModelColumns(model, names)


# -- the kinds of columns


def _column_rule(type_: TypeEngine[Any], databases: Iterable[str]) -> ColumnRule:
    rules = [_rule_on(type_, name) for name in databases]
    faulty = next((rule for rule in rules if rule.kind is None), None)
    if faulty is not None:
        return faulty
    if len({rule.kind for rule in rules}) > 1:
        return ColumnRule(None, "it is of different types on different databases")
    return next((rule for rule in rules if rule.order_fault), rules[0])


def _rule_on(type_: TypeEngine[Any], database: str) -> ColumnRule:
    """Return how a column of a type is compared on one database."""
    dialect = DIALECTS[database]
    variant = type_
    if isinstance(type_, TypeDecorator) and not isinstance(type_, AutoString):
        return _decorated_rule(type_, dialect)
    declared = declared_type(variant, dialect)
    try:
        kind = _kind_of(declared, database)
    except ValueError as fault:
        return ColumnRule(None, str(fault))
    return ColumnRule(kind, order_fault=_order_fault(declared, kind))


def _kind_of(declared: Any, database: str) -> Kind:
    if isinstance(declared, Enum):
        if declared.enum_class is None:
            raise ValueError(
                "an Enum of texts has no class to name its members by: give it an Enum class, or use String"
            )
        return enum_kind(declared.enum_class)
    if isinstance(declared, CITEXT):
        raise ValueError("CITEXT is compared without regard to case, as Python and TypeScript do not: use String")
    if isinstance(declared, CHAR | NCHAR):
        raise ValueError("CHAR is compared without the blanks at its end: use String")
    if isinstance(declared, Float):
        raise ValueError("floats do not compare alike everywhere: use Integer or Numeric")
    if isinstance(declared, Numeric) and (database == "sqlite" or not declared.asdecimal):
        raise ValueError(
            "SQLite stores a Numeric as a float: store whole numbers of the smallest unit"
            if database == "sqlite"
            else "a Numeric that is read as a float does not compare alike everywhere: leave out asdecimal=False"
        )
    if isinstance(declared, DateTime) and declared.timezone and database == "sqlite":
        raise ValueError("SQLite drops the offset of a DateTime(timezone=True): use a type that stores UTC")
    if isinstance(declared, DateTime):
        return KINDS["moment" if declared.timezone else "local"]
    if isinstance(declared, Uuid) and not declared.as_uuid:
        raise ValueError("a Uuid that is read as text has several spellings: leave out as_uuid=False")
    if isinstance(declared, String):
        return _text_kind(declared.collation, database)
    for types, name in _KINDS_OF_TYPES:
        if isinstance(declared, types):
            return KINDS[name]
    raise ValueError(f"{type(declared).__name__} does not compare alike everywhere")


_KINDS_OF_TYPES: Final[tuple[tuple[Any, str], ...]] = (
    (Boolean, "bool"),
    (Integer, "int"),
    (BigInteger, "int"),
    (Numeric, "decimal"),
    (Date, "date"),
    (Uuid, "uuid"),
)

_BY_CODE_POINTS: Final = frozenset({"C", "POSIX", "ucs_basic", "C.UTF-8", "C.utf8", "pg_c_utf8"})
_DETERMINISTIC: Final = re.compile(
    r"unicode|pg_unicode_fast|und-x-icu|[a-z]{2,3}(-\w+)*-x-icu|[a-z]{2,3}_[A-Z]{2}([.@].+)?"
)
"""Collations that PostgreSQL comes with, or takes over from the system: only whoever makes one can make it lax."""


def _text_kind(collation: str | None, database: str) -> Kind:
    if collation is None or (collation == "BINARY" if database == "sqlite" else collation in _BY_CODE_POINTS):
        return KINDS["text"]
    if database == "sqlite":
        raise ValueError(f"under the collation {collation}, texts are equal that are not the same: use BINARY")
    if not _DETERMINISTIC.fullmatch(collation):
        raise ValueError(
            f"nobody knows here whether the collation {collation} is deterministic: if not, texts are equal that are "
            'not the same. Use "C", or one that PostgreSQL comes with'
        )
    return KINDS["text"]


def _order_fault(declared: Any, kind: Kind) -> str:
    collation = getattr(declared, "collation", None)
    if kind.name == "text" and collation is not None and collation not in {*_BY_CODE_POINTS, "BINARY"}:
        return f"the collation {collation} orders texts as its language does, and clients by their code points"
    return "" if kind.is_ordered else f"a {kind.name} has no order that all databases and clients share"


# -- decorators


def _decorated_rule(type_: TypeDecorator[Any], dialect: Dialect) -> ColumnRule:
    """Return how a TypeDecorator's values are compared: as its author says by `rule_kind`, if that is found right."""
    said = getattr(type_, "rule_kind", None)
    spelled = type(type_).__name__
    if said not in _PROBES:
        names = ", ".join(f'"{name}"' for name in _PROBES)
        return ColumnRule(
            None,
            f"{spelled} may store values otherwise than they are compared: if equal values are stored equal, and "
            f"in the same order, say so in the class by rule_kind = {names}",
        )
    kind = KINDS[str(said)]
    fault = _probe(type_, kind, dialect)
    if fault:
        return ColumnRule(None, f"{spelled} says rule_kind = {said!r}, but {fault}")
    return ColumnRule(kind, order_fault=_order_fault(type_, kind))


def _probe(type_: TypeDecorator[Any], kind: Kind, dialect: Dialect) -> str:
    """Hold what a decorator says of itself against some values; return the fault that shows."""
    probes = _PROBES[kind.name]
    try:
        stored = [type_.process_bind_param(value, dialect) for value in probes]
        back = [type_.process_result_value(value, dialect) for value in stored]
    except Exception as exc:
        return f"does not take {kind.name} values: {exc}"
    for value, other in zip(probes, back, strict=True):
        if other is None or kind.key(other) != kind.key(value):
            return f"gives {value!r} back as {other!r}"
    if any(not first < second for first, second in pairwise(stored)):
        return f"stores {probes} in another order"
    return ""


_NOON: Final = datetime(2026, 1, 2, 12, 0, 0, 123456)
_PROBES: Final[dict[str, list[Any]]] = {
    "text": ["", " a", "A", "A ", "a", "a\u0308", "\u00e4", "\uff5e", "\U0001f600"],
    "int": [-(2**40), -1, 0, 1, 2**40],
    "decimal": [Decimal(-2), Decimal(0), Decimal(1), Decimal(10)],
    "moment": [(_NOON + timedelta(hours=hours)).replace(tzinfo=UTC) for hours in (-9000, 0, 1, 9000)],
    "local": [_NOON + timedelta(hours=hours) for hours in (-9000, 0, 1, 9000)],
    "date": [date(999, 1, 1), date(2026, 1, 2), date(2026, 10, 1)],
}
"""For each kind some values in their order."""
