"""Calls that go on for as long as the right to them lasts: of handlers that yield, and of queries that are followed."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, repeat

from pydantic import BaseModel

from reactive_rpc.cache.reader import Reader
from reactive_rpc.procedures.call import QueryCall
from reactive_rpc.procedures.calls import Calls
from reactive_rpc.procedures.context import Context
from reactive_rpc.procedures.live import Followers
from reactive_rpc.procedures.procedure import AnyProcedure
from reactive_rpc.procedures.rights import RightGuards, Rights
from reactive_rpc.procedures.steps import CallOrigin, Outcome, Step, around, walk
from reactive_rpc.procedures.streamed import StreamedItem

__all__ = ["OnBehalf", "OngoingCall", "OngoingCalls", "running_on_behalf"]


@dataclass(frozen=True, slots=True)
class OngoingCall:
    """What is called, and on whose behalf.

    Attributes:
        ctx: the application's context.
    """

    path: str
    procedure: AnyProcedure
    input: BaseModel | None
    ctx: object
    origin: CallOrigin

    def asked_again(self) -> OngoingCall:
        """Return the same call, whose steps run once more: no limit counts that."""
        return replace(self, origin=replace(self.origin, transport="stream"))


@dataclass(frozen=True, slots=True)
class OnBehalf:
    """On whose behalf a handler that yields runs, for the calls that it makes itself."""

    calls: Calls
    ongoing: OngoingCalls
    ctx: object
    origin: CallOrigin


_on_behalf: ContextVar[OnBehalf] = ContextVar("reactive_rpc_on_behalf")


def running_on_behalf() -> OnBehalf | None:
    """Return on whose behalf the handler runs that is running here; None where none does.

    A cached query does not see it, as it sees no `ContextVar`: its result is others' too.
    """
    return _on_behalf.get(None)


class OngoingCalls:
    """Makes calls that go on. Used on one event loop.

    Args:
        calls: runs their steps.
        reader: computes and watches what is followed.
        recheck_seconds: how often their steps run again; 0 is never.

    Attributes:
        guards: of those who are sent one value after another without a stream of the hub's.
        followers: of queries.
    """

    def __init__(self, calls: Calls, reader: Reader, *, recheck_seconds: float) -> None:
        self._calls = calls
        self.followers = Followers(reader, calls.clock)
        self.guards = RightGuards(reader, calls.clock, recheck_seconds=recheck_seconds)

    def recheck_all(self) -> None:
        """Have the right of every call asked for again before its next value."""
        self.guards.recheck_all()
        self.followers.recheck_all()

    async def stream(self, call: OngoingCall, *, serve: Callable[[QueryCall], Awaitable[None]], rights: Rights) -> None:
        """Run the chain of a procedure that yields; wrappers enclose `serve`, which makes all of the call.

        Args:
            rights: takes the outcomes that the steps came to, watched; whoever gives it unwatches them.

        Raises:
            RPCError: a step has refused, or a wrapper answers otherwise.
            Exception: whatever `serve` raised.
        """
        calls, procedure, origin = self._calls, call.procedure, call.origin
        info = calls.info(call.path, procedure, call.input, origin=origin)

        async def step(step: Step, ctx: Context) -> Context:
            return await calls.stepped(step, ctx, info, rights=rights)

        async def last(made: Context) -> Outcome:
            bound = calls.bind(call.path, procedure, call.input, made, origin=origin)
            run: Callable[[], Awaitable[None]] = partial(serve, bound)
            if procedure.around_computation:
                run = partial(around, procedure.around_computation, info.without_origin(), run)
            with self._on_behalf(call):
                await run()
            return Outcome("handler", None, None)

        with calls.raised.checked(call.path, procedure.raises):
            admitted = calls.admitted(procedure, call.ctx)
            await walk(calls.parts(procedure, origin), admitted, info, step=step, last=last)

    async def stream_guarded(self, call: OngoingCall, *, emit: Callable[[StreamedItem], Awaitable[None]]) -> None:
        """Run a procedure that yields, in this process; before each value it is found that the right to it holds.

        Raises:
            ServiceUnavailableError: the caller may see something else now.
            Exception: as `stream`, and whatever `emit` raised.
        """

        async def renew(rights: Rights) -> object:
            return (await self._passed(call.asked_again(), rights)).key[2]

        async def serve(bound: QueryCall) -> None:
            guard.seen = bound.key[2]

            async def guarded(item: StreamedItem) -> None:
                await guard.require()
                await emit(item)

            await bound.stream(guarded)

        with self.guards.guard(call.path, renew, Rights()) as guard:
            await self.stream(call, serve=serve, rights=guard.rights)

    async def live(self, call: OngoingCall) -> AsyncGenerator[bytes]:
        """Yield the result of a query as JSON, now and whenever it is another, see `Followers.follow`."""
        asked = chain((call,), repeat(call.asked_again()))

        async def subscribe(rights: Rights) -> QueryCall:
            return await self._passed(next(asked), rights)

        async with aclosing(self.followers.follow(subscribe)) as results:
            async for body in results:
                yield body

    async def _passed(self, call: OngoingCall, rights: Rights) -> QueryCall:
        return await self._calls.pass_steps(
            call.path, call.procedure, call.input, ctx=call.ctx, origin=call.origin, rights=rights
        )

    @contextmanager
    def _on_behalf(self, call: OngoingCall) -> Iterator[None]:
        token = _on_behalf.set(OnBehalf(self._calls, self, call.ctx, call.origin))
        try:
            yield
        finally:
            _on_behalf.reset(token)
