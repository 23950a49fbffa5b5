"""Containment: whatever a handler raises is an error of this one call.

Some exceptions mean something to the event loop, and not what a handler meant that let them through: a `CancelledError`
of a task that it had awaited would pass for the cancellation of the request, and of all who wait for the same result;
a `SystemExit` of a library would end the server. A real cancellation, and Ctrl-C, go on as they are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress

__all__ = ["contained"]


@contextmanager
def contained(name: str) -> Iterator[None]:
    """Turn what is no `Exception` into one.

    Raises:
        RuntimeError: the handler of this name raised it by itself.
    """
    try:
        yield
    except (Exception, KeyboardInterrupt):
        raise
    except BaseException as exc:
        if isinstance(exc, asyncio.CancelledError) and _is_cancelled():
            raise
        hint = ", as something that it awaited was cancelled" if isinstance(exc, asyncio.CancelledError) else ""
        raise RuntimeError(f"{name} raised {exc!r} by itself{hint}: catch it in the handler") from exc


def _is_cancelled() -> bool:
    """Tell whether somebody asked for the end of this very task; in a thread nobody can."""
    with suppress(RuntimeError):
        task = asyncio.current_task()
        return task is not None and task.cancelling() > 0
    return False
