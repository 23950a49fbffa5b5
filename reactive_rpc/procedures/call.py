"""A call: a procedure, a validated input, and on whose behalf. A query's call knows its identity in the cache."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextvars import Context
from hashlib import blake2b
from typing import Any, NamedTuple

from pydantic import BaseModel, ValidationError

from reactive_rpc.cache.result import HandlerOutcome, ResultKey
from reactive_rpc.cache.weight import weight_of
from reactive_rpc.clock import Clock
from reactive_rpc.dependencies.captured import UnknownValueError
from reactive_rpc.dependencies.change import Change
from reactive_rpc.errors import BadRequestError, ParseError
from reactive_rpc.procedures.canonical import canonical
from reactive_rpc.procedures.context import TenantView
from reactive_rpc.procedures.execution import Executor
from reactive_rpc.procedures.mapped_context import mapped_context_message
from reactive_rpc.procedures.procedure import Procedure
from reactive_rpc.procedures.running_call import call_depth
from reactive_rpc.protocol.faults import faults_of, places_of
from reactive_rpc.statements.recorder import Trace

__all__ = ["EncodedInput", "QueryCall", "decode_input", "decode_json_input", "decode_text_input", "scope_key"]

logger = logging.getLogger(__name__)


class EncodedInput(NamedTuple):
    """An input whose canonical form is known already, so that a hit need not decode it.

    Attributes:
        canonical: what `canonical` makes of the decoded input.
        decode: validates it when a handler runs; it does not fail.
    """

    canonical: bytes
    decode: Callable[[], BaseModel | None]


class QueryCall:
    """A query's call: what `cache.result.Query` asks for.

    Attributes:
        key: `(path, canonical input, canonical scope)`.
        wire_key: names path and input, not the scope, in events.
        depth: how many calls it was made inside of.
    """

    __slots__ = (
        "_decode",
        "_executor",
        "_held_bytes",
        "_input",
        "_visible_context",
        "depth",
        "key",
        "path",
        "procedure",
    )

    def __init__(
        self,
        executor: Executor,
        path: str,
        procedure: Procedure[..., Any],
        input: BaseModel | EncodedInput | None,
        ctx: object,
    ) -> None:
        self.path = path
        self.depth = call_depth()
        self.procedure = procedure
        self._executor = executor
        self._decode: Callable[[], BaseModel | None] | None = None
        self._input: BaseModel | None = None
        if isinstance(input, EncodedInput):
            canonical_input, self._decode = input
        else:
            canonical_input, self._input = canonical(input), input
        self._visible_context = visible_context(procedure, ctx)
        self.key: ResultKey = (path, canonical_input, _key_of(procedure, self._visible_context))
        self._held_bytes: int | None = None

    @property
    def input(self) -> BaseModel | None:
        """The validated input."""
        if self._decode is not None:
            self._input, self._decode = self._decode(), None
        return self._input

    @property
    def held_bytes(self) -> int:
        """What key, input and context take in memory; found out when it is first asked for: hits need not know."""
        if self._held_bytes is None:
            self._held_bytes = weight_of(self.key) + weight_of(self.input) + weight_of(self._visible_context)
        return self._held_bytes

    @property
    def keep(self) -> Callable[[Change], bool] | None:
        """Ask the author's predicates whether a change leaves the result as it was."""
        return self._keep if self.procedure.invalidate_when else None

    @property
    def is_cached(self) -> bool:
        """Whether results are kept, shared and watched."""
        return self.procedure.is_cached

    @property
    def pushes_results(self) -> bool:
        """Whether streams are sent the new result in the place of an invalidation."""
        return self.procedure.cache.push == "result"

    @property
    def wire_key(self) -> str:
        """24 hexadecimal characters."""
        return blake2b(self.path.encode() + b"\0" + self.key[1], digest_size=12).hexdigest()

    @property
    def wire_input(self) -> Any:
        """The input as JSON's own types."""
        input = self.input
        return None if input is None else input.model_dump(mode="json", by_alias=True)

    async def compute(self, clock: Clock | None = None, trace: Trace | None = None) -> HandlerOutcome:
        """Run the handler.

        Args:
            clock: what `now` asks; the application's where left out.
            trace: takes the statements that it runs.
        """
        ctx = self._visible_context
        if self.procedure.scope == "tenant":
            ctx = TenantView(ctx, self.path)
        return await self._executor.query(
            self.key, self.procedure, self.input, ctx, depth=self.depth, clock=clock, trace=trace
        )

    def _keep(self, change: Change) -> bool:
        predicate = self.procedure.invalidate_when.get(change.table)
        if predicate is None:
            return False
        try:
            known = self._executor.known(change, self.procedure)
            # Asked in whichever task has read the log: nothing that was set for its caller may decide.
            return not Context().run(predicate, known, self.input)
        except UnknownValueError as exc:
            logger.debug("%s: invalidate_when[%r]: %s; the change counts", self.path, change.table, exc)
            return False
        except Exception:
            logger.exception("%s: invalidate_when[%r] failed; the change counts", self.path, change.table)
            return False


def visible_context(procedure: Procedure[..., Any], ctx: Any) -> object:
    """Return all that a handler may know of a context, and thus what its results are kept apart by."""
    if callable(procedure.scope):
        return procedure.scope(ctx)
    if procedure.scope == "tenant":
        return ctx.tenant
    return ctx if procedure.handler.takes_context else None


def scope_key(procedure: Procedure[..., Any], ctx: Any) -> bytes:
    """Return bytes that are equal for those contexts whose callers share results."""
    return _key_of(procedure, visible_context(procedure, ctx))


def _key_of(procedure: Procedure[..., Any], visible: object) -> bytes:
    is_shared_by_all = not (callable(procedure.scope) or procedure.scope == "tenant" or procedure.handler.takes_context)
    if is_shared_by_all:
        return b""
    try:
        return canonical(visible)
    except TypeError as exc:
        if hasattr(type(visible), "__mapper__") and procedure.scope == "identity":
            raise procedure.fault(mapped_context_message(procedure.name, type(visible))) from exc
        raise


def decode_input(path: str, procedure: Procedure[..., Any], input: object) -> BaseModel | None:
    """Validate Python values (or JSON's own types).

    Raises:
        BadRequestError: they do not fit; `details` lists each fault.
    """
    model = procedure.handler.input_model
    if model is None:
        return None
    return _validated(path, lambda: model.model_validate({} if input is None else input))


def decode_json_input(path: str, procedure: Procedure[..., Any], body: bytes) -> BaseModel | None:
    """Validate a JSON body; an empty one is an empty input.

    Raises:
        ParseError: it is no JSON.
        BadRequestError: it does not fit.
    """
    taken = procedure.input
    if taken is None:
        return None
    return _validated(path, lambda: taken.from_json(body or b"{}"))


def decode_text_input(path: str, procedure: Procedure[..., Any], input: dict[str, str]) -> BaseModel | None:
    """Validate the parameters of a URL.

    Raises:
        BadRequestError: they do not fit.
    """
    model = procedure.handler.input_model
    return None if model is None else _validated(path, lambda: model.model_validate_strings(input))


def _validated(path: str, validate: Callable[[], BaseModel]) -> BaseModel:
    try:
        return validate()
    except ValidationError as exc:
        faults = faults_of(exc.errors(include_url=False))
        if faults[0]["type"] == "json_invalid":
            raise ParseError(f"the body is no JSON: {faults[0]['message']}", path=path) from exc
        places = places_of(faults, whole="the input")
        raise BadRequestError(f"the input does not fit {path}: {places}", details=faults, path=path) from exc
