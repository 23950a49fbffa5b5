"""Calls: procedures with everything that stands before them, over the wire or in this process."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any, Final

from pydantic import BaseModel

from reactive_rpc.cache.freshness import STRICT, SYNCED, RequiredFreshness
from reactive_rpc.cache.reader import Reader
from reactive_rpc.cache.result import CachedResult, Computable, HandlerOutcome
from reactive_rpc.changes.answers import Answers, Claim
from reactive_rpc.changes.ephemeral_store import EphemeralStore
from reactive_rpc.clock import Clock
from reactive_rpc.dependencies.read_set import ReadSet
from reactive_rpc.errors import DefinitionError, MethodNotSupportedError, PreconditionFailedError
from reactive_rpc.health import Health
from reactive_rpc.procedures.call import (
    ContextCall,
    EncodedInput,
    QueryCall,
    StepCall,
    decode_json_input,
)
from reactive_rpc.procedures.context import Context, Login, expiry_of, valid_at
from reactive_rpc.procedures.context_query import ContextQuery
from reactive_rpc.procedures.declared_errors import DeclaredError, RaisedErrors
from reactive_rpc.procedures.dependencies import Overrides
from reactive_rpc.procedures.exchange import Exchange
from reactive_rpc.procedures.execution import Executor, MutationOutput
from reactive_rpc.procedures.found_context import ContextNotes, FoundContext
from reactive_rpc.procedures.guarded_query import GuardedQuery, QueryReads, QueryTerms
from reactive_rpc.procedures.idempotency import NO_KEYS, IdempotentCall
from reactive_rpc.procedures.options import ProcedureKind
from reactive_rpc.procedures.procedure import AnyProcedure
from reactive_rpc.procedures.rate_limit import RateLimits
from reactive_rpc.procedures.registry import Registry
from reactive_rpc.procedures.rights import Rights, watching_rights
from reactive_rpc.procedures.running_call import AfterCommit, current_call, refuse_recursion
from reactive_rpc.procedures.solving import CallDependencies
from reactive_rpc.procedures.steps import (
    LOCAL,
    CallInfo,
    CallOrigin,
    ChainPart,
    Outcome,
    RateCounts,
    Step,
    first_with_session,
    overridden,
    walk,
)
from reactive_rpc.procedures.uploads import CallFiles
from reactive_rpc.protocol.headers import UNKNOWN

__all__ = [
    "Calls",
    "MutationResult",
    "make_calls",
]

logger = logging.getLogger(__name__)

_NO_OVERRIDES: Final[Overrides] = MappingProxyType({})

NOBODY = Context()
"""The context that the steps of a public procedure begin with."""


@dataclass(frozen=True, slots=True)
class MutationResult:
    """The output of a mutation, and where the log stood after it.

    Attributes:
        body: its output as JSON.
        token: the cursor of a place in the log that shows what it wrote, or `UNKNOWN`.
        replayed: whether this is the stored answer of an earlier call with the same idempotency key.
        after: the work that it has left to be done after its commit.
    """

    body: bytes
    token: str
    replayed: bool = False
    after: tuple[AfterCommit, ...] = ()


class Calls:
    """Calls procedures with validated inputs.

    Args:
        answers: of mutations, kept to be given again; None where none are.
        clock: tells when a context has expired.
        rate_limits: counts calls, for the steps that limit them.

    Attributes:
        overrides: `{function: the one that is called in its place}`, of dependencies and steps, in every call.
        app_overrides: those of the application, which count for less.
    """

    def __init__(
        self,
        registry: Registry,
        executor: Executor,
        reader: Reader,
        *,
        answers: Answers | None,
        clock: Clock,
        rate_limits: RateCounts,
    ) -> None:
        self._rate_limits = rate_limits
        self.registry = registry
        self.overrides: dict[Callable[..., Any], Callable[..., Any]] = {}
        self.app_overrides: Overrides = {}
        self._answers = answers
        self._executor = executor
        self._reader = reader
        self.clock = clock
        self._reads = QueryReads(
            reader, executor, registry, self.clock, rate_limits, admitted=self.admitted, bind=self.bind, get=self._get
        )

    @property
    def raised(self) -> RaisedErrors:
        """Holds the errors that procedures raise against those that they declare."""
        return self._executor.raised

    @property
    def reader(self) -> Reader:
        """Keeps their results. For hits that need no call; inside of a call all that is read counts for that one."""
        return self._reader

    @property
    def token(self) -> str:
        """The cursor of an answer that is sent now."""
        return self._reader.freshness.token

    @property
    def outage_seconds(self) -> float:
        """How long ago the log could last be read."""
        return self._reader.freshness.age_seconds

    def bind(
        self,
        path: str,
        procedure: AnyProcedure,
        input: BaseModel | EncodedInput | None,
        ctx: Context,
        *,
        origin: CallOrigin = LOCAL,
    ) -> QueryCall:
        """Return the call of a query, which can be computed again at any time.

        Args:
            ctx: that the steps have made.
            origin: whose headers the dependencies see, as far as they declare them.
        """
        dependencies = None if procedure.plans is None else self._dependencies_of(path, procedure, origin)
        return QueryCall(self._executor, path, procedure, input, ctx, dependencies=dependencies)

    @property
    def is_overridden(self) -> bool:
        """Whether other functions stand in the place of some, in every call."""
        return bool(self.app_overrides or self.overrides)

    def info(self, path: str, procedure: AnyProcedure, input: BaseModel | None, *, origin: CallOrigin) -> CallInfo:
        """Return what steps and wrappers see of a call."""
        return CallInfo(path, procedure.kind, lambda: input, origin=origin, rate_limits=self._rate_limits)

    def parts(self, procedure: AnyProcedure, origin: CallOrigin) -> tuple[ChainPart, ...]:
        """Return the steps and wrappers of a call, as they are overridden for it."""
        return overridden(procedure.calls, self._overrides_of(origin))

    def _overrides_of(self, origin: CallOrigin) -> Overrides:
        if not (self.app_overrides or self.overrides or origin.overrides):
            return _NO_OVERRIDES
        return {**self.app_overrides, **self.overrides, **origin.overrides}

    def _dependencies_of(self, path: str, procedure: AnyProcedure, origin: CallOrigin) -> CallDependencies | None:
        if procedure.plans is None:
            return None
        plan = procedure.plans.under(self._overrides_of(origin))
        exchange = None if procedure.is_cached else origin.exchange or Exchange()
        return CallDependencies(path, plan, origin.raw_headers, exchange=exchange)

    async def query(
        self,
        path: str,
        procedure: AnyProcedure,
        input: BaseModel | EncodedInput | None,
        ctx: object,
        *,
        origin: CallOrigin = LOCAL,
        freshness: RequiredFreshness = STRICT,
    ) -> CachedResult:
        """Run the chain of a query and return its result, see `Reader.get`.

        Args:
            ctx: the application's.

        Raises:
            RPCError: a step has refused, or a wrapper answers otherwise.
            Exception: as `Reader.get`.
        """
        first = self.admitted(procedure, ctx)
        terms = QueryTerms(path, procedure, input, origin)
        if not procedure.calls and origin.asked is None:
            return (await self._reads.read(terms, first, freshness=freshness))[0]
        parts = self.parts(procedure, origin)
        try:
            return await GuardedQuery(self._reads, terms, first, freshness=freshness, parts=parts).result()
        except DeclaredError as error:
            self.raised.require_declared(path, procedure.raises, error)
            raise

    async def subscribe(
        self,
        path: str,
        input: object,
        ctx: object,
        *,
        origin: CallOrigin = LOCAL,
        rights: Rights | None = None,
        kind: ProcedureKind = "query",
    ) -> QueryCall:
        """Run the steps of a query that a client names, and return its call.

        Args:
            input: as JSON's own types.
            kind: of the procedure.
            rights: takes the outcomes that the steps came to, watched; whoever gives it unwatches them.

        Raises:
            NotFoundError: there is no such procedure.
            MethodNotSupportedError: it is no such procedure.
            BadRequestError: the input does not fit.
            RPCError: a step has refused.
        """
        procedure = self.registry.find(path)
        if procedure.kind != kind:
            raise MethodNotSupportedError(f"{path} is a {procedure.kind}: only queries can be watched", path=path)
        body = b"" if input is None else json.dumps(input).encode()  # it came as JSON, and is read as a call's is
        decoded = decode_json_input(path, procedure, body)
        return await self.pass_steps(path, procedure, decoded, ctx=ctx, origin=origin, rights=rights)

    async def pass_steps(
        self,
        path: str,
        procedure: AnyProcedure,
        decoded: BaseModel | None,
        *,
        ctx: object,
        origin: CallOrigin = LOCAL,
        rights: Rights | None = None,
    ) -> QueryCall:
        """Run the steps of a procedure that is watched or yields, and return its call; see `subscribe`."""
        found = self.admitted(procedure, ctx)
        info = self.info(path, procedure, decoded, origin=origin)
        with self.raised.checked(path, procedure.raises):
            for step in overridden(procedure.chain.steps, self._overrides_of(origin)):
                if isinstance(step, Step):
                    found = await self.stepped(step, found, info, rights=rights)
        return self.bind(path, procedure, decoded, found, origin=origin)

    async def stepped(self, step: Step, ctx: Context, info: CallInfo, *, rights: Rights | None) -> Context:
        """Run a step for a stream, and return the context that follows."""
        if rights is not None:
            rights.is_by_input = bool(step.call_name)
        if step.session is None:
            made = await step.run(ctx, info)
        else:
            made = await self._watched(step, ctx, info, rights=rights)
        found = valid_at(self.clock.time(), made)
        if rights is not None:
            rights.expires_at = min(rights.expires_at, expiry_of(made) or math.inf)
        return found

    async def mutate(
        self,
        path: str,
        procedure: AnyProcedure,
        input: BaseModel | None,
        ctx: object,
        *,
        origin: CallOrigin = LOCAL,
        claim: Claim | None = None,
        files: CallFiles | None = None,
    ) -> MutationResult:
        """Run a mutation, then apply what it wrote, so that whoever watches is notified before the caller goes on.

        The steps from the first one with a session on run in its transaction.

        Args:
            claim: of an idempotency key, under which the call is made once.
            files: that come beside the input; None where the procedure takes none.
        """
        if claim is not None and procedure.response_class is not None:
            raise PreconditionFailedError(
                f"an idempotency key was sent, and {path} answers a {procedure.response_class.__name__}, which is not "
                "kept to be answered again. Nothing was done; leave the key out, and do not send the call again",
                details=NO_KEYS,
                path=path,
            )
        idempotent = None if claim is None else IdempotentCall(self._answers, claim)
        first = self.admitted(procedure, ctx)
        dependencies = self._dependencies_of(path, procedure, origin)
        mutate = partial(
            self._executor.mutate,
            path,
            procedure,
            input,
            idempotent=idempotent,
            dependencies=dependencies,
            files=files,
        )
        with self.raised.checked(path, procedure.raises):
            if procedure.calls or procedure.around_computation:
                info = self.info(path, procedure, input, origin=origin)
                parts = self.parts(procedure, origin)
                output = await _guarded(parts, first, info, clock=self.clock, mutate=partial(mutate, call=info))
            else:
                output = await mutate(first)
        try:
            await self._reader.freshness.sync_after_commit()
        except Exception:
            logger.exception("the log could not be read after a commit; its events will come with the next poll")
            return MutationResult(output.body, UNKNOWN, output.replayed, output.after)
        return MutationResult(output.body, self.token, output.replayed, output.after)

    def admitted(self, procedure: AnyProcedure, ctx: object) -> Context:
        """Return the context that the steps of a procedure begin with.

        Raises:
            UnauthorizedError: it has expired.
            DefinitionError: the application's dependency returned something else than it says.
        """
        if procedure.options.public or (ctx is None and not procedure.asks_who_calls):
            return NOBODY
        root = procedure.chain.root
        if not isinstance(ctx, root):
            raise DefinitionError(
                f"{procedure.name} begins with a {root.__name__}, and was given a {type(ctx).__name__}: return that "
                "from the dependency that ReactiveRPC(context=...) names, or give it to caller(...)"
            )
        if not isinstance(ctx, Login) or ctx.expires_at is None:
            return ctx
        return valid_at(self.clock.time(), ctx)

    def require_current(self, ctx: object) -> float:
        """Let only a context through that has not expired; return until when it holds, `inf` is for ever.

        Raises:
            UnauthorizedError: it has.
            DefinitionError: nobody can tell, as its moment has no offset.
        """
        if isinstance(ctx, Context):
            valid_at(self.clock.time(), ctx)
        return expiry_of(ctx) or math.inf

    async def context_of(self, query: ContextQuery, solved: dict[str, Any]) -> Context:
        """Return the context that a function with a session makes of what FastAPI has solved for it.

        For a stream (`watching`) its outcome is watched, for a call it is noted (`ContextNotes`).

        Raises:
            RPCError: it has refused.
        """
        rights = watching_rights()
        if rights is not None:
            asked = self.context_call(query, solved)
            return asked.outcome_of(*await self.watch(asked, rights))
        found = await self._find_context(query, solved)
        ContextNotes.add(found)
        return found.made

    async def _find_context(self, query: ContextQuery, solved: dict[str, Any]) -> FoundContext:
        return await self.found_context(self.context_call(query, solved), is_log_read=False)

    async def found_context(self, asked: ContextCall, *, is_log_read: bool) -> FoundContext:
        """Return the context that a function with a session makes for a call.

        Args:
            is_log_read: whether the log has been read for the very request that asks.

        Raises:
            RPCError: it has refused.
        """
        result = await self._get(asked, SYNCED if is_log_read else STRICT)
        return self.kept_context(asked, result, asked.outcome_of(result, result.with_bytes()))

    def kept_context(self, asked: ContextCall, result: CachedResult, made: Context) -> FoundContext:
        """Return how the context was found that an outcome has made."""
        again = partial(self._find_context, asked.query, asked.solved)
        return FoundContext(made, result, self._reader, again)

    def context_call(self, query: ContextQuery, solved: dict[str, Any]) -> ContextCall:
        """Return the call of a context that is a query.

        Args:
            solved: what FastAPI has solved for it.

        Raises:
            DefinitionError: nothing can be kept by that.
        """
        try:
            return ContextCall(self._executor, query, solved)
        except TypeError as exc:
            raise query.fault(
                f"{exc}, and the context is kept by the values that it is made of: declare the headers, cookies or "
                "security schemes that it reads, each as a parameter of its own"
            ) from exc

    async def _watched(self, step: Step, ctx: Context, info: CallInfo, *, rights: Rights | None) -> Context:
        asked = StepCall(self._executor, self.registry.session_steps.of(step), ctx, call=info)
        if rights is None:
            result = await self._get(asked, STRICT)
            return asked.outcome_of(result, result.with_bytes())
        return asked.outcome_of(*await self.watch(asked, rights))

    async def watch(self, asked: Computable, rights: Rights) -> tuple[CachedResult, HandlerOutcome]:
        """Return the outcome of something that a right rests on, watched for `rights`."""
        try:
            read = await self._reader.watch(asked)
        except PreconditionFailedError:  # nobody can tell what it reads: it is asked again at each recheck
            result = await self._get(asked, STRICT)
            rights.passed.append(None)
            return result, result.with_bytes()
        rights.passed.append(read.result)
        if not read.result.live:
            rights.is_overtaken = True
        elif read.result in rights.results:  # another query of the stream came by the same step
            self._reader.unwatch(read.result)
        else:
            rights.results[read.result] = None
        return read.result, read.outcome

    async def _get(self, call: Computable, freshness: RequiredFreshness) -> CachedResult:
        """Return the result; where another call is running, what this one reads counts for that one too."""
        outer = current_call() if call.depth else None
        if outer is None:
            return await self._reader.get(call, freshness=freshness)
        refuse_recursion(call.key)
        path = call.key[0]
        try:
            result = await self._reader.get(call, freshness=freshness)
        except BaseException:
            outer.inner.append(ReadSet(opaque=f"calls {path}, which failed"))
            raise
        unkept = None if call.is_cached else ReadSet(opaque=f"calls {path}, which has cache=False")
        outer.inner.append(unkept or result.read_set)
        return result


async def _guarded(
    parts: tuple[ChainPart, ...],
    ctx: Context,
    info: CallInfo,
    *,
    clock: Clock,
    mutate: Callable[..., Awaitable[MutationOutput]],
) -> MutationOutput:
    """Run the chain of a mutation up to the first step with a session, then `mutate` with the rest of it."""
    at = first_with_session(parts)

    async def step(step: Step, ctx: Context) -> Context:
        return valid_at(clock.time(), await step.run(ctx, info))

    async def last(ctx: Context) -> Outcome:
        output = await mutate(ctx, inside=parts[at:])
        return Outcome("cache" if output.replayed else "handler", None, output)

    outcome = await walk(parts[:at], ctx, info, step=step, last=last)
    output: MutationOutput = outcome.value
    return output


def make_calls(
    registry: Registry,
    executor: Executor,
    reader: Reader,
    *,
    store: EphemeralStore,
    answers: Answers | None,
    health: Health,
    clock: Clock,
) -> Calls:
    """Return the calls of an application, counted in `store` by the steps that limit them."""
    limits = RateLimits(store, clock=clock, health=health)
    return Calls(registry, executor, reader, answers=answers, clock=clock, rate_limits=limits)
