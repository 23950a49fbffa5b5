"""Pruning: forgets changes and answers that nobody can ask for any more."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from reactive_rpc.changes.answers import Answers
from reactive_rpc.changes.capture_backend import CaptureBackend
from reactive_rpc.clock import Clock
from reactive_rpc.statements.database import Database

__all__ = ["Pruner"]

logger = logging.getLogger(__name__)

PRUNE_EVERY_SECONDS: Final = 60.0


class Pruner:
    """Prunes in intervals.

    Args:
        capture: whose outbox is pruned.
        database: holds `answers`.
        answers: of mutations; None if none are kept.
        clock: waits.
        retention_seconds: how far back changes are kept.
        is_due: whether it is this process's turn: of those that share an outbox, one prunes it.
    """

    def __init__(
        self,
        capture: CaptureBackend,
        database: Database,
        *,
        answers: Answers | None,
        clock: Clock,
        retention_seconds: float,
        is_due: Callable[[], bool],
    ) -> None:
        self._capture = capture
        self._database = database
        self._answers = answers
        self._clock = clock
        self._retention_seconds = retention_seconds
        self._is_due = is_due

    async def run(self) -> None:
        """Prune until cancelled; outlive any failure, loudly."""
        while True:
            await self._clock.sleep(PRUNE_EVERY_SECONDS)
            if not self._is_due():
                continue
            try:
                await asyncio.to_thread(self._capture.prune, self._retention_seconds)
                if self._answers is not None:
                    await self._database.work(self._answers.prune)
            except Exception:
                logger.exception("what is kept of writes could not be pruned, retrying later")
