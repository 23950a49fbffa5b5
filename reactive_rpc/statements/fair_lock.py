"""A lock that threads and coroutines take in the order in which they ask for it."""

from __future__ import annotations

import asyncio
from collections import deque
from concurrent.futures import Future
from threading import Lock
from types import TracebackType

from sqlalchemy.exc import TimeoutError as PoolTimeoutError

__all__ = ["FairLock"]


class FairLock:
    """Held by one thread or coroutine at a time; a context manager for either.

    Whoever releases it hands it to the one that has waited longest: nobody who comes later can be quicker.

    Args:
        timeout_seconds: how long anybody waits.

    Raises:
        sqlalchemy.exc.TimeoutError: upon entry, it did not come free in time; as a pool's connection that does not.
    """

    def __init__(self, timeout_seconds: float) -> None:
        self._timeout_seconds = timeout_seconds
        self._guard = Lock()
        self._waiting: deque[Future[None]] = deque()
        self._is_held = False

    def __enter__(self) -> None:
        turn = self._ask()
        if turn is None:
            return
        try:
            turn.result(self._timeout_seconds)
        except TimeoutError as exc:
            self._give_up(turn)
            raise self._late() from exc
        except BaseException:
            self._give_up(turn)
            raise

    async def __aenter__(self) -> None:
        turn = self._ask()
        if turn is None:
            return
        try:
            async with asyncio.timeout(self._timeout_seconds):
                await asyncio.wrap_future(turn)
        except TimeoutError as exc:
            self._give_up(turn)
            raise self._late() from exc
        except BaseException:
            self._give_up(turn)
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._hand_on()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._hand_on()

    def _ask(self) -> Future[None] | None:
        """Take the lock, if it is free; else return a future that has a result once it is ours."""
        with self._guard:
            if self._is_held:
                turn: Future[None] = Future()
                self._waiting.append(turn)
                return turn
            self._is_held = True
            return None

    def _hand_on(self) -> None:
        """Hand the lock to the next who still waits."""
        with self._guard:
            while self._waiting:
                turn = self._waiting.popleft()
                if turn.set_running_or_notify_cancel():
                    turn.set_result(None)
                    return
            self._is_held = False

    def _give_up(self, turn: Future[None]) -> None:
        # INVARIANT (asked by the future itself): either it is cancelled, and passed over, or the lock is ours by now.
        if not turn.cancel():
            self._hand_on()

    def _late(self) -> PoolTimeoutError:
        return PoolTimeoutError(f"others have kept the lock for {self._timeout_seconds} s")
