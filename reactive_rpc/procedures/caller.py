"""The caller: procedures as typed calls in this process, on behalf of one context."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar, overload

from reactive_rpc.procedures.after_commit import run_after_commit
from reactive_rpc.procedures.call import decode_input
from reactive_rpc.procedures.calls import Calls
from reactive_rpc.procedures.dependencies import Overrides
from reactive_rpc.procedures.exchange import Exchange
from reactive_rpc.procedures.procedure import AnyProcedure, Mutation, Query
from reactive_rpc.procedures.steps import CallOrigin
from reactive_rpc.procedures.uploads import CallFiles

__all__ = ["Caller"]

P = ParamSpec("P")
R = TypeVar("R")


class Caller:
    """Calls procedures as the server does, with steps and wrappers: `await call(agents.get_one, agent_id="a1")`.

    Args:
        calls: makes them.
        ctx: the application's context, on whose behalf.
        overrides: `{function: the one that is called in its place}`: dependencies of handlers, and steps.
        require_open: raises if nothing can be called.
    """

    def __init__(
        self, calls: Calls, ctx: object, *, require_open: Callable[[], None], overrides: Overrides | None = None
    ) -> None:
        self._overrides = overrides or {}
        self._calls = calls
        self._ctx = ctx
        self._require_open = require_open

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
        procedure = self._calls.registry.find(path)
        given, files = procedure.handler.bind(args, kwargs)
        return await self.call(path, procedure, given, files=files)

    async def call(
        self, path: str, procedure: AnyProcedure, given: object, *, files: Mapping[str, object] | None = None
    ) -> Any:
        """Call the `procedure` at `path` with what was `given`: a model, or `{field: value}`, and files by name."""
        self._require_open()
        input = decode_input(path, procedure, given)
        exchange = Exchange()
        origin = CallOrigin("local", exchange=exchange, overrides=self._overrides)
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
