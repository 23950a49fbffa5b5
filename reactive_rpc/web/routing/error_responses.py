"""The errors that a procedure declares, as responses of its OpenAPI operation: one for each HTTP status.

Each error has an envelope of its own, in which code and type are constants: a union of them can be told apart.
Envelopes are JSON, also those of a procedure whose results are lines or events.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import cache, reduce
from http import HTTPStatus
from operator import or_
from typing import Annotated, Any, Literal, cast

from pydantic import BaseModel, Field, create_model

from reactive_rpc.compat.fastapi import JSONContent
from reactive_rpc.errors import RPCError
from reactive_rpc.procedures.declared_errors import DeclaredError
from reactive_rpc.procedures.registry import WireCase
from reactive_rpc.procedures.wire_case import with_camel_names
from reactive_rpc.protocol.codes import CODES
from reactive_rpc.protocol.envelopes import ErrorBody, ErrorEnvelope
from reactive_rpc.web.routing.openapi_marks import Marked

__all__ = ["error_responses"]


def error_responses(raises: Sequence[type[RPCError]], *, wire_case: WireCase) -> dict[int | str, dict[str, Any]]:
    """Return the responses of these errors: `{status: response}`, as FastAPI takes them."""
    by_status: dict[int, dict[type[BaseModel], str]] = defaultdict(dict)
    for error in raises:
        code = CODES.get(error.code)
        status = code.http if code else HTTPStatus.INTERNAL_SERVER_ERROR.value
        is_declared = issubclass(error, DeclaredError)
        envelope = _declared(cast(Any, error), wire_case) if is_declared else _plain(error.code)
        by_status[status][envelope] = f"`{error.__name__}`" if is_declared else f"`{error.code}`"
    return {
        status: {
            "model": cast(Any, Annotated)[reduce(or_, cast(Any, envelopes)), Marked()],
            "description": f"{' or '.join(envelopes.values())}.",
            "content": JSONContent(),
        }
        for status, envelopes in sorted(by_status.items())
    }


# Of one error, all procedures have the same classes: the document then describes it once.


@cache
def _declared(error: type[DeclaredError], wire_case: WireCase) -> type[BaseModel]:
    model = with_camel_names(error.details_model) if wire_case == "camel" else error.details_model
    name, details = error.__name__, (model, _described("details"))
    return _envelope(name, code=error.code, said=error.said, type=(Literal[name], _described("type")), details=details)


@cache
def _plain(code: str) -> type[BaseModel]:
    name = "".join(word.capitalize() for word in code.split("_"))
    return _envelope(f"{name}Error", code=code, said=code, type=(None, _described("type")))


def _envelope(name: str, *, code: str, said: str, **fields: Any) -> type[BaseModel]:
    own: dict[str, Any] = {"code": (Literal[code], _described("code")), **fields}
    body: Any = create_model(f"{name}Body", __base__=ErrorBody, __doc__=said, **own)
    envelope: Any = create_model(
        f"{name}Envelope", __base__=ErrorEnvelope, __doc__=f"The answer {name}.", error=(body, ...)
    )
    return cast(type[BaseModel], envelope)


def _described(field: str) -> Any:
    return Field(description=ErrorBody.model_fields[field].description)
