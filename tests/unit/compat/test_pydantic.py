"""What pydantic keeps to itself still means what `compat/` says."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Generic, TypeVar

import pytest
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, RootModel, field_validator
from pydantic_core import CoreConfig, SchemaValidator, core_schema
from sqlmodel import SQLModel

from reactive_rpc.compat import pydantic
from reactive_rpc.compat.pydantic import packed, whole_validator

T = TypeVar("T")


class Named(BaseModel):
    name: str


def test_a_validator_reads_a_changed_schema_of_a_model() -> None:
    """pydantic-core would take the model's own validator, in which the change is missing."""
    schema: Any = Named.__pydantic_core_schema__
    shouted = core_schema.no_info_after_validator_function(str.upper, core_schema.str_schema())
    fields = {"name": core_schema.model_field(shouted)}
    changed: Any = {**schema, "schema": {**schema["schema"], "fields": fields}}
    inside = core_schema.list_schema(changed)
    assert whole_validator(inside, CoreConfig()).validate_json('[{"name": "ann"}]') == [Named(name="ANN")]
    assert SchemaValidator(inside, CoreConfig()).validate_json('[{"name": "ann"}]') == [Named(name="ann")]


class Defaults(BaseModel):
    name: str = Field("ann", alias="n")
    tags: list[str] = Field(default_factory=list)
    inner: Named | None = None


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)
    size: int


class Counted(BaseModel):
    """A model whose validator gives another value each time."""

    number: int

    @field_validator("number")
    @classmethod
    def next_number(cls, number: int) -> int:
        """Return one more."""
        return number + 1


class Item(BaseModel, Generic[T]):
    item: T


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")
    name: str


class Private(BaseModel):
    name: str
    _seen: int = PrivateAttr(0)


class Slotted(BaseModel):
    __slots__ = ("mark",)
    name: str


class Row(SQLModel):
    name: str


PLAIN = [
    Named(name="ann"),
    Defaults(),
    Defaults(n="bob", tags=["a"]),
    Defaults.model_validate({"inner": {"name": "ann"}}),
    Defaults.model_construct(name="bob"),
    Frozen(size=1),
    Counted(number=1),
    Item[int](item=1),
]
OTHERS = [Open(name="ann"), Private(name="ann"), Slotted(name="ann"), Row(name="ann"), RootModel[list[int]]([1])]


def states(model: BaseModel) -> Iterator[Any]:
    """Yield all that is known of a model."""
    yield type(model)
    yield list(model.__dict__.items())
    yield model.model_fields_set
    yield model.__pydantic_extra__
    yield model.__pydantic_private__


@pytest.mark.parametrize("model", PLAIN, ids=repr)
def test_a_model_that_was_packed_is_the_same(model: BaseModel) -> None:
    """Type, values in their order, and the fields that were given; the values themselves are no copies."""
    state = packed(model)
    assert state is not None
    again = state.unpacked()
    assert again is not model
    assert list(states(again)) == list(states(model))
    assert all(mine is theirs for mine, theirs in zip(again.__dict__.values(), model.__dict__.values(), strict=True))
    again.model_fields_set.add("other")
    assert "other" not in state.unpacked().model_fields_set


@pytest.mark.parametrize("model", OTHERS, ids=lambda model: type(model).__name__)
def test_a_model_of_more_than_fields_is_not_packed(model: BaseModel) -> None:
    """Fields that nobody declared, private attributes, slots, and classes with a state of their own."""
    assert packed(model) is None


@pytest.mark.seeded_bug
def test_packing_whatever_is_a_model_is_a_seeded_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mark in a slot would be lost: the test above can fail."""
    monkeypatch.setattr(pydantic, "_has_fields_alone", lambda kind: True)
    with pytest.raises(AssertionError):
        test_a_model_of_more_than_fields_is_not_packed(Slotted(name="ann"))
