"""Reauthorization: asks of open streams again and again whether their callers may still listen (G4).

A stream keeps how its context was resolved and its steps were run, and that is done again now and then; at once, and
before anything more is sent, if a row changes that a step with a session has read. A refusal ends the stream with
`revoked`, be it the context's or, of each query, a step's; another context ends it so that the client resumes, as
whoever it is then; any other failure keeps it.
`docs/internals/subscriptions.md` says why, and how a caller is caught who is on the way in.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from reactive_rpc.cache.reader import Reader
from reactive_rpc.clock import Clock
from reactive_rpc.errors import RPCError, ServiceUnavailableError, reason_of
from reactive_rpc.procedures.resting import Resting
from reactive_rpc.procedures.rights import Rights
from reactive_rpc.protocol.events import Revoked
from reactive_rpc.statements.concealment import concealed
from reactive_rpc.subscriptions.hub import Hub
from reactive_rpc.subscriptions.stream import Stream
from reactive_rpc.tasks import background

__all__ = ["REFUSALS", "SEEN_BYTES", "UNDECIDED", "Reauthorization", "StreamView"]

logger = logging.getLogger(__name__)

LOOKS = 10
"""How often in one interval it is looked which streams are due."""

RECHECKS_AT_ONCE = 8

TIMEOUT_SECONDS = 10.0
"""How long one context may take."""

RETRY_SECONDS = 1.0
"""After how long a stream that is held is asked again, if it could not be."""

NEVER = -1
"""A version before all others: that of a stream whose right was overtaken before it could be watched."""

SEEN_BYTES = 16
UNDECIDED = bytes(SEEN_BYTES)

REFUSALS = frozenset({"UNAUTHORIZED", "FORBIDDEN"})


@dataclass(frozen=True, slots=True)
class StreamView:
    """What the caller of a stream may see.

    Attributes:
        seen: `SEEN_BYTES` for who it is, and as many for how each query is seen, in order; equal as long as nothing has
            changed, and `UNDECIDED` if that could not be found out.
        rights: the outcomes of steps that this rests on, watched.
        refusal: why whoever calls may see nothing of all that was asked for; None if that is not so.
    """

    seen: bytes
    rights: Rights
    refusal: str | None = None

    def differs_from(self, before: StreamView) -> bool:
        """Return whether anything is seen otherwise than before, as far as that was found out."""
        return any(now not in (then, UNDECIDED) for now, then in self._beside(before))

    def is_undecided(self, before: StreamView) -> bool:
        """Return whether it was not found out of something that was known before."""
        return any(now == UNDECIDED != then for now, then in self._beside(before))

    def _beside(self, before: StreamView) -> Iterator[tuple[bytes, bytes]]:
        return zip(_parts(self.seen), _parts(before.seen), strict=True)


class Reauthorization:
    """Rechecks the streams of a hub. Used on one event loop.

    Args:
        reader: tells when the outcome of a step may be another.
        recheck_seconds: a stream is asked at least this often, as far as its contexts are quick enough; 0 is never,
            unless somebody asks for it.

    Attributes:
        generation: moves on when everything that was resolved before is in doubt.
        rechecks: how many contexts were resolved again.
        failures: how many of them failed otherwise than by a refusal.
    """

    def __init__(self, hub: Hub, reader: Reader, *, clock: Clock, recheck_seconds: float) -> None:
        self.generation = 0
        self.rechecks = 0
        self.failures = 0
        self._hub = hub
        self._reader = reader
        self._held_at: dict[Stream, int] = {}
        self._retry_at = math.inf
        self._clock = clock
        self._seconds = recheck_seconds
        self._due_at: dict[str, float] = {}
        self._urgent: dict[Stream, None] = {}
        self._due: dict[Stream, None] = {}
        self._being_asked: set[Stream] = set()
        self._at_work = 0
        self._waits_until = math.inf
        self._wake: asyncio.Event | None = None
        hub.on_disconnect(self._disconnected)
        # INVARIANT (held in the step that drops an outcome): what that batch pushes to a stream waits in it, and leaves
        # only if the right to it is found again.
        self._resting = Resting(reader, self._on_invalidated)

    def counters(self) -> dict[str, float]:
        """Return the counters of `/metrics` that are kept here: `{name: value}`."""
        return {"rechecks": self.rechecks, "recheck_failures": self.failures}

    def admit(self, stream: Stream, view: StreamView, *, generation: int) -> None:
        """Look after a stream from now on; before anything is written to it.

        Args:
            view: what its caller may see, as found since `generation` was read.
        """
        self._rest(stream, view)
        if generation != self.generation and stream.recheck is not None:
            self._hold(stream)

    @contextmanager
    def watching(self) -> Iterator[Rights]:
        """Give what takes the outcomes of steps, watched, and let go of those that no stream rests on by the end."""
        # INVARIANT (on every way out: a refusal, a limit, a cancellation): an outcome that is watched for nobody would
        # stay in the index for ever, and each request adds what it likes.
        rights = Rights()
        try:
            yield rights
        finally:
            rights.let_go(self._reader)

    def recheck(self, stream: Stream) -> None:
        """Ask one stream again, soon."""
        self._due_at[stream.id] = self._clock.monotonic()
        self._look_now()

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
        async with asyncio.TaskGroup() as group:
            while True:
                await self._wait(wake)
                wake.clear()
                self._take_due()
                for _ in range(min(RECHECKS_AT_ONCE - self._at_work, len(self._urgent) + len(self._due))):
                    self._at_work += 1
                    group.create_task(self._recheck_each(), name="reactive_rpc recheck")

    def _take_due(self) -> None:
        """Queue the streams that are to be asked now and note when each is due next; forget those that have ended.

        One without a view is still on its way in, see `generation`.
        """
        now, time = self._clock.monotonic(), self._clock.time()
        due_at = {}
        for stream in self._hub.open_streams:
            if stream.recheck is None or stream.view is None or stream.closed:
                continue
            at = self._due_at.get(stream.id)
            if at is None:
                at = stream.opened_at + self._jittered(0.1)
            if _expiry_of(stream) <= time:
                self._hold(stream)
            if at <= now:
                self._due[stream] = None
                at = now + self._jittered(0.7)
            due_at[stream.id] = at
        self._due_at = due_at

    def _jittered(self, least: float) -> float:
        if not self._seconds:
            return float("inf")
        return self._seconds * random.uniform(least, 1 - 1 / LOOKS)  # noqa: S311  # jitter, no secret

    async def _recheck_each(self) -> None:
        failures: list[Exception] = []
        asked = 0
        try:
            while (stream := self._next()) is not None:
                asked += 1
                self._being_asked.add(stream)
                try:
                    await self._recheck(stream)
                except Exception as exc:  # whatever the application raises, but a refusal, the stream is kept
                    self.failures += 1
                    failures.append(exc)
                    if stream.is_held:
                        self._retry_at = min(self._retry_at, self._clock.monotonic() + RETRY_SECONDS)
                finally:
                    self._being_asked.discard(stream)
        finally:
            self._at_work -= 1
        if failures:
            self._look_now()  # at when to try again
            logger.warning(
                "%d of %d streams could not be rechecked and are kept, retrying: %s",
                len(failures), asked, reason_of(concealed(failures[0])),
            )  # fmt: skip

    def _next(self) -> Stream | None:
        """Return the stream to ask next: first those that are held, as their events wait; none that is being asked."""
        for waiting in (self._urgent, self._due):
            for stream in waiting:
                if stream not in self._being_asked:
                    del waiting[stream]
                    return stream
        return None

    async def _recheck(self, stream: Stream) -> None:
        if stream.recheck is None or stream.closed:
            return
        self.rechecks += 1
        with self.watching() as rights:
            try:
                async with asyncio.timeout(TIMEOUT_SECONDS):
                    view: StreamView = await stream.recheck(rights)
            except RPCError as exc:
                if exc.code not in REFUSALS:
                    raise
                self._hub.end(stream, Revoked(reason=exc.message))
                return
            self._on_found(stream, view)

    def _on_found(self, stream: Stream, view: StreamView) -> None:
        """Go on with a stream, or end it, by what its caller may see now.

        Raises:
            ServiceUnavailableError: that could not be found out of every query.
        """
        before = stream.view
        if stream.closed or not isinstance(before, StreamView):
            return
        if view.differs_from(before):
            stream.hold()  # what waits for a slow reader was pushed under the rights of before
            self._hub.end(stream, None if view.refusal is None else Revoked(reason=view.refusal))
            return
        if view.is_undecided(before):
            raise ServiceUnavailableError("a step could not tell whether the caller may still listen")
        # INVARIANT (what a call was answered meanwhile is invalidated): of two changes, the first may have taken a
        # right away that the second gave back. Somebody who was refused between them would keep that for ever.
        may_have_differed = not before.rights.hold and self._reader.matcher.touched_twice_since(
            self._held_at.get(stream, NEVER), (*before.rights.results, *view.rights.results)
        )
        self._resting.remove(stream, before.rights)
        self._rest(stream, view)
        if may_have_differed:
            self._hub.notify_stream(stream)

    def _rest(self, stream: Stream, view: StreamView) -> None:
        """Have a stream rest on a view: send to it while that holds, else ask again first."""
        # INVARIANT (no await in here): from the step that finds the outcomes live, each invalidation finds the stream.
        view = stream.view = replace(view, rights=view.rights.take())
        self._resting.add(stream, view.rights)
        if view.rights.hold:
            self._held_at.pop(stream, None)
            stream.release()
        else:
            self._hold(stream)
        if view.rights.expires_at < self._waits_until:
            self._look_now()

    def _hold(self, stream: Stream) -> None:
        """Send nothing more to a stream until its right is found again; ask for that before all others."""
        stream.hold()
        self._urgent[stream] = None
        self._look_now()

    def _look_now(self) -> None:
        if self._wake is not None:
            self._wake.set()

    def _disconnected(self, stream: Stream) -> None:
        self._urgent.pop(stream, None)
        self._due.pop(stream, None)
        self._held_at.pop(stream, None)
        if isinstance(stream.view, StreamView):
            self._resting.remove(stream, stream.view.rights)
            # INVARIANT (it has no view any more): a recheck that is under way must not have it rest on another.
            stream.view = None

    def _on_invalidated(self, stream: Stream) -> None:
        """Hold a stream that rests on an outcome which may be another now, and ask again."""
        self._held_at.setdefault(stream, self._reader.matcher.version)  # that of before this batch
        self._hold(stream)

    async def _wait(self, wake: asyncio.Event) -> None:
        """Wait until somebody asks for a recheck, a context expires, or for the next look."""
        seconds = self._seconds / LOOKS if self._seconds else math.inf
        time, now = self._clock.time(), self._clock.monotonic()
        expiry = min(map(_expiry_of, self._hub.open_streams), default=math.inf)
        seconds = max(0.0, min(seconds, expiry - time, self._retry_at - now))
        self._waits_until = expiry
        if seconds == math.inf:
            await wake.wait()
            return
        look = self._clock.sleep(seconds)
        async with background(wake.wait(), "recheck asked for") as asked, background(look, "recheck due") as due:
            await asyncio.wait({asked, due}, return_when=asyncio.FIRST_COMPLETED)
        if self._retry_at <= self._clock.monotonic():
            self._retry_at = math.inf
            for stream in self._hub.open_streams:
                if stream.is_held:
                    self._hold(stream)


def _expiry_of(stream: Stream) -> float:
    view = stream.view
    if not isinstance(view, StreamView) or stream.closed or stream.recheck is None or stream.is_held:
        return math.inf
    return view.rights.expires_at


def _parts(seen: bytes) -> Iterator[bytes]:
    return (seen[at : at + SEEN_BYTES] for at in range(0, len(seen), SEEN_BYTES))
