"""A procedure as the client knows it: its URL, its input, its output."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final, Generic, Literal, TypeVar, cast

from pydantic import BaseModel, TypeAdapter, ValidationError

from reactive_rpc.client.files import ReceivedFile, SentFile, files_of
from reactive_rpc.client.model import type_adapter
from reactive_rpc.client.typed_error import TypedError
from reactive_rpc.errors import BadRequestError, RPCError, WireError
from reactive_rpc.protocol.faults import faults_of, places_of
from reactive_rpc.protocol.fidelity import Inspector

__all__ = ["UNSET", "Procedure", "Unset"]

T = TypeVar("T")


class Unset:
    """The type of `UNSET`: an argument that was not given, which is not the same as None."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "UNSET"

    def __bool__(self) -> bool:
        return False


UNSET: Final[Any] = Unset()
"""The default of an argument that may be left out. Typed `Any`, so that a signature reads `limit: int = UNSET`."""


@dataclass(frozen=True)
class Procedure(Generic[T]):
    """One procedure.

    Attributes:
        path: its name: `agents.get_all`.
        url: its path, after the server's base: `/rpc/agents/get_all`.
        method: `GET` sends each field of the input as one query parameter, `POST` sends it as JSON, beside the files.
        input: the model that validates the input; None if it takes none.
        output: the type of its result, as `TypeAdapter` takes it; `ReceivedFile` if it answers bytes.
        errors: those that it declares.
        files: `{argument: how many}` of those that are files.
    """

    path: str
    url: str
    method: Literal["GET", "POST"]
    input: type[BaseModel] | None
    output: Any
    errors: tuple[type[TypedError], ...] = ()
    files: Mapping[str, Literal["one", "many"]] = field(default_factory=dict)

    @cached_property
    def _output_adapter(self) -> TypeAdapter[T]:
        return type_adapter(self.output)

    @cached_property
    def _input_inspector(self) -> Inspector:
        return Inspector(type_adapter(self.input).core_schema)

    def encode_input(self, arguments: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the input as JSON values, `{field: value}`; None for a procedure that takes none.

        Those `arguments` that are UNSET are left out, so that the server's defaults hold; over `GET` so is None, which
        a query string cannot say.

        Raises:
            BadRequestError: the input does not fit; `details` lists each fault.
        """
        if self.input is None:
            return None
        given = {name: value for name, value in arguments.items() if value is not UNSET and name not in self.files}
        try:
            input = self.input.model_validate(given)
            fields = input.model_dump(mode="json", by_alias=True, exclude_unset=True)
        except ValidationError as exc:
            raise self._bad_request(exc) from exc
        except ValueError as exc:  # a text that is no Unicode, for example
            raise BadRequestError(f"the input is no JSON: {exc}", path=self.path) from exc
        if unfit := self._input_inspector.unfit(input):
            raise BadRequestError(f"{unfit.where}: {unfit.message}", path=self.path)
        if self.method == "GET":
            fields = {name: value for name, value in fields.items() if value is not None}
        self._check_is_json(fields)
        return fields

    def files_in(self, arguments: Mapping[str, Any]) -> list[SentFile]:
        """Return the files among the arguments.

        Raises:
            BadRequestError: one is no file; nothing is sent.
        """
        given = {name: arguments[name] for name in self.files if arguments.get(name, UNSET) is not UNSET}
        return files_of(self.path, self.files, given)

    @property
    def is_binary(self) -> bool:
        """Whether it answers bytes; no answer to a key is kept of such."""
        return self.output is ReceivedFile

    def decode_answer(self, body: bytes, headers: Mapping[str, str]) -> T:
        """Return the result that an answer holds: the file that it is, or as `decode_output`.

        Args:
            body: of the answer.
            headers: of the answer, by their names in lower case.
        """
        return cast(T, ReceivedFile.of(body, headers)) if self.is_binary else self.decode_output(body)

    def decode_output(self, body: bytes) -> T:
        """Return the result that `body` spells; an empty body is null.

        Raises:
            WireError: the body is no JSON, or of another shape than the document declares.
        """
        try:
            return self._output_adapter.validate_json(body or b"null")
        except ValidationError as exc:
            faults = faults_of(exc.errors(include_url=False, include_input=False))[:1]
            where, reason = places_of(faults, whole="the answer"), faults[0]["message"]
            raise WireError(
                f"{self.path} answered with another shape than its document declares ({where}: {reason}); "
                "generate the client again if the server has changed"
            ) from exc

    def typed_error(self, error: RPCError) -> RPCError:
        """Return an error as the one that the procedure declares; as it is, of its code's class, if it declares none.

        Args:
            error: as the server told it.
        """
        for declared in self.errors:
            if declared.type == error.type:
                return declared.of(error) or error
        return error

    def _bad_request(self, exc: ValidationError) -> BadRequestError:
        faults = faults_of(exc.errors(include_url=False, include_input=False, include_context=False))
        where = places_of(faults[:1], whole="input")
        return BadRequestError(f"{where}: {faults[0]['message']}", details=faults, path=self.path)

    def _check_is_json(self, fields: dict[str, Any]) -> None:
        """Refuse NaN and the infinities, which Python's `json` would write and no server would read."""
        try:
            json.dumps(fields, allow_nan=False)
        except ValueError as exc:
            raise BadRequestError(f"the input is no JSON: {exc}", path=self.path) from exc
