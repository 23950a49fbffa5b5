"""The base of the generated models: how their values are spelled in JSON, which is how the server reads them."""

from __future__ import annotations

from functools import cache
from typing import Annotated, Any, Final, Literal, Self, get_args, get_origin

from pydantic import BaseModel, ConfigDict, PlainSerializer, PydanticUserError, SecretStr, TypeAdapter, model_validator

__all__ = ["Model", "Secret", "TaggedModel", "default_of", "type_adapter"]

_ENCODING: Final = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64", ser_json_inf_nan="strings")

Secret = Annotated[SecretStr, PlainSerializer(SecretStr.get_secret_value, return_type=str, when_used="json")]
"""A text that is shown as asterisks here, and sent as it is."""


class Model(BaseModel):
    """A model of a service; its fields may be named as in Python or as on the wire.

    >>> class Note(Model):
    ...     text: str
    >>> Note.model_validate_json('{"text": "buy milk"}')
    Note(text='buy milk')
    """

    model_config = _ENCODING | ConfigDict(validate_by_name=True, validate_by_alias=True, protected_namespaces=())


class TaggedModel(Model):
    """A model with fields that can have one value, which are sent though nobody has set them: they tell it apart.

    >>> class Cat(TaggedModel):
    ...     kind: Literal["cat"] = "cat"
    >>> Cat().model_dump(exclude_unset=True)
    {'kind': 'cat'}
    """

    @model_validator(mode="after")
    def _send_tags(self) -> Self:
        self.model_fields_set.update(_tags(type(self)))
        return self


@cache
def _tags(model: type[BaseModel]) -> frozenset[str]:
    fields = model.model_fields.items()
    return frozenset(name for name, field in fields if _is_constant(field.annotation))


def _is_constant(annotation: Any) -> bool:
    return get_origin(annotation) is Literal and len(get_args(annotation)) == 1


def type_adapter(kind: Any) -> TypeAdapter[Any]:
    """Return the adapter that reads and writes values of a type; a class says itself how its values are spelled."""
    try:
        return TypeAdapter(kind, config=_ENCODING)
    except PydanticUserError as exc:
        if exc.code != "type-adapter-config-unused":
            raise
        return TypeAdapter(kind)


def default_of(kind: Any, text: str) -> Any:
    """Return the value of type `kind` that a `text` of JSON spells: a default that Python cannot spell as shortly.

    >>> default_of(set[int], "[1, 1, 2]")
    {1, 2}
    """
    return type_adapter(kind).validate_json(text)
