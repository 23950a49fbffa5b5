"""Context isolation: a handler whose result is shared sees no ambient values of the caller who asked first.

The cache keys a result by path, input and the context that its handler gets. A `ContextVar` that a middleware sets, or
a `threading.local` that a dependency sets, is in no key: a handler that read it would give one caller's rows to the
next. So a query runs in a `contextvars.Context` of its own, and a sync handler in a thread of its own: such a read
finds nothing there, and fails. Two things are copied into them: the running call, and OpenTelemetry's current span
(not its baggage, which may name a user).
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from contextvars import Context, ContextVar, copy_context
from functools import partial
from threading import Thread, local
from typing import TypeVar

from anyio import CancelScope

from reactive_rpc.compat.concurrency import worker_thread
from reactive_rpc.procedures.running_call import enter_current_call

__all__ = ["hidden_read", "in_own_thread", "isolated_context"]

T = TypeVar("T")


def isolated_context() -> Context:
    """Return a new context for a handler: it holds the call and the span that are current here, nothing else."""
    context = Context()
    enter_current_call(context)
    _copy_span(context)
    return context


async def in_own_thread(work: Callable[[], T]) -> T:
    """Run `work` in a new thread, in a copy of this context; one who is cancelled leaves it to end by itself.

    A pool's threads would keep what a dependency, or the handler of another call, has set in a `threading.local`. A
    thread of one's own costs about 20 us more.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()
    with CancelScope() as scope:
        run = partial(_run, loop, future, scope, partial(copy_context().run, work))
        Thread(target=run, name="reactive_rpc handler", daemon=True).start()
        await future
    return future.result()


def hidden_read(error: BaseException) -> str | None:
    """Tell which read led to `error`, where it was one of something that is hidden from a query; None if it was not."""
    cause: BaseException | None = error
    while cause is not None:
        if type(cause) is LookupError and cause.args and isinstance(cause.args[0], ContextVar):
            return f"the ContextVar {cause.args[0].name!r}"
        if isinstance(cause, AttributeError) and isinstance(cause.obj, local):
            return f"{cause.name!r} of a threading.local"
        cause = cause.__cause__ or cause.__context__
    return None


def _run(loop: asyncio.AbstractEventLoop, future: asyncio.Future[T], scope: CancelScope, work: Callable[[], T]) -> None:
    try:
        with worker_thread(loop, scope):
            resolve = partial(_succeed, future, work())
    except BaseException as exc:  # whatever the handler raises is for whoever waits, and not for this thread
        resolve = partial(_fail, future, exc)
    if not loop.is_closed():
        loop.call_soon_threadsafe(resolve)


def _succeed(future: asyncio.Future[T], result: T) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: asyncio.Future[T], error: BaseException) -> None:
    if future.done():
        return
    if isinstance(error, StopIteration):  # no future can hold it
        error = RuntimeError(f"the handler raised {error!r}")
    future.set_exception(error)


def _copy_span(context: Context) -> None:
    """Let what a computation traces belong to the call that asked for it, where the application traces at all."""
    if "opentelemetry.trace" not in sys.modules:
        return
    from opentelemetry import context as telemetry  # noqa: PLC0415  # not installed with us
    from opentelemetry import trace  # noqa: PLC0415

    span = trace.get_current_span()
    if span is not trace.INVALID_SPAN:
        context.run(telemetry.attach, trace.set_span_in_context(span, telemetry.Context()))
