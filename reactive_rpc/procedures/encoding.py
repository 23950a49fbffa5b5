"""Encoding what a handler returns, while its session is open.

It is done inside SQLAlchemy's greenlet: an attribute that the output model asks for and the handler did not load is
then loaded, and counted as read, instead of failing.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticSerializationError
from sqlmodel import SQLModel

from reactive_rpc.errors import InternalServerError
from reactive_rpc.procedures.runnable import Runnable
from reactive_rpc.statements.concealment import said_by

__all__ = ["EncodedOutput", "encode_output", "order_fields"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EncodedOutput:
    """A result that its function has encoded itself: it is stored as it is.

    Attributes:
        body: the bytes.
    """

    body: bytes


def encode_output(procedure: Runnable, result: object) -> bytes:
    """Return `result` as the JSON that the procedure's output type declares.

    Raises:
        InternalServerError: it does not fit the type; the faults are logged, the caller is told no values.
    """
    if isinstance(result, EncodedOutput):
        return result.body
    adapter = procedure.output.adapter
    try:
        output = adapter.validate_python(result, from_attributes=True)
        order_fields(output)
        body = adapter.dump_json(output, by_alias=True, warnings="error")  # an instance may never have been validated
    except (ValidationError, PydanticSerializationError) as exc:
        message = f"{procedure.name} returned what its annotation does not allow"
        logger.error("%s: %s", message, said_by(exc))
        raise InternalServerError(message) from exc
    if unfit := procedure.output.unfit(output, body):
        message = f"{procedure.name} returned what would arrive as another value, at {unfit.where or 'the result'}"
        logger.error("%s: %s", message, unfit.message)
        raise InternalServerError(message)
    return body


def order_fields(output: object) -> None:
    """Put the attributes of table models into the order of their fields.

    SQLAlchemy fills a loaded instance in the order of a set, and pydantic dumps it in that order: the same row would
    have other bytes, and another ETag, in every process.
    """
    if isinstance(output, SQLModel) and hasattr(output, "__table__"):
        state: dict[str, Any] = vars(output)
        for name in type(output).model_fields:
            if name in state:
                state[name] = state.pop(name)
    elif isinstance(output, BaseModel):
        for value in output.__dict__.values():
            order_fields(value)
    elif isinstance(output, list | tuple | set | frozenset):
        for item in output:
            order_fields(item)
    elif isinstance(output, dict):
        for value in output.values():
            order_fields(value)
