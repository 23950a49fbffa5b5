"""Wait for a condition: the only pauses of a given time that tests make, which `tests/checks/test_sleeps.py` holds."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable

__all__ = ["became", "became_true", "forever", "idle", "idle_thread", "until", "wait_until"]

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
    if not await became(holds, within_seconds=within_seconds):
        raise AssertionError(_said(fault))


def wait_until(
    holds: Callable[[], object],
    fault: Fault = NEVER,
    *,
    within_seconds: float = DEADLINE_SECONDS,
    every_seconds: float = PAUSE_SECONDS,
) -> None:
    """Block this thread until `holds()` is true; it is asked again and again, `every_seconds`.

    Raises:
        AssertionError: it never was.
    """
    if not became_true(holds, within_seconds=within_seconds, every_seconds=every_seconds):
        raise AssertionError(_said(fault))


async def became(holds: Callable[[], object], *, within_seconds: float) -> bool:
    """Wait as `until` does; return whether it came true, for a test that reports what did not."""
    give_up_at = time.monotonic() + within_seconds
    while not await _result_of(holds):
        if time.monotonic() > give_up_at:
            return False
        await asyncio.sleep(PAUSE_SECONDS)
    return True


def became_true(holds: Callable[[], object], *, within_seconds: float, every_seconds: float = PAUSE_SECONDS) -> bool:
    """Wait as `wait_until` does; return whether it came true, for a test that reports what did not."""
    give_up_at = time.monotonic() + within_seconds
    while not holds():
        if time.monotonic() > give_up_at:
            return False
        time.sleep(every_seconds)
    return True


async def idle(seconds: float, *, because: str) -> None:
    """Let time itself pass, and the event loop run: only if there is no condition to wait for, for the reason given."""
    assert because
    await asyncio.sleep(seconds)


def idle_thread(seconds: float, *, because: str) -> None:
    """Let time itself pass in this thread: only if there is no condition to wait for, for the reason given."""
    assert because
    time.sleep(seconds)


async def forever() -> None:
    """Wait until cancelled."""
    await asyncio.Event().wait()


async def _result_of(holds: Callable[[], object]) -> object:
    result = holds()
    return await result if inspect.isawaitable(result) else result


def _said(fault: Fault) -> str:
    return fault if isinstance(fault, str) else fault()
