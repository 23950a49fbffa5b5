"""What pydantic keeps of a model that is made already, and what pydantic-core does."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

from pydantic import BaseModel
from pydantic_core import CoreConfig, CoreSchema, SchemaValidator

__all__ = ["PackedModel", "packed", "whole_validator"]

SHAPES = 1024
"""Of so many classes and sets of given fields, the models that are packed share their names."""


class _Shape(NamedTuple):
    """The part of a model's state that it has in common with others."""

    model: type[BaseModel]
    names: tuple[str, ...]
    given: frozenset[str]


class PackedModel:
    """A model's state without the dict and the set that are its own: a quarter of its size."""

    __slots__ = ("_shape", "_values")

    def __init__(self, shape: _Shape, values: tuple[Any, ...]) -> None:
        self._shape = shape
        self._values = values

    @property
    def values(self) -> tuple[Any, ...]:
        """The values of its fields."""
        return self._values

    def unpacked(self) -> BaseModel:
        """Return a model in that state; nothing is validated again, as a validator may look at the clock."""
        model, names, given = self._shape
        made = model.__new__(model)
        made.__setstate__(
            {
                "__dict__": dict(zip(names, self._values, strict=True)),
                "__pydantic_extra__": None,
                "__pydantic_fields_set__": set(given),
                "__pydantic_private__": None,
            }
        )
        return made


def packed(model: BaseModel) -> PackedModel | None:
    """Return the state of a model; None if there may be more of it than fields."""
    kind = type(model)
    if not _has_fields_alone(kind) or model.__pydantic_extra__ is not None or model.__pydantic_private__ is not None:
        return None
    own = model.__dict__
    return PackedModel(_shared(_Shape(kind, tuple(own), frozenset(model.model_fields_set))), tuple(own.values()))


@lru_cache(maxsize=SHAPES)
def _shared(shape: _Shape) -> _Shape:
    return shape


@lru_cache(maxsize=SHAPES)
def _has_fields_alone(kind: type[BaseModel]) -> bool:
    """Return whether `__setstate__` is pydantic's, and no class of the author's has slots, of which that knows none."""
    authors = [base for base in kind.__mro__ if issubclass(base, BaseModel) and base is not BaseModel]
    others = [base for base in kind.__mro__ if not issubclass(base, BaseModel)]
    is_own = kind.__setstate__ is BaseModel.__setstate__ and kind.__new__ is BaseModel.__new__
    return is_own and not any(vars(base).get("__slots__") for base in (*authors, *others))


def whole_validator(schema: CoreSchema, config: CoreConfig) -> SchemaValidator:
    """Return a validator that reads all of `schema`; pydantic-core would take the own validator of each model in it."""
    return SchemaValidator(schema, config, _use_prebuilt=False)
