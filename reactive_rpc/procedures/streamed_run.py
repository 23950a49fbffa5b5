"""One run of a handler that yields: its values, encoded one by one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncSession

from reactive_rpc.errors import InternalServerError
from reactive_rpc.procedures.context import Context
from reactive_rpc.procedures.encoding import encode_output
from reactive_rpc.procedures.error_boundary import error_boundary
from reactive_rpc.procedures.procedure import AnyProcedure
from reactive_rpc.procedures.solving import NOTHING_MADE, CallDependencies
from reactive_rpc.procedures.streamed import StreamedItem, Tracked

__all__ = ["Emit", "StreamedRun"]

Emit = Callable[[StreamedItem], Awaitable[None]]
"""Takes a value, and may wait for whoever is to have it."""


@dataclass(frozen=True, slots=True)
class StreamedRun:
    """A handler that yields, with all that it gets beside a session."""

    procedure: AnyProcedure
    input: BaseModel | None
    ctx: Context | None
    dependencies: CallDependencies | None

    async def emit_all(
        self, session: AsyncSession | None, emit: Emit, translating_errors: Callable[[], AbstractContextManager[None]]
    ) -> None:
        """Run the handler, and give each value to `emit`.

        Args:
            session: of the handler; None if it takes none.
            emit: is given the values.
            translating_errors: turns what a handler may raise beside `RPCError` into one.
        """
        procedure, dependencies = self.procedure, self.dependencies
        arguments = procedure.handler.arguments(session, self.ctx, self.input)
        async with NOTHING_MADE if dependencies is None else dependencies.solved(session) as made:
            values = procedure.function(**arguments, **made)
            try:
                while True:
                    with translating_errors(), error_boundary(procedure.name):
                        try:
                            value = await anext(values)
                        except StopAsyncIteration:
                            return
                    await emit(await _encoded_item(procedure, value, session))
            finally:
                await values.aclose()


async def _encoded_item(procedure: AnyProcedure, value: object, session: AsyncSession | None) -> StreamedItem:
    id, data = (value.id, value.data) if isinstance(value, Tracked) else (None, value)
    if (id is not None) != procedure.handler.has_ids:
        says = "tracked(id, data)" if procedure.handler.has_ids else "values without ids"
        raise InternalServerError(f"{procedure.name} says that it yields {says}, and yielded a {type(value).__name__}")
    if session is None:
        return StreamedItem(encode_output(procedure, data), id)
    return StreamedItem(await session.run_sync(lambda _: encode_output(procedure, data)), id)
