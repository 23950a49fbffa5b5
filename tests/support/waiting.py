"""Wait for a condition: the only pauses of a given time that tests make."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable

__all__ = ["until", "wait_until"]

DEADLINE_SECONDS = 120.0
"""How long anything may take on a machine that does other work too."""

PAUSE_SECONDS = 0.002

NEVER = "the condition never came true"

Fault = str | Callable[[], str]
"""What the error says; a function is called when the time is up."""


async def until(holds: Callable[[], object], fault: Fault = NEVER, *, within_seconds: float = DEADLINE_SECONDS) -> None:
    """Let the event loop run until `holds()` is true; if it returns an awaitable, the result of that counts.

    Raises:
        AssertionError: it never was.
    """
    give_up_at = time.monotonic() + within_seconds
    while not await _result_of(holds):
        _check(give_up_at, fault)
        await asyncio.sleep(PAUSE_SECONDS)


def wait_until(holds: Callable[[], object], fault: Fault = NEVER, *, within_seconds: float = DEADLINE_SECONDS) -> None:
    """Block this thread until `holds()` is true.

    Raises:
        AssertionError: it never was.
    """
    give_up_at = time.monotonic() + within_seconds
    while not holds():
        _check(give_up_at, fault)
        time.sleep(PAUSE_SECONDS)


async def _result_of(holds: Callable[[], object]) -> object:
    result = holds()
    return await result if inspect.isawaitable(result) else result


def _check(give_up_at: float, fault: Fault) -> None:
    if time.monotonic() > give_up_at:
        raise AssertionError(fault if isinstance(fault, str) else fault())
