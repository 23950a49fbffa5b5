"""`after_commit`: what a mutation leaves to be done once its transaction is committed."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterable
from functools import partial
from typing import ParamSpec

from reactive_rpc.errors import DefinitionError, InternalServerError
from reactive_rpc.procedures.running_call import AfterCommit, current_call
from reactive_rpc.statements.concealment import concealed

__all__ = ["after_commit", "run_after_commit"]

logger = logging.getLogger(__name__)

P = ParamSpec("P")


def after_commit(function: Callable[P, object], /, *args: P.args, **kwargs: P.kwargs) -> None:
    """Call a function once the running mutation is committed and answered; not at all if it is rolled back.

        after_commit(mailer.send, ctx.identity, subject="your seat")

    It is called once, however often the handler was tried, in this process, outside of any transaction; a coroutine is
    awaited. If it fails, that is logged: the caller has been answered. For something that must survive a crash, write a
    row.

    Args:
        function: what is called, with the `args` and `kwargs` that follow.

    Raises:
        DefinitionError: no function was given.
        InternalServerError: no mutation is running here.
    """
    if not callable(function):
        raise DefinitionError(f"after_commit({function!r}): give the function and its arguments, not its result")
    call = current_call()
    if call is None or call.kind != "mutation":
        raise InternalServerError("after_commit(...) is for mutations: nothing is running here that could commit")
    call.after_commit.append(partial(function, *args, **kwargs))


async def run_after_commit(path: str, work: Iterable[AfterCommit]) -> None:
    """Do what a mutation has left, in order; a failure is logged."""
    for each in work:
        try:
            done = each()
            if inspect.isawaitable(done):
                await done
        except Exception as exc:
            logger.error("%s: work after its commit failed", path, exc_info=concealed(exc))
