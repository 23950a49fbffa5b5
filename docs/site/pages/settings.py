"""The list of settings: name, type, default, environment variable, and the docstring's words."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import griffe

from reactive_rpc import Settings

__all__ = ["settings_list"]

_PACKAGE: Final = Path(__file__).parents[3]
_PAGE: Final = re.compile(r"docs/([\w/-]+\.md)")
_BOUND: Final = re.compile(r"^\w+\((.*)\)$")


def settings_list() -> str:
    """Return a heading a field, in the order of the class.

    Raises:
        KeyError: a field is not described.
    """
    described = _descriptions()
    return "\n\n".join(_entry(name, described[name]) for name in Settings.model_fields)


def _entry(name: str, description: str) -> str:
    field = Settings.model_fields[name]
    variable = f"{Settings.model_config['env_prefix']}{name}".upper()
    facts = [_type(name), *_bounds(name), f"default {field.default!r}", variable]
    linked = _PAGE.sub(r"[\1](../\1)", description)
    return f"### `{name}` {{#{name}}}\n\n{', '.join(f'`{fact}`' for fact in facts)}\n\n{linked}"


def _type(name: str) -> str:
    return str(Settings.__annotations__[name])


def _bounds(name: str) -> list[str]:
    """Return what the type's own name (`PositiveInt`) does not say: `['ge=1', 'le=256']`."""
    if "Positive" in _type(name) or "NonNegative" in _type(name):
        return []
    return [_BOUND.sub(r"\1", repr(bound)) for bound in Settings.model_fields[name].metadata]


def _descriptions() -> dict[str, str]:
    """Return what the docstring says of each field: `{field: sentences}`."""
    settings = griffe.load("reactive_rpc.settings", search_paths=[_PACKAGE])["Settings"]
    return {
        attribute.name: attribute.description
        for section in settings.docstring.parse("google", warnings=False)
        if section.kind is griffe.DocstringSectionKind.attributes
        for attribute in section.value
    }
