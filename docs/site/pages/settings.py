"""The list of settings: a group each, with each field's name, type, default, environment variable and docstring."""

from __future__ import annotations

import inspect
import re
from typing import Final

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from reactive_rpc import Settings

__all__ = ["settings_list"]

_PAGE: Final = re.compile(r"docs/([\w/-]+\.md)")
_BOUND: Final = re.compile(r"^\w+\((.*)\)$")


def settings_list() -> str:
    """Return a heading a group, in the order of their fields in `Settings`, and below it one a field.

    Raises:
        ValueError: a field is not described, or in no group.
    """
    groups = [group for group in reversed(Settings.__bases__) if group.__module__ == Settings.__module__]
    grouped = [name for group in groups for name in group.__annotations__]
    if grouped != list(Settings.model_fields):
        raise ValueError(f"in no group of settings: {set(Settings.model_fields) - set(grouped)}")
    return "\n\n".join(_section(group) for group in groups)


def _section(group: type[BaseModel]) -> str:
    title = group.__name__.removesuffix("Settings")
    entries = [_entry(name, group.__annotations__[name], group.model_fields[name]) for name in group.__annotations__]
    return "\n\n".join([f"## {title}", inspect.getdoc(group) or "", *entries])


def _entry(name: str, annotation: str, field: FieldInfo) -> str:
    if field.description is None:
        raise ValueError(f"Settings.{name} has no docstring")
    variable = f"{Settings.model_config['env_prefix']}{name}".upper()
    facts = [annotation, *_bounds(annotation, field), f"default {field.default!r}", variable]
    linked = _PAGE.sub(r"[\1](../\1)", field.description)
    return f"### `{name}` {{#{name}}}\n\n{', '.join(f'`{fact}`' for fact in facts)}\n\n{linked}"


def _bounds(annotation: str, field: FieldInfo) -> list[str]:
    """Return what the type's own name (`PositiveInt`) does not say: `['ge=1', 'le=256']`."""
    if "Positive" in annotation or "NonNegative" in annotation:
        return []
    return [_BOUND.sub(r"\1", repr(bound)) for bound in field.metadata]
