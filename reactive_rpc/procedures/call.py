"""The call of a query, and that of a step with a session: what the cache keeps results of.

A result is kept by the path, the input and the context that the handler gets: their canonical bytes are the key.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from contextvars import Context as Ambient
from dataclasses import replace
from hashlib import blake2b
from sys import getsizeof
from typing import Any, NamedTuple, Protocol

from pydantic import BaseModel, ValidationError

from reactive_rpc.cache.result import CachedResult, Computable, HandlerOutcome, ResultKey
from reactive_rpc.cache.weight import weight_of
from reactive_rpc.clock import Clock
from reactive_rpc.compat.pydantic import PackedModel, packed
from reactive_rpc.dependencies.captured import UnknownValueError
from reactive_rpc.dependencies.change import Change
from reactive_rpc.dependencies.period import Period
from reactive_rpc.errors import BadRequestError, ParseError
from reactive_rpc.procedures.canonical import canonical
from reactive_rpc.procedures.context import Context, expiry_of
from reactive_rpc.procedures.context_query import ContextQuery
from reactive_rpc.procedures.execution import Executor
from reactive_rpc.procedures.procedure import AnyProcedure
from reactive_rpc.procedures.running_call import call_depth
from reactive_rpc.procedures.session_steps import SessionStep
from reactive_rpc.procedures.solving import CallDependencies
from reactive_rpc.procedures.steps import CallInfo
from reactive_rpc.procedures.streamed import StreamedItem
from reactive_rpc.protocol.faults import faults_of, places_of
from reactive_rpc.statements.recorder import Trace

__all__ = [
    "ContextCall",
    "EncodedInput",
    "QueryCall",
    "StepCall",
    "WatchableCall",
    "decode_input",
    "decode_json_input",
    "decode_text_input",
    "made_by",
    "query_key",
    "step_key",
]

logger = logging.getLogger(__name__)


class EncodedInput(NamedTuple):
    """An input whose canonical form is known already, so that a hit need not decode it.

    Attributes:
        canonical: of the decoded input.
        decode: validates it when somebody needs it; it does not fail.
    """

    canonical: bytes
    decode: Callable[[], BaseModel | None]


class WatchableCall(Computable, Protocol):
    """A call whose result a stream can watch."""

    @property
    def path(self) -> str:
        """How metrics and events name what is called."""
        ...

    @property
    def wire_key(self) -> str:
        """How events name the call."""
        ...

    @property
    def wire_input(self) -> Any:
        """The input as JSON's own types; None where there is none."""
        ...

    @property
    def pushes_results(self) -> bool:
        """Whether streams are sent the new result in the place of an invalidation."""
        ...


def query_key(
    path: str,
    procedure: AnyProcedure,
    canonical_input: bytes,
    *,
    ctx: Context,
    dependencies: CallDependencies | None = None,
    spelled: bytes | None = None,
) -> ResultKey:
    """Return the key of a query's result: a hit needs no more of its call.

    Args:
        spelled: the canonical context, if it is known.
    """
    seen = b"" if procedure.handler.context is None else spelled or canonical(ctx)
    if dependencies is not None:
        seen = b"%d:%b%b" % (len(seen), seen, dependencies.seen)
    return path, canonical_input, seen


class QueryCall:
    """A query's call, a `cache.result.Computable`.

    Args:
        ctx: that the steps have made; the handler gets it, if it takes one.
        dependencies: of the handler; None if it takes none.

    Attributes:
        key: `(path, canonical input, canonical context and the headers that dependencies see)`.
        wire_key: names path and input, not the context, in events.
        depth: how many calls it was made inside of.
    """

    __slots__ = (
        "_ctx",
        "_decode",
        "_dependencies",
        "_executor",
        "_held_bytes",
        "_input",
        "depth",
        "key",
        "path",
        "procedure",
    )

    def __init__(
        self,
        executor: Executor,
        path: str,
        procedure: AnyProcedure,
        input: BaseModel | EncodedInput | None,
        ctx: Context,
        *,
        dependencies: CallDependencies | None = None,
    ) -> None:
        self.path = path
        self._dependencies = dependencies
        self.depth = call_depth()
        self.procedure = procedure
        self._executor = executor
        self._decode: Callable[[], BaseModel | None] | None = None
        self._input: BaseModel | PackedModel | None = None
        if isinstance(input, EncodedInput):
            canonical_input, self._decode = input
        else:
            canonical_input, self._input = canonical(input), input
        # INVARIANT (the handler gets nothing of the caller that is not in the key): else two callers would share what
        # only one of them may see. `query_key` names the context if, and only if, the handler gets it.
        self._ctx = ctx if procedure.handler.context is not None else None
        self.key: ResultKey = query_key(path, procedure, canonical_input, ctx=ctx, dependencies=dependencies)
        self._held_bytes: int | None = None

    @property
    def input(self) -> BaseModel | None:
        """The validated input."""
        if self._decode is not None:
            self._input, self._decode = self._decode(), None
        return self._input.unpacked() if isinstance(self._input, PackedModel) else self._input

    @property
    def held_bytes(self) -> int:
        """The bytes that key, input and context take in memory; counted when first asked for: hits need not know.

        Whoever asks is about to keep the call, so its input is packed then.
        """
        if self._held_bytes is None:
            self._held_bytes = weight_of(self.key) + self._packed_bytes() + weight_of(self._ctx)
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
    def is_shared(self) -> bool:
        """Whether workers take results from each other."""
        return self._dependencies is None or self._dependencies.is_shareable

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
            clock: what `now` asks; the application's if left out.
            trace: takes the statements that it runs.
        """
        return await self._executor.query(
            self.key,
            self.procedure,
            self.input,
            self._ctx,
            dependencies=self._dependencies,
            depth=self.depth,
            clock=clock,
            trace=trace,
        )

    async def stream(self, emit: Callable[[StreamedItem], Awaitable[None]]) -> None:
        """Run the handler of a procedure that yields, and give each value to `emit`; see `Executor.stream`."""
        await self._executor.stream(
            self.path,
            self.procedure,
            self.input,
            ctx=self._ctx,
            emit=emit,
            dependencies=self._dependencies,
            depth=self.depth,
        )

    def _packed_bytes(self) -> int:
        """Pack the input, unless predicates are asked about it with each change; return its size."""
        input = self.input
        found = None if input is None or self.procedure.invalidate_when else packed(input)
        if found is None:
            return weight_of(input)
        self._input = found
        return getsizeof(found) + weight_of(found.values)

    def _keep(self, change: Change) -> bool:
        predicate = self.procedure.invalidate_when.get(change.table)
        if predicate is None:
            return False
        try:
            known = self._executor.known(change, self.procedure)
            # Asked in whichever task has read the log: nothing that was set for its caller may decide.
            return not Ambient().run(predicate, known, self.input)
        except UnknownValueError as exc:
            logger.debug("%s: invalidate_when[%r]: %s; the change counts", self.path, change.table, exc)
            return False
        except Exception:
            logger.exception("%s: invalidate_when[%r] failed; the change counts", self.path, change.table)
            return False


def step_key(step: SessionStep, spelled: bytes, call: CallInfo | None) -> ResultKey:
    """Return the key of a step's outcome: one that is kept is found by it alone.

    Args:
        spelled: the canonical context before it.
        call: if the step takes it.
    """
    return step.path, b"" if call is None else canonical([call.path, call.kind, call.given]), spelled


class KeptMade(NamedTuple):
    """The context that a step with a session has made, as it is kept with its outcome.

    Attributes:
        ctx: the context; None if it makes none.
        spelled: its canonical form; None if it is not kept, as nobody sees the context as it is: it will expire.
    """

    ctx: Context | None
    spelled: bytes | None


def made_by(step: SessionStep, result: CachedResult, outcome: HandlerOutcome) -> KeptMade:
    """Return the context that a step has made, by a result of it and the outcome with its bytes.

    Raises:
        RPCError: the step has refused.
    """
    if result.decoded is not None:
        kept: KeptMade = result.decoded
        return kept
    ctx = step.output.from_json(outcome.answer())
    made = KeptMade(ctx, None if ctx is None or expiry_of(ctx) is not None else canonical(ctx))
    # INVARIANT (what is kept cannot be changed): else a step that changes its context changes that of other calls.
    if step.gives_same:
        result.decoded = made
    return made


class StepCall:
    """The call of a step with a session: kept by the context before it, and by the call where it takes that.

    Attributes:
        key: `(name of the step, canonical path and input or nothing, canonical context)`.
    """

    __slots__ = ("_call", "_ctx", "_executor", "depth", "key", "step")

    is_cached = True
    is_shared = True
    keep = None

    def __init__(self, executor: Executor, step: SessionStep, ctx: Context, *, call: CallInfo) -> None:
        self.step = step
        self.depth = call_depth()
        self._executor = executor
        self._ctx = ctx
        self._call = call.without_origin() if step.takes_call else None
        self.key: ResultKey = step_key(step, canonical(ctx), self._call)

    @property
    def held_bytes(self) -> int:
        """The bytes that key, context and call take in memory."""
        input = None if self._call is None else self._call.given
        return weight_of(self.key) + weight_of(self._ctx) + weight_of(input)

    async def compute(self, clock: Clock | None = None, trace: Trace | None = None) -> HandlerOutcome:
        """Run the step."""
        return await self._executor.query(
            self.key, self.step, self._call, self._ctx, depth=self.depth, clock=clock, trace=trace
        )

    def outcome_of(self, result: CachedResult, outcome: HandlerOutcome) -> Context:
        """Return the context that follows, by a result of this step and the outcome with its bytes.

        Raises:
            RPCError: the step has refused.
        """
        made = made_by(self.step, result, outcome).ctx
        return self._ctx if made is None else made


class ContextCall:
    """The call of a context that is a query: kept by the values that FastAPI has solved for it.

    Attributes:
        key: `(name of the function, canonical values, nothing)`.
        query: the context.
        solved: the values.
    """

    __slots__ = ("_executor", "depth", "key", "query", "solved")

    is_cached = True
    is_shared = False  # its key may hold credentials
    keep = None

    def __init__(self, executor: Executor, query: ContextQuery, solved: dict[str, Any]) -> None:
        self.depth = call_depth()
        self._executor = executor
        self.query = query
        self.solved = solved
        self.key: ResultKey = (query.path, canonical(solved), b"")

    @property
    def held_bytes(self) -> int:
        """What key and values take in memory."""
        return weight_of(self.key) + weight_of(self.solved)

    async def compute(self, clock: Clock | None = None, trace: Trace | None = None) -> HandlerOutcome:
        """Run the function.

        Raises:
            RPCError: it has refused. That is not kept: whoever sends made-up credentials would fill the cache.
        """
        outcome = await self._executor.query(
            self.key, self.query, None, self.solved, depth=self.depth, clock=clock, trace=trace
        )
        if outcome.error is not None:
            raise outcome.error.detached()
        made = self.query.output.from_json(outcome.body)
        if made.expires_at is None or made.expires_at.tzinfo is None:
            return outcome
        # It is asked again from that moment on, and so are the streams that rest on it: the application then says no in
        # its own words.
        until = Period(until=made.expires_at.timestamp())
        return replace(outcome, read_set=replace(outcome.read_set, period=outcome.read_set.period & until))

    def outcome_of(self, result: CachedResult, outcome: HandlerOutcome) -> Context:
        """Return the context, by a result of this call and the outcome with its bytes."""
        made: Context = (
            result.decoded[0] if result.decoded is not None else self.query.output.from_json(outcome.answer())
        )
        if self.query.gives_same:  # as for a step
            result.decoded = (made,)
        return made


def decode_input(path: str, procedure: AnyProcedure, input: object) -> BaseModel | None:
    """Validate Python values (or JSON's own types).

    Raises:
        BadRequestError: they do not fit; `details` lists each fault.
    """
    model = procedure.handler.input_model
    if model is None:
        return None
    return _validated(path, lambda: model.model_validate({} if input is None else procedure.handler.spelled(input)))


def decode_json_input(path: str, procedure: AnyProcedure, body: bytes) -> BaseModel | None:
    """Validate a JSON body; an empty one is an empty input.

    Raises:
        ParseError: it is no JSON.
        BadRequestError: it does not fit.
    """
    taken = procedure.input
    if taken is None:
        return None
    return _validated(path, lambda: taken.from_json(body or b"{}"))


def decode_text_input(path: str, procedure: AnyProcedure, input: dict[str, str]) -> BaseModel | None:
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
