"""The kinds of values that rules compare, and that every reader compares alike.

A kind says which values may stand in a rule, how Python compares those of a row, how canonical text spells a value, and
how JSON carries it to clients. Types that some reader would compare otherwise have no kind.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from enum import Enum
from typing import Annotated, Any, Final, Literal, NewType, TypeAlias, Union, get_args, get_origin
from uuid import UUID

from pydantic import AwareDatetime, NaiveDatetime

from reactive_rpc.protocol.decimals import decimal_key

__all__ = ["KINDS", "AttributeType", "Kind", "KindName", "attribute_type", "enum_kind"]

KindName: TypeAlias = Literal["text", "int", "bool", "decimal", "moment", "local", "date", "uuid", "enum"]

_INT64: Final = 2**63
_MOST_DIGITS: Final = 1_000
_SAFE_INTEGER: Final = 2**53
_ORDERED: Final = frozenset({"text", "int", "decimal", "moment", "local", "date"})


@dataclass(frozen=True, slots=True)
class Kind:
    """How values are compared.

    Attributes:
        name: `moment` has an offset, `local` is a datetime without one.
        enum: the class of an `enum`, whose members are only equal or not.
    """

    name: KindName
    enum: type[Enum] | None = None

    @property
    def is_ordered(self) -> bool:
        """Whether `<` means the same to every reader."""
        return self.name in _ORDERED

    def constant(self, value: object) -> Any:
        """Return a value of a rule or of a user in one spelling: equal ones are the same to `spell`.

        Raises:
            ValueError: it is no value of this kind, or one that not every database can compare.
        """
        return _enum_member(value, self.enum) if self.enum is not None else _CONSTANTS[self.name](value)

    def key(self, value: object) -> Any:
        """Return the key by which Python compares a value of a row.

        Raises:
            ValueError: it is no value of this kind.
        """
        if self.name == "decimal":
            return decimal_key(value if isinstance(value, Decimal) else _decimal(value))
        if type(value) is str and self.name == "text":  # stored ones may hold what no constant may
            return value
        return self.constant(value)

    def spell(self, value: Any) -> str | int | bool:
        """Return a constant as canonical text has it."""
        if self.name == "enum":
            return str(value.name)
        if self.name == "decimal":
            return _spelled_decimal(value)
        return value if isinstance(value, str | int) else str(value) if self.name == "uuid" else str(value.isoformat())

    def read(self, spelled: Any) -> Any:
        """Return the constant that `spell` has written.

        Raises:
            ValueError: it has not.
        """
        try:
            value = self.constant(self.enum[spelled] if self.enum is not None else _READERS[self.name](spelled))
        except (KeyError, TypeError, InvalidOperation) as exc:
            raise ValueError(f"{spelled!r} is no {self.name}") from exc
        if self.spell(value) != spelled or type(self.spell(value)) is not type(spelled):
            raise ValueError(f"{spelled!r} is another spelling of {value!r}")
        return value

    def wire(self, value: Any) -> str | int | bool:
        """Return a constant as JSON carries it; an integer that JavaScript's numbers cannot hold, as its digits."""
        if self.name == "enum":
            return value.value  # type: ignore[no-any-return]  # `enum_kind` took text and numbers only
        if self.name == "moment":
            return str(value.isoformat()).replace("+00:00", "Z")
        if self.name == "int" and not -_SAFE_INTEGER < value < _SAFE_INTEGER:
            return str(value)
        return self.spell(value)


def enum_kind(enum: type[Enum]) -> Kind:
    """Return the kind of an Enum's members.

    Raises:
        ValueError: clients cannot tell its members by their values.
    """
    values = [member.value for member in enum]
    if not all(
        type(value) in (str, int) or (isinstance(value, str | int) and not isinstance(value, bool)) for value in values
    ):
        raise ValueError(f"{enum.__name__} has members whose values are neither text nor int")
    if any(isinstance(value, int) and not -_SAFE_INTEGER < value < _SAFE_INTEGER for value in values):
        raise ValueError(f"{enum.__name__} has values beyond 2^53, which JavaScript rounds")
    return Kind("enum", enum)


# -- constants


def _text(value: object) -> str:
    if not isinstance(value, str) or (isinstance(value, Enum) and not isinstance(value.value, str)):
        raise ValueError("text is wanted")
    text = str.__str__(value.value if isinstance(value, Enum) else value)
    if "\0" in text:
        raise ValueError("text with NUL is none on PostgreSQL")
    try:
        text.encode()
    except UnicodeEncodeError as exc:
        raise ValueError("half a character is no text to a database") from exc
    return text


def _int(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError("an int is wanted")
    number = int(value)
    if not -_INT64 <= number < _INT64:
        raise ValueError("an int of 64 bits is wanted")
    return number


def _bool(value: object) -> bool:
    if type(value) is not bool:
        raise ValueError("True or False is wanted")
    return value


def _decimal(value: object) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise ValueError("a Decimal is wanted")
    number = Decimal(value)
    if not number.is_finite():
        raise ValueError("a Decimal that is a number is wanted")
    if abs(number.adjusted()) > _MOST_DIGITS or len(number.as_tuple().digits) > _MOST_DIGITS:
        raise ValueError(f"a Decimal of at most {_MOST_DIGITS} digits is wanted")
    return Decimal(_spelled_decimal(number))


def _spelled_decimal(value: Decimal) -> str:
    """Return the digits: not `normalize()`, which rounds to the context's precision."""
    text = format(value, "f")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def _moment(value: object) -> datetime:
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise ValueError("a datetime with an offset is wanted: datetime.now(UTC), for example")
    # Of one zone: Python calls two moments of an hour that a zone has twice unequal whatever they are.
    try:
        return value.astimezone(UTC)
    except OverflowError as exc:
        raise ValueError("the moment is out of range") from exc


def _local(value: object) -> datetime:
    if not isinstance(value, datetime) or value.tzinfo is not None:
        raise ValueError("a datetime without an offset is wanted, as the column stores none")
    return value.replace(fold=0)


def _date(value: object) -> date:
    if not isinstance(value, date) or isinstance(value, datetime):
        raise ValueError("a date is wanted")
    return value


def _uuid(value: object) -> UUID:
    if not isinstance(value, UUID):
        raise ValueError("a UUID is wanted")
    return UUID(int=value.int)  # drivers have classes of their own


def _enum_member(value: object, enum: type[Enum]) -> Enum:
    if isinstance(value, enum):
        return value
    if not isinstance(value, Enum) and type(value) in (str, int):
        found = [member for member in enum if type(value) is not bool and member.value == value]
        if found:
            return found[0]
    values = ", ".join(repr(member.value) for member in enum)
    raise ValueError(f"a member of {enum.__name__} is wanted, or its value, one of {values}")


_CONSTANTS: Final[dict[str, Callable[[object], Any]]] = {
    "text": _text,
    "int": _int,
    "bool": _bool,
    "decimal": _decimal,
    "moment": _moment,
    "local": _local,
    "date": _date,
    "uuid": _uuid,
}

_READERS: Final[dict[str, Callable[[Any], Any]]] = {
    "text": _text,
    "int": _int,
    "bool": _bool,
    "decimal": Decimal,
    "moment": datetime.fromisoformat,
    "local": datetime.fromisoformat,
    "date": date.fromisoformat,
    "uuid": UUID,
}

KINDS: Final[dict[str, Kind]] = {name: Kind(name) for name in _CONSTANTS}  # type: ignore[arg-type]  # they are the names
"""Those that are no enum, by their names."""


# -- annotations


@dataclass(frozen=True, slots=True)
class AttributeType:
    """The values that an attribute of the user holds.

    Attributes:
        kinds: one of them; a plain `datetime` may be a `moment` or `local`, whatever it is compared with.
        is_list: whether it is a list of such values.
    """

    kinds: tuple[Kind, ...]
    is_list: bool = False

    def constant(self, value: object) -> tuple[Kind, Any]:
        """Return the kind that a value has, and the value in its one spelling; of a list, a tuple of such values.

        Raises:
            ValueError: it is no such value.
        """
        for kind in self.kinds[:-1]:
            try:
                return kind, self._as(kind, value)
            except ValueError:
                continue
        return self.kinds[-1], self._as(self.kinds[-1], value)

    def _as(self, kind: Kind, value: object) -> Any:
        if not self.is_list:
            return kind.constant(value)
        if isinstance(value, str | bytes) or not isinstance(value, Collection):
            raise ValueError("a list is wanted")
        return tuple(None if item is None else kind.constant(item) for item in value)

    def as_kind(self, kind: Kind) -> bool:
        """Tell whether it can be compared as a kind."""
        return kind in self.kinds


_BY_TYPE: Final[dict[Any, tuple[KindName, ...]]] = {
    str: ("text",),
    int: ("int",),
    bool: ("bool",),
    Decimal: ("decimal",),
    datetime: ("moment", "local"),
    AwareDatetime: ("moment",),
    NaiveDatetime: ("local",),
    date: ("date",),
    UUID: ("uuid",),
}


def attribute_type(annotation: Any) -> AttributeType:
    """Return the values that an attribute of the user holds, by its annotation.

    Args:
        annotation: a type, one or None, or a list, tuple or set of it.

    Raises:
        ValueError: rules do not compare such values.
    """
    annotation = _without_none(annotation)
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is not None and isinstance(origin, type) and issubclass(origin, Collection) and origin is not dict:
        of = [each for each in arguments if each is not Ellipsis]
        if len(of) != 1:
            raise ValueError(f"{annotation} is a list of several types: give list[str], for example")
        return AttributeType(_kinds_of(_without_none(of[0])), is_list=True)
    return AttributeType(_kinds_of(annotation))


def _kinds_of(annotation: Any) -> tuple[Kind, ...]:
    if get_origin(annotation) is Literal:
        found = {_kinds_of(type(value)) for value in get_args(annotation) if value is not None}
        if len(found) == 1:
            return found.pop()
    elif isinstance(annotation, type) and issubclass(annotation, Enum):
        return (enum_kind(annotation),)
    elif annotation in _BY_TYPE:
        return tuple(KINDS[name] for name in _BY_TYPE[annotation])
    raise ValueError(
        f"rules do not compare {getattr(annotation, '__name__', annotation)}: use str, int, bool, Decimal, datetime, "
        "date, UUID or an Enum, one or None, or a list of them"
    )


def _without_none(annotation: Any) -> Any:
    if annotation in _BY_TYPE:
        return annotation
    if isinstance(annotation, NewType):
        return _without_none(annotation.__supertype__)
    if get_origin(annotation) is Annotated:
        return _without_none(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        of = [each for each in get_args(annotation) if each is not type(None)]
        return _without_none(of[0]) if len(of) == 1 else annotation
    return annotation
