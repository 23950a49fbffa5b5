"""Arguments of an endpoint: equal bytes only for those that it cannot tell apart, and copies of them for each run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, StrEnum
from itertools import combinations
from types import MappingProxyType
from typing import Any

import pytest
from pydantic import BaseModel, SecretStr
from sqlalchemy import JSON, Column, ForeignKey, create_engine
from sqlalchemy.orm import Mapped, column_property, mapped_column, registry, relationship
from sqlmodel import Field, Session, SQLModel

from reactive_rpc.procedures.arguments import Arguments, CopiedRow


class Base(SQLModel, registry=registry()):
    """Keeps the tables out of the shared metadata."""


class Person(Base, table=True):
    id: int | None = Field(default=None, primary_key=True)
    name: str
    rights: list[str] = Field(default_factory=list, sa_column=Column(JSON))


class Robot(Base, table=True):
    id: int | None = Field(default=None, primary_key=True)
    name: str
    rights: list[str] = Field(default_factory=list, sa_column=Column(JSON))


mapped = registry()


class Made:
    """Makes a row of its columns, as the registry would."""

    def __init__(self, **columns: Any) -> None:
        for name, value in columns.items():
            setattr(self, name, value)


@mapped.mapped
class Team(Made):
    """A class of SQLAlchemy's alone, with all that a mapper may have."""

    __tablename__ = "team"
    key: Mapped[int] = mapped_column("id", primary_key=True)
    name: Mapped[str] = mapped_column("team_name")
    notes: Mapped[str] = mapped_column(default="n", deferred=True)
    loud = column_property(name + "!")
    players: Mapped[list[Player]] = relationship(back_populates="team")
    is_guest = False


@mapped.mapped
class Player(Made):
    __tablename__ = "player"
    id: Mapped[int] = mapped_column(primary_key=True)
    team_id: Mapped[int] = mapped_column(ForeignKey("team.id"))
    team: Mapped[Team] = relationship(back_populates="players")


class Kind(Enum):
    ONE = 1


class Text(StrEnum):
    A = "a"


class One(BaseModel):
    id: int = 1


class Other(BaseModel):
    id: int = 1


@dataclass(frozen=True)
class Plain:
    id: int = 1


class Numbers(list[int]):
    """A class of the application's own."""


@pytest.fixture
def session() -> Iterator[Session]:
    engine = create_engine("sqlite://")
    Base.metadata.create_all(engine)
    mapped.metadata.create_all(engine)
    with Session(engine) as opened:
        opened.add_all([Person(id=1, name="ada", rights=["read"]), Person(id=2, name="ada", rights=["read"])])
        opened.add_all([Robot(id=1, name="ada", rights=["read"]), Team(key=1, name="t"), Player(id=1, team_id=1)])
        opened.commit()
        yield opened
    engine.dispose()


def compared(value: object) -> bytes:
    return Arguments({"value": value}).compared


DIFFERENT: list[Any] = [
    None, True, 1, 1.0, "1", "", b"1", b"", Kind.ONE, "a", Text.A, SecretStr("a"), SecretStr("b"), [], (), {}, set(),
    frozenset(), [1], [1, 2], [2, 1], [[1], 2], ["1"], (1,), {1}, {"a": 1}, {"a": "1"}, One(), One(id=1), One(id=2),
    Other(), Plain(), {"id": 1}, float("nan"), 2**70, Numbers([1]),
]  # fmt: skip


def test_values_that_can_be_told_apart_are_different() -> None:
    """By type, too, and by which fields were set."""
    for one, other in combinations(DIFFERENT, 2):
        assert compared(one) != compared(other), (one, other)


def test_several_arguments_do_not_run_into_each_other() -> None:
    """Whatever their values look like, and whatever order they are given in, they are of their parameters."""
    calls = [{"a": "x", "b": "y"}, {"a": "y", "b": "x"}, {"a": 'x",b:3::"y'}, {"a": "x", "c": "y"}, {"ab": "x"}, {}]
    made = [Arguments(values).compared for values in calls]
    assert len(set(made)) == len(made)


def test_rows_count_by_class_key_and_loaded_columns(session: Session) -> None:
    """Two rows of equal columns are two, and so are equal rows of two classes, and rows that are not stored yet."""
    ada, other, robot = session.get_one(Person, 1), session.get_one(Person, 2), session.get_one(Robot, 1)
    new = Person(id=1, name="ada", rights=["read"])
    rows: list[Any] = [ada, other, robot, new, Person(name="ada"), ada.model_dump(), None, 1]
    for one, two in combinations(rows, 2):
        assert compared(one) != compared(two)
    assert compared(ada) == compared(session.get_one(Person, 1))
    assert compared(ada) != compared(CopiedRow.of(ada).compared), "a tuple that looks like a row is none"
    before = compared(ada)
    ada.rights = ["read", "write"]
    assert compared(ada) != before


def test_rows_that_are_expired_are_still_two(session: Session) -> None:
    """After a commit no column is loaded: they count by their primary keys, and load nothing."""
    ada, other = session.get_one(Person, 1), session.get_one(Person, 2)
    session.expire_all()
    assert compared(ada) != compared(other)
    session.expire_all()
    session.close()
    assert compared(ada) != compared(other)


def test_a_run_gets_a_copy_that_loads_the_rest_in_its_session(session: Session) -> None:
    """It belongs to that session; the one that was given stays where it was, and as it was."""
    team = session.get_one(Team, 1)
    arguments = Arguments({"team": team, "again": team, "number": 1})
    with Session(session.get_bind()) as own:
        given = arguments.given_to(own)
        copied = given["team"]
        assert (copied is team, given["again"] is copied, own.is_modified(copied)) == (False, True, False)
        assert (copied.key, copied.name, copied.loud, copied.notes) == (1, "t", "t!", "n")
        assert [player.team is copied for player in copied.players] == [True]
        assert own.get_one(Team, 1) is copied
        team.name, copied.name = "given", "changed"
    assert (team.name, b"given" in arguments.compared) == ("given", False)


def test_a_row_that_the_session_knows_otherwise_stays_as_it_was_compared(session: Session) -> None:
    """The columns that decided the key are those that the endpoint sees."""
    ada = session.get_one(Person, 1)
    arguments = Arguments({"user": ada})
    with Session(session.get_bind()) as own:
        own.get_one(Person, 1).rights = ["changed"]
        with own.no_autoflush:
            assert arguments.given_to(own)["user"].rights == ["read"]


def test_a_row_that_is_not_stored_is_given_as_it_is(session: Session) -> None:
    """It belongs to no session, so nothing writes it."""
    arguments = Arguments({"user": Person(id=9, name="new")})
    with Session(session.get_bind()) as own:
        assert (arguments.given_to(own)["user"].name, list(own)) == ("new", [])


def test_what_a_row_has_beside_its_columns_is_not_lost(session: Session) -> None:
    """A restriction that a dependency notes on it would be none in a copy."""
    team = session.get_one(Team, 1)
    team.is_guest = True
    with pytest.raises(TypeError, match="'team': a Team with the attribute 'is_guest', which is no column"):
        Arguments({"team": team})


def test_nobody_changes_what_was_compared(session: Session) -> None:
    """Neither whoever gave it nor a run: lists in columns and in arguments are copied, both ways."""
    ada, names = session.get_one(Person, 1), ["a"]
    arguments = Arguments({"user": ada, "names": names})
    before = arguments.compared
    ada.rights.append("write")
    names.append("b")
    for _ in range(2):
        with Session(session.get_bind()) as own:
            given = arguments.given_to(own)
            assert (given["user"].rights, given["names"]) == (["read"], ["a"])
            given["names"].append("c")
            given["user"].rights.append("all")
    assert arguments.compared == before


@pytest.mark.parametrize("value", [object(), MappingProxyType({}), lambda: None, [object()], {"a": object()}])
def test_what_cannot_be_compared_is_said(value: object) -> None:
    """By the parameter's name."""
    with pytest.raises(TypeError, match=r"'value': .* cannot be part of a cache key"):
        compared(value)
