"""The caller: procedures as typed calls in this process, on behalf of one context."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import replace
from typing import Any, ParamSpec, TypeVar, overload

from anyio import create_memory_object_stream
from anyio.streams.memory import MemoryObjectSendStream

from reactive_rpc.errors import DefinitionError
from reactive_rpc.procedures.after_commit import run_after_commit
from reactive_rpc.procedures.call import decode_input
from reactive_rpc.procedures.calls import Calls
from reactive_rpc.procedures.dependencies import Overrides
from reactive_rpc.procedures.exchange import Exchange
from reactive_rpc.procedures.ongoing_calls import OngoingCall, OngoingCalls, running_on_behalf
from reactive_rpc.procedures.procedure import AnyProcedure, Mutation, Query, StreamedQuery, Subscription
from reactive_rpc.procedures.running_call import current_call
from reactive_rpc.procedures.steps import LOCAL, CallOrigin
from reactive_rpc.procedures.streamed import StreamedItem, Tracked
from reactive_rpc.procedures.uploads import CallFiles
from reactive_rpc.tasks import background

__all__ = ["Caller", "current_caller"]

P = ParamSpec("P")
R = TypeVar("R")


class Caller:
    """Calls procedures as the server does, with steps and wrappers: `await call(agents.get_one, agent_id="a1")`.

    Args:
        calls: makes them.
        ongoing: makes those that go on.
        ctx: the application's context, on whose behalf.
        overrides: `{function: the one that is called in its place}`: dependencies of handlers, and steps.
        require_open: raises if nothing can be called.
        origin: of the call that makes these calls, whose headers their dependencies see.
    """

    def __init__(
        self,
        calls: Calls,
        ongoing: OngoingCalls,
        ctx: object,
        *,
        require_open: Callable[[], None],
        overrides: Overrides | None = None,
        origin: CallOrigin = LOCAL,
    ) -> None:
        self._calls = calls
        self._ongoing = ongoing
        self._ctx = ctx
        self._require_open = require_open
        self._origin = replace(origin, transport="local", overrides={**origin.overrides, **(overrides or {})})

    @overload
    async def __call__(self, procedure: Query[..., P, R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    async def __call__(self, procedure: Mutation[..., P, R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...

    async def __call__(self, procedure: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Validate the inputs, run the procedure, and return its output as the handler's annotated type.

        A query is read strictly. What a mutation leaves for after its commit is done when this returns.

        Args:
            procedure: a decorated function of the application; its inputs follow, as the function takes them.

        Raises:
            RPCError: as over the wire.
            TypeError: the inputs are given as no call of the function could be.
            DefinitionError: it is no procedure of this application.
        """
        path = self._calls.registry.path_of(procedure)
        if procedure.is_streamed:
            raise DefinitionError(f"{path} yields its results: async for ... in call.stream({procedure.name}, ...)")
        procedure = self._calls.registry.find(path)
        given, files = procedure.handler.bind(args, kwargs)
        return await self.call(path, procedure, given, files=files)

    async def live(self, procedure: Query[..., P, R], /, *args: P.args, **kwargs: P.kwargs) -> AsyncGenerator[R]:
        """Yield the result of a query now, and whenever it is another: `async for seats in call.live(all_seats)`.

        It ends by raising: if the right to the result is lost, or the handler refuses. A slow taker is given the latest
        result, and not those in between. A loop that is left by `break` is ended as Python collects it; with
        `contextlib.aclosing` that is at once.

        Args:
            procedure: a query of the application whose results are kept.
            args: its inputs, with `kwargs`, as the function takes them.
            kwargs: its inputs by name.

        Raises:
            RPCError: as over the wire.
            PreconditionFailedError: nobody can tell when its result changes.
            TypeError: the inputs are given as no call of the function could be.
            DefinitionError: it is no query of this application; or it is to be followed inside of a query or a
                mutation, whose snapshot would be held for as long.
        """
        path = self._calls.registry.path_of(procedure)
        if procedure.kind != "query" or not procedure.is_cached:
            raise DefinitionError(f"{path}: what is followed is a query whose results are kept, with no cache=False")
        if current_call() is not None:
            raise DefinitionError(
                f"live({procedure.name}) inside of a query or a mutation would hold its snapshot for as long: follow "
                "it in a subscription, or await call(...) here"
            )
        async with aclosing(self._ongoing.live(self._begun(path, args, kwargs))) as bodies:
            async for body in bodies:
                yield procedure.output.from_json(body)

    async def stream(
        self, procedure: StreamedQuery[..., P, R] | Subscription[..., P, R], /, *args: P.args, **kwargs: P.kwargs
    ) -> AsyncGenerator[R]:
        """Yield what a subscription or a streamed query yields: `async for row in call.stream(export, year=2026)`.

        The handler waits until a value is taken before it goes on. For its end, see `live`.

        Args:
            procedure: of the application.
            args: its inputs, with `kwargs`, as the function takes them.
            kwargs: its inputs by name.

        Raises:
            RPCError: as over the wire.
            TypeError: the inputs are given as no call of the function could be.
            DefinitionError: it is no such procedure of this application.
        """
        path = self._calls.registry.path_of(procedure)
        if not procedure.is_streamed:
            raise DefinitionError(f"{path} has one result: await call({procedure.name}, ...)")
        begun = self._begun(path, args, kwargs)
        send, receive = create_memory_object_stream[StreamedItem](0)
        with receive:
            async with background(self._emit_to(send, begun), "streamed call") as emitting:
                async for item in receive:
                    data = procedure.output.from_json(item.body)
                    yield data if item.id is None else Tracked(item.id, data)  # type: ignore[misc]  # as it yielded it
                await emitting

    def _begun(self, path: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> OngoingCall:
        self._require_open()
        procedure = self._calls.registry.find(path)
        given, _ = procedure.handler.bind(args, kwargs)
        origin = replace(self._origin, exchange=Exchange())
        return OngoingCall(path, procedure, decode_input(path, procedure, given), self._ctx, origin)

    async def _emit_to(self, send: MemoryObjectSendStream[StreamedItem], call: OngoingCall) -> None:
        with send:
            await self._ongoing.stream_guarded(call, emit=send.send)

    async def call(
        self, path: str, procedure: AnyProcedure, given: object, *, files: Mapping[str, object] | None = None
    ) -> Any:
        """Call the `procedure` at `path` with what was `given`: a model, or `{field: value}`, and files by name."""
        self._require_open()
        input = decode_input(path, procedure, given)
        exchange = Exchange()
        origin = replace(self._origin, exchange=exchange)
        if procedure.kind == "mutation":
            uploaded = CallFiles(path, procedure.handler.files, files or {}) if procedure.handler.files else None
            done = await self._calls.mutate(path, procedure, input, self._ctx, origin=origin, files=uploaded)
            await run_after_commit(path, done.after)
            value = procedure.output.from_json(done.body)
            return value if exchange.returned is None else exchange.returned
        result = await self._calls.query(path, procedure, input, self._ctx, origin=origin)
        await run_after_commit(path, exchange.take_background())
        value = procedure.output.from_json(result.answer())
        return value if exchange.returned is None else exchange.returned


def current_caller() -> Caller:
    """Return a caller on behalf of whoever called the subscription, or the streamed query, that runs here.

        async for seats in current_caller().live(all_seats, free_only=True): ...

    It begins with the application's context, as the call did, and runs the steps of what it calls. Other handlers have
    none: a query's result may be others' too, and a mutation is one transaction, which its calls would not be part of.

    Raises:
        DefinitionError: no such handler is running here.
    """
    whose = running_on_behalf()
    if whose is None:
        raise DefinitionError(
            "current_caller() is for handlers that yield, which read what others write meanwhile. In another query or "
            "mutation call the decorated functions themselves, with its session; outside of a call write "
            "rpc.caller(ctx)"
        )
    return Caller(whose.calls, whose.ongoing, whose.ctx, require_open=lambda: None, origin=whose.origin)
