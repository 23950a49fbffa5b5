"""Reauthorization: asks of open streams again and again whether their callers may still listen (G4).

A stream keeps how its context was resolved, and it is resolved again now and then. A refusal ends the stream with
`revoked`; another context ends it so that the client resumes, in its new scope; any other failure keeps it.
`docs/internals/subscriptions.md` says why, and how a caller is caught who is on the way in.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Iterator, Sequence

from reactive_rpc.clock import Clock
from reactive_rpc.errors import RPCError, reason_of
from reactive_rpc.protocol.events import Revoked
from reactive_rpc.statements.concealment import concealed
from reactive_rpc.subscriptions.hub import Hub
from reactive_rpc.subscriptions.stream import Stream
from reactive_rpc.tasks import background

__all__ = ["Reauthorization"]

logger = logging.getLogger(__name__)

LOOKS = 10
"""How often in one interval it is looked which streams are due."""

RECHECKS_AT_ONCE = 8

TIMEOUT_SECONDS = 10.0
"""How long one context may take."""

REFUSALS = frozenset({"UNAUTHORIZED", "FORBIDDEN"})


class Reauthorization:
    """Rechecks the streams of a hub. Used on one event loop.

    Args:
        recheck_seconds: a stream is asked at least this often, as far as its contexts are quick enough; 0 is never,
            unless somebody asks for it.

    Attributes:
        generation: moves on when everything that was resolved before is in doubt.
        rechecks: how many contexts were resolved again.
        failures: how many of them failed otherwise than by a refusal.
    """

    def __init__(self, hub: Hub, *, clock: Clock, recheck_seconds: float) -> None:
        self.generation = 0
        self.rechecks = 0
        self.failures = 0
        self._hub = hub
        self._clock = clock
        self._seconds = recheck_seconds
        self._due_at: dict[str, float] = {}
        self._wake: asyncio.Event | None = None

    def counters(self) -> dict[str, float]:
        """Return the counters of `/metrics` that are kept here: `{name: value}`."""
        return {"rechecks": self.rechecks, "recheck_failures": self.failures}

    def recheck(self, stream: Stream) -> None:
        """Ask one stream again, soon."""
        self._due_at[stream.id] = self._clock.monotonic()
        if self._wake is not None:
            self._wake.set()

    def recheck_all(self) -> None:
        """Ask every stream again, soon; those on their way in too."""
        self.recheck_openings()
        for stream in self._hub.open_streams:
            self.recheck(stream)

    def recheck_openings(self) -> None:
        """Ask the streams again, once they are open, that are on their way in: somebody's rights were taken away."""
        self.generation += 1

    async def run(self) -> None:
        """Recheck until cancelled."""
        wake = self._wake = asyncio.Event()
        while True:
            await self._wait(wake)
            wake.clear()
            await self._recheck_due(self._take_due())

    def _take_due(self) -> list[Stream]:
        """Return the streams to be asked now and note when each is due next; forget those that have ended.

        One without a context is still on its way in, see `generation`.
        """
        now = self._clock.monotonic()
        due = []
        due_at = {}
        for stream in self._hub.open_streams:
            if stream.recheck is None or stream.context is None or stream.closed:
                continue
            at = self._due_at.get(stream.id)
            if at is None:
                at = stream.opened_at + self._jittered(0.1)
            if at <= now:
                due.append(stream)
                at = now + self._jittered(0.7)
            due_at[stream.id] = at
        self._due_at = due_at
        return due

    def _jittered(self, least: float) -> float:
        if not self._seconds:
            return float("inf")
        return self._seconds * random.uniform(least, 1 - 1 / LOOKS)  # noqa: S311  # jitter, no secret

    async def _recheck_due(self, streams: Sequence[Stream]) -> None:
        remaining = iter(streams)
        failures: list[Exception] = []
        async with asyncio.TaskGroup() as group:
            for _ in range(min(RECHECKS_AT_ONCE, len(streams))):
                group.create_task(self._recheck_each(remaining, failures), name="reactive_rpc recheck")
        if failures:
            logger.warning(
                "%d of %d streams could not be rechecked and are kept, retrying: %s",
                len(failures), len(streams), reason_of(concealed(failures[0])),
            )  # fmt: skip

    async def _recheck_each(self, streams: Iterator[Stream], failures: list[Exception]) -> None:
        for stream in streams:
            try:
                await self._recheck(stream)
            except Exception as exc:
                self.failures += 1
                failures.append(exc)

    async def _recheck(self, stream: Stream) -> None:
        if stream.recheck is None or stream.closed:
            return
        self.rechecks += 1
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                context = await stream.recheck()
        except RPCError as exc:
            if exc.code not in REFUSALS:
                raise
            self._hub.end(stream, Revoked(reason=exc.message))
            return
        if context != stream.context:
            self._hub.end(stream)

    async def _wait(self, wake: asyncio.Event) -> None:
        """Wait until somebody asks for a recheck, or for the next look."""
        if not self._seconds:
            await wake.wait()
            return
        look = self._clock.sleep(self._seconds / LOOKS)
        async with background(wake.wait(), "recheck asked for") as asked, background(look, "recheck due") as due:
            await asyncio.wait({asked, due}, return_when=asyncio.FIRST_COMPLETED)
