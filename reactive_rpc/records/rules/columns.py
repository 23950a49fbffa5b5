"""A model as rules need to know it: which column compares how, and where its relationships lead."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import cached_property
from itertools import pairwise
from typing import Any, Final, TypeGuard

from sqlalchemy import (
    CHAR,
    NCHAR,
    BigInteger,
    Boolean,
    Date,
    DateTime,
    Enum,
    Float,
    FromClause,
    Integer,
    Join,
    Numeric,
    String,
    Uuid,
    inspect,
)
from sqlalchemy.dialects.postgresql import CITEXT
from sqlalchemy.dialects.postgresql.base import PGDialect
from sqlalchemy.dialects.sqlite import DATE as SQLITE_DATE
from sqlalchemy.dialects.sqlite import DATETIME as SQLITE_DATETIME
from sqlalchemy.dialects.sqlite.base import SQLiteDialect
from sqlalchemy.engine import Dialect
from sqlalchemy.exc import NoInspectionAvailable
from sqlalchemy.orm import Mapper
from sqlalchemy.types import TypeDecorator, TypeEngine
from sqlmodel import AutoString

from reactive_rpc.compat.sqlalchemy import declared_type, variant_of
from reactive_rpc.records.errors import RuleError
from reactive_rpc.records.rules.kinds import KINDS, Kind, enum_kind

__all__ = ["DIALECTS", "ColumnRule", "ModelColumns", "columns_of", "is_decorated"]

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
        storage: how each database stores them, where a kind is stored in several ways. Two columns are only compared
            with each other if it is the same: a label with a text, for one, fails on PostgreSQL, and a moment with
            one that has no zone depends on the session's.
    """

    kind: Kind | None
    fault: str = ""
    order_fault: str = ""
    storage: tuple[object, ...] = ()


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
        """`{relationship: the model that it leads to}` of those that rules may look at."""
        faults, relationships = self.association_faults, self._mapper.relationships
        return {
            each.key: ModelColumns(each.mapper.class_, self.databases)
            for each in relationships
            if each.key not in faults
        }

    @cached_property
    def association_faults(self) -> dict[str, str]:
        """`{relationship: why rules may not look at it}`.

        EXISTS of a model that shares its parent's table gets a condition on that table without its alias: it is about
        the row outside, or adds the table once more.
        """
        return {
            each.key: _narrowed_fault(each.mapper)
            for each in self._mapper.relationships
            if each.mapper.single and each.mapper.inherits is not None
        }

    def is_list(self, association: str) -> bool:
        """Tell whether an association has many rows."""
        return bool(self._mapper.relationships[association].uselist)

    @property
    def table(self) -> FromClause:
        """What the model is mapped to."""
        return self._mapper.persist_selectable

    @property
    def _mapper(self) -> Mapper[Any]:
        mapper: Mapper[Any] = inspect(self.model)
        return mapper


def _narrowed_fault(mapper: Mapper[Any]) -> str:
    (base, *_) = [each for each in mapper.iterate_to_root() if not each.single]
    kind = getattr(mapper.polymorphic_on, "key", None)
    return (
        f"it leads to {mapper.class_.__name__}, which shares the table of {base.class_.__name__}: declare a "
        f"relationship with {base.class_.__name__}, and compare its {kind or 'columns'}; or write custom(sql=...)"
    )


def columns_of(model: type[Any], databases: Iterable[str]) -> ModelColumns:
    """Return a model as rules see it.

    Raises:
        RuleError: it is no mapped class, or mapped to a join; or rules know nothing of a database.
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
    columns = ModelColumns(model, names)
    _check_table(columns)
    return columns


def _check_table(columns: ModelColumns) -> None:
    """Refuse a model of more than one table: an UPDATE changes one, and joins the others to it by nothing."""
    if isinstance(columns.table, Join):
        raise RuleError(
            f"{columns.name} is mapped to a join of tables, of which an UPDATE or DELETE would change one, unjoined: "
            "bind the rule to the model of the table whose columns it compares, and reach others by some(...)"
        )


# -- the kinds of columns


def _column_rule(type_: TypeEngine[Any], databases: Iterable[str]) -> ColumnRule:
    rules = [_rule_on(type_, name) for name in databases]
    faulty = next((rule for rule in rules if rule.kind is None), None)
    if faulty is not None:
        return faulty
    if len({rule.kind for rule in rules}) > 1:
        return ColumnRule(None, "it is of different types on different databases")
    order_fault = next((rule.order_fault for rule in rules if rule.order_fault), "")
    return ColumnRule(rules[0].kind, order_fault=order_fault, storage=tuple(rule.storage for rule in rules))


def _rule_on(type_: TypeEngine[Any], database: str) -> ColumnRule:
    """Return how a column of a type is compared on one database."""
    dialect = DIALECTS[database]
    variant = variant_of(type_, dialect)
    if is_decorated(variant):
        return _decorated_rule(variant, dialect)
    declared = declared_type(variant, dialect)
    try:
        kind = _kind_of(declared, database)
    except ValueError as fault:
        return ColumnRule(None, str(fault))
    return ColumnRule(kind, order_fault=_order_fault(declared, kind), storage=_storage_of(declared))


def _storage_of(declared: Any) -> tuple[object, ...]:
    match declared:
        case Enum():
            return (declared.native_enum, declared.name, *declared.enums)
        case String():
            return (declared.collation,)
        case Uuid():
            return (declared.native_uuid,)
    return ()


def _kind_of(declared: Any, database: str) -> Kind:
    fault = _type_fault(declared, on_sqlite=database == "sqlite")
    if fault:
        raise ValueError(fault)
    if isinstance(declared, Enum) and declared.enum_class is not None:
        return enum_kind(declared.enum_class)
    if isinstance(declared, DateTime):
        return KINDS["moment" if declared.timezone else "local"]
    if isinstance(declared, String):
        return _text_kind(declared.collation, database)
    for types, name in _KINDS_OF_TYPES:
        if isinstance(declared, types):
            return KINDS[name]
    raise ValueError(f"{type(declared).__name__} does not compare alike everywhere")


def _type_fault(declared: Any, *, on_sqlite: bool) -> str:
    match declared:
        case Enum(enum_class=None):
            return "an Enum of texts has no class to name its members by: give it an Enum class, or use String"
        case CITEXT():
            return "CITEXT is compared without regard to case, as Python and TypeScript do not: use String"
        case CHAR() | NCHAR():
            return "CHAR is compared without the blanks at its end: use String"
        case Float():
            return "floats do not compare alike everywhere: use Integer or Numeric"
        case Numeric() if on_sqlite:
            return "SQLite stores a Numeric as a float: store whole numbers of the smallest unit"
        case Numeric(asdecimal=False):
            return "a Numeric that is read as a float does not compare alike everywhere: leave out asdecimal=False"
        case DateTime(timezone=True) if on_sqlite:
            return "SQLite drops the offset of a DateTime(timezone=True): use a type that stores UTC"
        case SQLITE_DATETIME() | SQLITE_DATE():
            return "a format of its own may drop what is compared: use DateTime or Date"
        case Uuid(as_uuid=False):
            return "a Uuid that is read as text has several spellings: leave out as_uuid=False"
    return ""


_KINDS_OF_TYPES: Final[tuple[tuple[Any, str], ...]] = (
    (Boolean, "bool"),
    (Integer, "int"),
    (BigInteger, "int"),
    (Numeric, "decimal"),
    (Date, "date"),
    (Uuid, "uuid"),
)

_BY_CODE_POINTS: Final = frozenset({"C", "POSIX", "ucs_basic", "C.UTF-8", "C.utf8", "pg_c_utf8", "pg_unicode_fast"})
_DETERMINISTIC: Final = re.compile(r"unicode|und-x-icu|[a-z]{2,3}(-\w+)*-x-icu|[a-z]{2,3}_[A-Z]{2}([.@].+)?")
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


def is_decorated(type_: TypeEngine[Any]) -> TypeGuard[TypeDecorator[Any]]:
    """Tell whether code of an application's own stands between a value and the stored one."""
    return isinstance(type_, TypeDecorator) and not isinstance(type_, AutoString)


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
    return ColumnRule(kind, order_fault=_order_fault(type_, kind), storage=(type(type_),))


def _probe(type_: TypeDecorator[Any], kind: Kind, dialect: Dialect) -> str:
    """Hold the word of a decorator against some values; return the fault that shows."""
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
