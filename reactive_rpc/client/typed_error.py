"""The base of the generated errors: what a service declares, with its fields."""

from __future__ import annotations

import json
import logging
from typing import ClassVar, Self

from pydantic import BaseModel, ValidationError

from reactive_rpc.errors import RPCError

__all__ = ["TypedError"]

logger = logging.getLogger("reactive_rpc.client")


class TypedError(RPCError):
    """An error that a service declares; a generated subclass has its fields as attributes.

    >>> from reactive_rpc.errors import ConflictError
    >>> class Details(BaseModel):
    ...     seat: str
    >>> class SeatTaken(TypedError, ConflictError):
    ...     type = "SeatTaken"
    ...     details_model = Details
    ...     seat: str
    >>> told = ConflictError("seat 4B is taken", details={"seat": "4B"})
    >>> error = SeatTaken.of(told)
    >>> print(error, error.seat)
    seat 4B is taken [CONFLICT] 4B
    """

    details_model: ClassVar[type[BaseModel]]
    """Reads its fields."""

    @classmethod
    def of(cls, error: RPCError) -> Self | None:
        """Return what the server told as this error; None if its fields are others than were generated.

        Args:
            error: as the server told it.
        """
        try:
            fields = cls.details_model.model_validate_json(json.dumps(error.details))
        except ValidationError as exc:
            # The server may be the newer one: the code is then all that both know.
            logger.info("%s has other fields than were generated: %s", cls.__name__, exc.errors()[0]["msg"])
            return None
        typed = cls(
            error.message, code=error.code, details=error.details, path=error.path, request_id=error.request_id,
            headers=error.headers,
        )  # fmt: skip
        vars(typed).update({name: getattr(fields, name) for name in type(fields).model_fields})
        return typed
