"""Which inputs fit into a URL: models whose every field is one scalar.

A query with such an input is documented as GET with one typed parameter a field. Any other is a POST with a JSON
body: a list, a nested model or a union has no one spelling in a query string.
"""

from __future__ import annotations

from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin
from uuid import UUID

from pydantic import BaseModel

__all__ = ["is_flat"]

_SCALARS = (str, int, float, bool, datetime, date, time, timedelta, Decimal, UUID, Enum)


def is_flat(model: type[BaseModel] | None) -> bool:
    """Tell whether every field of `model` is a scalar, or an optional one whose default is None; None is flat."""
    if model is None:
        return True
    if model.model_config.get("extra") == "allow":
        return False
    return all(
        _fits(field.annotation, field.is_required(), field.default)
        and field.default_factory is None
        and (field.validation_alias is None or isinstance(field.validation_alias, str))
        for field in model.model_fields.values()
    )


def _fits(annotation: Any, required: bool, default: object) -> bool:
    if get_origin(annotation) in (Union, UnionType):
        members = [member for member in get_args(annotation) if member is not NoneType]
        absent_is_none = not required and default is None
        return len(members) == 1 and absent_is_none and _scalar(members[0])
    return _scalar(annotation)


def _scalar(annotation: Any) -> bool:
    if get_origin(annotation) is Annotated:
        return _scalar(get_args(annotation)[0])
    if get_origin(annotation) is Literal:
        return all(isinstance(value, str) for value in get_args(annotation))
    return isinstance(annotation, type) and issubclass(annotation, _SCALARS)
