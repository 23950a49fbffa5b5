"""The error boundary: whatever a handler raises is an error of this one call.

The event loop acts on some exceptions that a handler may let through without meaning it: the `CancelledError` of a task
that the handler awaited would pass for the cancellation of the request, and of all who wait for the same result; a
library's `SystemExit` would end the server. A real cancellation, and Ctrl-C, pass the boundary unchanged.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress

__all__ = ["error_boundary"]


@contextmanager
def error_boundary(name: str) -> Iterator[None]:
    """Turn a `BaseException` of the handler into a `RuntimeError`.

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
