"""The caller: procedures as calls, over the wire or in this process."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from reactive_rpc.cache.freshness import STRICT, RequiredFreshness
from reactive_rpc.cache.reader import Reader
from reactive_rpc.cache.result import CachedResult
from reactive_rpc.changes.answers import Answers, Claim
from reactive_rpc.dependencies.read_set import ReadSet
from reactive_rpc.errors import MethodNotSupportedError
from reactive_rpc.procedures.call import EncodedInput, QueryCall, decode_input, decode_json_input
from reactive_rpc.procedures.execution import Executor
from reactive_rpc.procedures.idempotency import IdempotentCall
from reactive_rpc.procedures.procedure import Procedure
from reactive_rpc.procedures.registry import Registry
from reactive_rpc.procedures.running_call import current_call, refuse_recursion
from reactive_rpc.protocol.headers import UNKNOWN

__all__ = ["BoundCaller", "Caller", "MutationResult"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class MutationResult:
    """What a mutation returned, and where the log stood after it.

    Attributes:
        body: its output as JSON.
        token: the cursor of a place in the log that shows what it wrote, or `UNKNOWN`.
        replayed: whether this is the stored answer of an earlier call with the same idempotency key.
    """

    body: bytes
    token: str
    replayed: bool = False


class Caller:
    """Calls procedures with validated inputs.

    Args:
        answers: of mutations, kept to be given again; None where none are.
    """

    def __init__(
        self, registry: Registry, executor: Executor, reader: Reader, *, answers: Answers | None = None
    ) -> None:
        self._answers = answers
        self.registry = registry
        self._executor = executor
        self._reader = reader

    @property
    def token(self) -> str:
        """The cursor of an answer that is sent now."""
        return self._reader.freshness.token

    def version_of(self, result: CachedResult) -> str | None:
        """Return what `Reader.version_of` says: to be asked in the step that makes the answer."""
        return self._reader.version_of(result)

    @property
    def outage_seconds(self) -> float:
        """How long ago the log could last be read."""
        return self._reader.freshness.age_seconds

    def bind(
        self, path: str, procedure: Procedure[..., Any], input: BaseModel | EncodedInput | None, ctx: object
    ) -> QueryCall:
        """Return the call of a query, which can be computed again at any time."""
        return QueryCall(self._executor, path, procedure, input, ctx)

    def subscribe(self, path: str, input: object, ctx: object) -> QueryCall:
        """Return the call of a query that a client names.

        Raises:
            NotFoundError: there is no such procedure.
            MethodNotSupportedError: it is a mutation.
            BadRequestError: the input does not fit.
        """
        procedure = self.registry.find(path)
        if procedure.kind == "mutation":
            raise MethodNotSupportedError(f"{path} is a mutation: only queries can be watched", path=path)
        body = b"" if input is None else json.dumps(input).encode()  # it came as JSON, and is read as a call's is
        return self.bind(path, procedure, decode_json_input(path, procedure, body), ctx)

    async def get(self, call: QueryCall, *, freshness: RequiredFreshness = STRICT) -> CachedResult:
        """Return the result of a query, see `Reader.get`."""
        return await self._reader.get(call, freshness=freshness)

    async def mutate(
        self,
        path: str,
        procedure: Procedure[..., Any],
        input: BaseModel | None,
        ctx: object,
        *,
        claim: Claim | None = None,
    ) -> MutationResult:
        """Run a mutation, then apply what it wrote, so that whoever watches is told before the caller goes on.

        Args:
            claim: of an idempotency key, under which the call is made once.
        """
        idempotent = None if claim is None else IdempotentCall(self._answers, claim)
        output = await self._executor.mutate(path, procedure, input, ctx, idempotent=idempotent)
        try:
            await self._reader.freshness.sync_to_head()
        except Exception:
            logger.exception("the log could not be read after a commit; its events will come with the next poll")
            return MutationResult(output.body, UNKNOWN, output.replayed)
        return MutationResult(output.body, self.token, output.replayed)


class BoundCaller:
    """Procedures as Python calls, on behalf of one context: `await caller("agents.get_all", organization_id="o1")`.

    Args:
        require_open: raises where nothing can be called.
    """

    def __init__(self, caller: Caller, ctx: object, *, require_open: Callable[[], None]) -> None:
        self._caller = caller
        self._ctx = ctx
        self._require_open = require_open

    async def __call__(self, path: str, /, **input: Any) -> Any:
        """Validate, run as the server would, and return the output as the handler's annotated type; always strict.

        Raises:
            RPCError: as over the wire.
        """
        self._require_open()
        procedure = self._caller.registry.find(path)
        validated = decode_input(path, procedure, input)
        if procedure.kind == "mutation":
            body = (await self._caller.mutate(path, procedure, validated, self._ctx)).body
        else:
            result = await self._get(self._caller.bind(path, procedure, validated, self._ctx))
            body = result.answer()
        return procedure.output.from_json(body)

    async def _get(self, call: QueryCall) -> CachedResult:
        """Return the result; where another call is running, what this one reads counts for that one too."""
        outer = current_call()
        if outer is None:
            return await self._caller.get(call)
        refuse_recursion(call.key)
        try:
            result = await self._caller.get(call)
        except BaseException:
            outer.inner.append(ReadSet(opaque=f"calls {call.path}, which failed"))
            raise
        unkept = None if call.is_cached else ReadSet(opaque=f"calls {call.path}, which has cache=False")
        outer.inner.append(unkept or result.read_set)
        return result
