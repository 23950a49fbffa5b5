"""A query behind steps, wrappers, or a context that is a query itself: each guards every call, whatever is kept.

A step with a session is a query of its own, and kept. The log is read once; then the outcomes of such steps and the
result are looked up one after another with nothing awaited between, so all of them are right at one version of it. If
anything has to be computed, the rights are held against the log again before the caller is answered.
`docs/internals/procedures.md` argues why.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from pydantic import BaseModel

from reactive_rpc.cache.freshness import STRICT, STRICT_FOR_SERVER, SYNCED, InOutage, RequiredFreshness
from reactive_rpc.cache.reader import Reader
from reactive_rpc.cache.result import CachedResult, Computable
from reactive_rpc.clock import Clock
from reactive_rpc.errors import ServiceUnavailableError
from reactive_rpc.procedures.call import EncodedInput, QueryCall, StepCall, made_by, query_key, step_key
from reactive_rpc.procedures.canonical import canonical
from reactive_rpc.procedures.context import Context, Login, valid_at
from reactive_rpc.procedures.execution import Executor
from reactive_rpc.procedures.procedure import AnyProcedure
from reactive_rpc.procedures.registry import Registry
from reactive_rpc.procedures.running_call import current_call
from reactive_rpc.procedures.steps import (
    AskedContext,
    CallInfo,
    CallOrigin,
    ChainPart,
    Outcome,
    RateCounts,
    Step,
    Wrapper,
    walk,
)

__all__ = ["GuardedQuery", "QueryReads", "QueryTerms"]

ATTEMPTS = 10
"""How often a query is read for a caller whose context becomes another meanwhile."""


class QueryTerms(NamedTuple):
    """A query that is called, without the context that its handler gets.

    Attributes:
        origin: where the call comes from, and how the application's context was found.
    """

    path: str
    procedure: AnyProcedure
    input: BaseModel | EncodedInput | None
    origin: CallOrigin


@dataclass(frozen=True, slots=True)
class QueryReads:
    """Reads queries for whoever has passed the guards.

    Attributes:
        clock: tells when a context has expired.
        rate_limits: counts calls, for the steps that limit them.
        admitted: returns the context that the steps of a procedure begin with, see `Calls.admitted`.
        bind: returns the call of a query by path, procedure, input, context and origin.
        get: returns the result of a call, and counts it as read for the call that is running here.
    """

    reader: Reader
    executor: Executor
    registry: Registry
    clock: Clock
    rate_limits: RateCounts
    admitted: Callable[[AnyProcedure, object], Context]
    bind: Callable[..., QueryCall]
    get: Callable[[Computable, RequiredFreshness], Awaitable[CachedResult]]

    async def read(
        self, terms: QueryTerms, ctx: Context, *, freshness: RequiredFreshness, spelled: bytes | None = None
    ) -> tuple[CachedResult, bool]:
        """Return the result of a handler with this context, and whether it was made for this call.

        Args:
            spelled: the canonical context, if it is known.

        Raises:
            Exception: as `Reader.get`.
        """
        path, procedure, input, origin = terms
        # A kept result is found by its key alone. Inside of another call all that is read counts for that one, which
        # `get` sees to.
        if (
            isinstance(input, EncodedInput)
            and procedure.is_cached
            and procedure.plans is None
            and not isinstance(freshness, InOutage)
            and current_call() is None
        ):
            stored = await self.reader.find(
                query_key(path, procedure, input.canonical, ctx=ctx, spelled=spelled), freshness=freshness
            )
            if stored is not None:
                return stored, False
            freshness = SYNCED
        call = self.bind(path, procedure, input, ctx, origin=origin)
        result = await self.get(call, freshness)
        return result, result.query is call


class GuardedQuery:
    """One call of a query that is guarded.

    Args:
        terms: the call.
        ctx: the application's, admitted.
        freshness: of the result. A guard has none: it is never as old as a result may be, and fails in an outage.
        parts: the steps and wrappers that run, in order.
    """

    __slots__ = (
        "_asked",
        "_first",
        "_first_look",
        "_freshness",
        "_info",
        "_parts",
        "_passed",
        "_reads",
        "_spelled",
        "_terms",
    )

    def __init__(
        self,
        reads: QueryReads,
        terms: QueryTerms,
        ctx: Context,
        *,
        freshness: RequiredFreshness,
        parts: tuple[ChainPart, ...],
    ) -> None:
        self._reads = reads
        self._terms = terms
        self._first = ctx
        self._parts = parts
        self._asked: AskedContext | None = terms.origin.asked
        self._freshness = freshness
        self._first_look = STRICT
        if not isinstance(freshness, InOutage):
            if self._asked is not None:
                self._freshness = SYNCED  # the log was read to find it, for this very request
            if freshness.is_server_request and not terms.procedure.is_wrapped:
                self._first_look = STRICT_FOR_SERVER
        self._passed: list[CachedResult] = []
        self._info: CallInfo | None = None
        self._spelled: tuple[Context, bytes] | None = None

    async def result(self) -> CachedResult:
        """Run the chain and return the result.

        Raises:
            RPCError: a step has refused, or a wrapper answers otherwise.
            Exception: as `Reader.get`.
        """
        if not self._terms.procedure.is_wrapped:
            return (await self._read(await self._through(self._parts, self._first)))[0]
        outcome = await walk(self._parts, self._first, self._call, step=self._step, last=self._last)
        result: CachedResult = outcome.value
        return result

    @property
    def _call(self) -> CallInfo:
        """The call as steps and wrappers see it, made once somebody takes it."""
        if self._info is None:
            path, _, input, origin = self._terms
            self._info = CallInfo(path, "query", _decoding(input), origin=origin, rate_limits=self._reads.rate_limits)
        return self._info

    async def _step(self, step: Step, ctx: Context) -> Context:
        return await self._through((step,), ctx)

    async def _through(self, parts: Sequence[ChainPart], ctx: Context) -> Context:
        """Run the steps among some parts and return the context that they make."""
        for step in parts:
            if isinstance(step, Wrapper):
                continue
            if step.session is not None:
                ctx = await self._after(step, ctx)
            else:
                # INVARIANT (a context is spelled as the handler gets it): this step may change what is in it.
                self._spelled = None
                self._first_look = STRICT  # it may write, and what follows must see that
                if step.is_async or step.call_name:
                    ctx = await step.run(ctx, self._call if step.call_name else None)
                else:
                    ctx = step.run_now(ctx)
            if isinstance(ctx, Login) and ctx.expires_at is not None:
                ctx = valid_at(self._reads.clock.time(), ctx)
        return ctx

    async def _after(self, step: Step, ctx: Context) -> Context:
        """Return the context that a step with a session makes of another: as it is kept, or by running it."""
        reads = self._reads
        kept = reads.registry.session_steps.of(step)
        call = self._call if step.call_name else None
        result = None
        if current_call() is None:  # else what is read counts for the call that runs here, which `get` sees to
            freshness = SYNCED if self._freshness is SYNCED else self._first_look
            result = await reads.reader.find(step_key(kept, self._spell(ctx), call), freshness=freshness)
            self._freshness = SYNCED
        if result is None:
            asked = StepCall(reads.executor, kept, ctx, call=self._call)
            result = await reads.get(asked, SYNCED if self._freshness is SYNCED else STRICT)
            self._freshness = SYNCED
        self._passed.append(result)
        made, spelled = made_by(kept, result, result.with_bytes())
        if made is None:
            return ctx
        self._spelled = None if spelled is None else (made, spelled)
        return made

    async def _read(self, ctx: Context) -> tuple[CachedResult, bool]:
        """Return the result for a context that the steps have made, and whether it was made for this call."""
        for _ in range(ATTEMPTS):
            spelled = self._spelled[1] if self._spelled is not None and self._spelled[0] is ctx else None
            result, is_made = await self._reads.read(self._terms, ctx, freshness=self._freshness, spelled=spelled)
            # INVARIANT (who is answered had the right once the data were as they are answered): else somebody who was
            # shut out after the steps, or in the very commit, would be answered with rows from then on. Outcomes that
            # hold are right at the log's version, which the result does not pass; any other is asked for again.
            if self._holds():
                return result, is_made
            result = self._with_own_bytes(result)
            ctx = await self._asked_again()
            path, procedure, input, origin = self._terms
            if self._reads.bind(path, procedure, input, ctx, origin=origin).key == result.query.key:
                return result, is_made
        raise ServiceUnavailableError("what this caller may see changes all the time: ask again", path=self._terms.path)

    def _holds(self) -> bool:
        """Tell whether every right that this call has passed by still is the outcome."""
        for result in self._passed:
            if not self._reads.reader.holds(result):
                return False
        return self._asked is None or self._asked.holds

    async def _asked_again(self) -> Context:
        """Find the context of the handler anew: the application's if it is a query, and the steps after it."""
        self._passed.clear()
        self._freshness = self._first_look = STRICT
        if self._asked is not None:
            self._asked = await self._asked.again()
            self._first = self._reads.admitted(self._terms.procedure, self._asked.made)
        return await self._through(self._parts, self._first)

    async def _last(self, ctx: Context) -> Outcome:
        """End the way through the wrappers."""
        result, is_made = await self._read(ctx)
        result = self._with_own_bytes(result)
        if result.error is not None:
            return Outcome("error", result.error, result)
        return Outcome("handler" if is_made else "cache", None, result)

    def _with_own_bytes(self, result: CachedResult) -> CachedResult:
        """Return a copy that nothing invalidates, in the step that has found the result."""
        # INVARIANT (whatever awaits before the answer is made has its own bytes): a write lets go of the stored ones.
        return result.detached(self._reads.reader.version_of(result))

    def _spell(self, ctx: Context) -> bytes:
        """Return the canonical form of a context, which the next step or the handler gets as it is."""
        if self._spelled is None or self._spelled[0] is not ctx:
            self._spelled = ctx, canonical(ctx)
        return self._spelled[1]


def _decoding(input: BaseModel | EncodedInput | None) -> Callable[[], Any]:
    return input.decode if isinstance(input, EncodedInput) else lambda: input
