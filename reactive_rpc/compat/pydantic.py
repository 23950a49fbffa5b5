"""What pydantic-core keeps of a model that is made already."""

from __future__ import annotations

from pydantic_core import CoreConfig, CoreSchema, SchemaValidator

__all__ = ["whole_validator"]


def whole_validator(schema: CoreSchema, config: CoreConfig) -> SchemaValidator:
    """Return a validator that reads all of `schema`; pydantic-core would take the own validator of each model in it."""
    return SchemaValidator(schema, config, _use_prebuilt=False)
