"""Canonical bytes: equal exactly where no handler can tell two values apart."""

from __future__ import annotations

import tracemalloc
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from math import inf, nan
from pathlib import PurePosixPath
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import AnyUrl, BaseModel, ConfigDict, PrivateAttr, SecretBytes, SecretStr
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel

from reactive_rpc import Login
from reactive_rpc.procedures.canonical import canonical, is_pure

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=4)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.integers()
    | st.sampled_from([0.0, -0.0, 1.0, 0.5, inf, -inf])
    | TEXT
    | st.sampled_from(["$int", "$float", "1", "nan", "null", "[]"])
    | st.binary(max_size=2)
    | st.decimals(-2, 2, places=1)
    | st.dates(date(2026, 1, 1), date(2026, 1, 3))
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.frozensets(SCALARS, max_size=3)
        | st.dictionaries(TEXT | st.sampled_from(["$int", "$builtins.dict"]), inner, max_size=2)
    ),
    max_leaves=6,
)


def distinguished(value: Any) -> Any:
    """Return what a handler sees of a value: its type, and its parts likewise."""
    kind = type(value)
    if kind in (list, tuple):
        return kind, tuple(distinguished(item) for item in value)
    if kind is frozenset:
        return kind, frozenset(distinguished(item) for item in value)
    if kind is dict:
        return kind, tuple((distinguished(key), distinguished(item)) for key, item in value.items())
    return kind, repr(value)


@given(VALUES, VALUES)
def test_equal_bytes_mean_equal_values(left: Any, right: Any) -> None:
    """For any two values: the bytes are equal exactly where types and parts are."""
    assert (canonical(left) == canonical(right)) == (distinguished(left) == distinguished(right))


@given(VALUES)
def test_the_same_value_has_the_same_bytes(value: Any) -> None:
    """Always, and alone or within another."""
    assert canonical(value) == canonical(value)
    assert canonical([value]) != canonical(value)


class Colour(Enum):
    RED = 1


class Size(IntEnum):
    BIG = 1


class Word(StrEnum):
    A = "a"


class One(BaseModel):
    value: Any = None


class Two(BaseModel):
    value: Any = None


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")
    value: Any = None


class Hidden(BaseModel):
    _secret: int = PrivateAttr(default=0)


@dataclass(frozen=True, kw_only=True)
class Admin(Login):
    """The same fields, another class."""


@dataclass
class Plain:
    identity: str


class Undecorated(Login):
    """A plain subclass of a dataclass: it may hold more than its fields."""


def hidden(secret: int) -> Hidden:
    made = Hidden()
    made._secret = secret
    return made


DISTINCT = [
    1, 1.0, True, "1", Decimal(1), Decimal("1.0"), Size.BIG, Colour.RED, b"1", [1], (1,), {1}, frozenset({1}), {"1": 1},
    {1: 1}, None, "null", 2**64, str(2**64), nan, inf, -inf, "nan", "inf", 0.0, -0.0, 0, "a", Word.A,
    SecretStr("a"), SecretStr("b"), SecretBytes(b"a"), AnyUrl("http://a"), "http://a/", PurePosixPath("a"),
    datetime(2026, 1, 1), datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=1))),
    date(2026, 1, 1), "2026-01-01", time(1), timedelta(seconds=1), UUID(int=1), str(UUID(int=1)),
    One(), One(value=None), Two(), Two(value=None), One(value=1), Open(), Open(value=1), Open(other=1), Open(other=2),
    Open(value=None, other=1), hidden(1), hidden(2), Login(identity="u"), Login(tenant="u"),
    Login(identity="u", tenant="u"), Admin(identity="u"),
]  # fmt: skip


def test_what_a_handler_can_tell_apart_has_bytes_of_its_own() -> None:
    """Secrets, infinities, unset fields, extra and private ones, signs of zero, types and subclasses."""
    found = [canonical(value) for value in DISTINCT]
    same = [
        (DISTINCT[left], DISTINCT[right])
        for left in range(len(found))
        for right in range(left)
        if found[left] == found[right]
    ]
    assert same == []


def test_what_nobody_can_tell_apart_has_the_same_bytes() -> None:
    """Two NaN, two sets filled in another order, two equal models."""
    assert canonical(nan) == canonical(float("nan"))
    assert canonical({"a", "b", "c"}) == canonical({"c", "b", "a"})
    assert canonical(One(value=[1])) == canonical(One(value=[1]))
    assert canonical(SecretStr("a")) == canonical(SecretStr("a"))


def test_what_is_not_known_is_refused() -> None:
    """A guess could hand one caller another's result; the message names the type."""
    for unknown in (object(), Undecorated(identity="u")):
        with pytest.raises(TypeError, match=f"{type(unknown).__name__} cannot be part of a cache key"):
            canonical({"a": unknown})


class Renamed(Plain):
    """Not decorated itself, so `role` is no dataclass field."""

    def __init__(self, identity: str, role: str) -> None:
        super().__init__(identity)
        self.role = role


def test_an_attribute_that_is_no_field_is_refused() -> None:
    """Two contexts that differ in it would have one key."""
    for role in ("admin", "guest"):
        with pytest.raises(TypeError, match=r"Renamed cannot be part of a cache key: it holds .* beside its fields"):
            canonical(Renamed("u", role))


class Base(SQLModel, registry=registry()):
    """Keeps this table out of the shared metadata."""


class Account(Base, table=True):
    id: int | None = Field(default=None, primary_key=True)
    name: str


def test_a_row_is_refused() -> None:
    """Its attributes expire and its relations are loaded or not: two users could have one key."""
    with pytest.raises(TypeError, match="mapped class"):
        canonical(Account(id=1, name="ann"))


class Timed(BaseModel):
    room: str
    _at: datetime = PrivateAttr(default_factory=lambda: datetime.now(UTC))


class Stamped(BaseModel):
    room: str
    at: str = ""

    def model_post_init(self, _context: Any) -> None:
        self.at = datetime.now(UTC).isoformat()


@pytest.mark.parametrize("model", [Timed, Stamped])
def test_a_model_that_runs_code_after_validation_is_not_pure(model: type[BaseModel]) -> None:
    """`model_post_init` and a private default factory look at the clock as a validator does."""
    one, two = model(room="a"), model(room="a")
    assert canonical(one) != canonical(two)
    assert not is_pure(model)


def test_a_key_takes_no_more_than_it_is_long() -> None:
    """Keys are kept for as long as a query is watched: none holds the room that its text might have needed."""
    text = "x" * 100_000
    tracemalloc.start()
    try:
        key = canonical({"text": text})
        taken = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert len(key) < taken < len(key) + 10_000
