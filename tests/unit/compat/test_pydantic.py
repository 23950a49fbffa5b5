"""The private keyword of pydantic-core still means what `compat/` says."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel
from pydantic_core import CoreConfig, SchemaValidator, core_schema

from reactive_rpc.compat.pydantic import whole_validator


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
