"""The relay: one reader of the database's outbox, which writes its changes into Redis for every worker.

A relay reads the outbox by an ordinary `PostgreSQLLog` and appends by compare and append (`backends/redis/stream.py`):
only if the stream ends where its batch begins. So nothing is lost or told wrongly, whoever writes; an election, by an
advisory lock of the database, only saves work. Questions are taken first, then the database is read, then the changes
and the report that answers the questions are appended by one script.

If anything goes wrong the term ends, is logged and stands in `status`, and another term begins.
docs/internals/redis.md argues all this.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, Literal, Protocol

from reactive_rpc.backends.redis.connection import PATIENCE_SECONDS
from reactive_rpc.backends.redis.stream import AppendRequest, RedisStream, Refusal
from reactive_rpc.changes.log import Batch, Log
from reactive_rpc.changes.wake_up import WakeUp
from reactive_rpc.clock import Clock, SystemClock
from reactive_rpc.dependencies.change import Change
from reactive_rpc.dependencies.lookup import Lookup
from reactive_rpc.errors import ServiceUnavailableError
from reactive_rpc.protocol.cursors import Cursor
from reactive_rpc.tasks import Tasks, background

__all__ = ["Feed", "Relay", "RelayStatus"]

REPORT_SECONDS: Final = 1.0
CANDIDATE_SECONDS: Final = 0.5
"""How often a candidate looks for a new report."""
SILENT_LOOKS: Final = 3
"""After so many looks without one it tries to get the lock."""
HOPELESS_LOOKS: Final = 9
"""After so many it leads although another holds the lock."""
FAILED_SECONDS: Final = 1.0
"""How long after a term that failed the next one begins."""
WAIT_SECONDS: Final = 2.0
CLEANING_SECONDS: Final = 2.0
RESUME_ATTEMPTS: Final = 20


class Lock(Protocol):
    """A lock that is held for as long as a connection stands."""

    def is_closed(self) -> bool:
        """Tell whether the connection, and the lock with it, is lost."""
        ...

    def terminate(self) -> None:
        """Let go of it at once."""
        ...


_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RelayStatus:
    """The state of a relay, for `/health`.

    Attributes:
        role: `candidate` waits for its turn, `leading` feeds Redis, `failing` will try again.
        since: when that began, by the clock.
        reason: why it fails; None where it does not.
    """

    role: Literal["candidate", "leading", "failing"]
    since: float
    reason: str | None = None


class Feed:
    """Appends a log's changes to the stream; as many as you like may feed one stream.

    Args:
        log: of the database, open; nobody else may read it to its head.
        stream: where to.
        claim: whether whoever else appends is to see the refusals of this one and give way.
        appended: where the stream ended when this process appended last; None where it never has.

    Attributes:
        has_changes: whether the last reading brought any.
        refusals: how often the stream ended elsewhere than this one believed.
    """

    def __init__(self, log: Log, stream: RedisStream, *, claim: bool = False, appended: Cursor | None = None) -> None:
        self._log = log
        self._stream = stream
        self._claim = claim
        self._claimed: bytes | None = None
        self._end: Cursor | None = None
        self._batches: list[Batch] = []
        self.appended = appended
        self.has_changes = False
        self.refusals = 0
        log.subscribe(self._batches.append)

    @property
    def is_contested(self) -> bool:
        """Whether another appended, or claimed to, since this one has appended first."""
        return self.refusals > 0 or self._claimed not in (None, self._stream.claimed)

    async def sync_to_head(self) -> None:
        """Look at the database, without telling anybody yet.

        Raises:
            ServiceUnavailableError: it cannot be read.
        """
        await self._log.sync_to_head()

    async def append(self, answered: Sequence[str] = (), *, must_report: bool = False) -> bool:
        """Append the changes that were read since the last call, and report; return whether there was a report.

        Args:
            answered: the questions that were taken before the last reading began.
            must_report: whether to report where nothing was found.

        Raises:
            ServiceUnavailableError: the database cannot be read, or others append all the time.
            redis.exceptions.RedisError: Redis does not do as it is told.
        """
        here = self._log.cursor_at(self._log.version)
        request = AppendRequest(
            here, self._schema_fingerprint, self._found(), restart=any(batch.flush for batch in self._batches)
        )
        self._batches.clear()
        self.has_changes = bool(request.changes)
        if self._end is None:
            await self._resume(await self._stream.end(), answered)
            return True
        if not (request.changes or request.restart or answered or must_report):
            return False
        refusal = await self._took(self._end, request, answered)
        if refusal is not None:
            self.refusals += 1
            await self._resume(refusal.end, answered)
        return True

    @property
    def _schema_fingerprint(self) -> str:
        return str(self._log.schema.schema_fingerprint)

    def _found(self) -> list[Change]:
        return [change for batch in self._batches for change in batch.changes]

    async def _resume(self, end: Cursor | None, answered: Sequence[str]) -> None:
        """Append the changes after `end`, wherever that is, and report."""
        for _ in range(RESUME_ATTEMPTS):
            refusal = await self._resume_at(end, answered)
            if refusal is None:
                return
            end = refusal.end
        raise ServiceUnavailableError("others append to the stream in Redis all the time")

    async def _resume_at(self, end: Cursor | None, answered: Sequence[str]) -> Refusal | None:
        await self._log.sync_to_head()
        if end is None:
            return await self._begin(answered)
        changes = await self._log.read_after(end)
        here, schema_fingerprint = self._log.cursor_at(self._log.version), self._schema_fingerprint
        self._batches.clear()
        if end.epoch == here.epoch and end.version > here.version:
            raise ServiceUnavailableError(
                f"Redis is at version {end.version}, and the database at {here.version} of the same epoch: it went back"
                " unnoticed. Delete the keys of the namespace, and restart everything that reads them"
            )
        is_there = end.epoch == here.epoch and end.version == here.version
        if changes is None and not is_there:
            _log.warning("the stream in Redis begins anew at %s: nothing tells what came after %s", here, end)
        missed = () if is_there or changes is None else changes  # a position may tell more than its version
        request = AppendRequest(here, schema_fingerprint, missed, restart=changes is None and not is_there)
        return await self._took(end, request, answered)

    async def _begin(self, answered: Sequence[str]) -> Refusal | None:
        """Begin the stream where this process has appended last, if the log reaches back so far, else at its end.

        In the first case later changes are still to be appended: that is what the refusal says.
        """
        known = self.appended
        if known is not None and await self._log.read_after(known) is not None:
            refusal = await self._took(None, AppendRequest(known, self._schema_fingerprint, restart=True), ())
            return refusal or Refusal(known)
        here = self._log.cursor_at(self._log.version)
        self._batches.clear()
        _log.info("the stream in Redis begins at %s", here)
        return await self._took(None, AppendRequest(here, self._schema_fingerprint, restart=True), answered)

    async def _took(self, end: Cursor | None, request: AppendRequest, answered: Sequence[str]) -> Refusal | None:
        """Append as requested and note where the stream ends then; where that is not known, nothing is noted."""
        self._end = None
        refusal = await self._stream.advance(end, request, answered, claim=self._claim)
        if refusal is None:
            self._end = self.appended = request.to
            if self._claimed is None:
                self._claimed = self._stream.claimed
        return refusal


class _Questions:
    """The reasons to read the database: questions, commits, and time.

    Args:
        stream: holds the questions.
        wake_up: of the log that is read whenever `taken` has returned.
        interval_seconds: how far apart reads are if nobody asks.
    """

    def __init__(self, stream: RedisStream, wake_up: WakeUp, interval_seconds: float) -> None:
        self._stream = stream
        self._wake_up = wake_up
        self._interval_seconds = interval_seconds
        self._is_armed = False
        self._tasks = Tasks(patience_seconds=PATIENCE_SECONDS)
        self._asking: asyncio.Task[list[str]] | None = None
        self._waiting: asyncio.Task[bool] | None = None

    async def taken(self, *, is_busy: bool) -> list[str]:
        """Return when there is a reason; with the questions, if it is that.

        Args:
            is_busy: whether the last reading brought changes: who writes without a pause is polled.
        """
        if self._asking is None:
            self._asking = self._tasks.start(
                self._stream.take_questions(WAIT_SECONDS), "relay questions", is_awaited=True
            )
        if self._is_armed:
            await self._wait_for_commit(self._asking)
        else:
            await self._wait_for_turn(self._asking, is_busy=is_busy)
        if not self._asking.done():
            return []
        asking, self._asking = self._asking, None
        return asking.result()

    async def _wait_for_turn(self, asking: asyncio.Task[list[str]], *, is_busy: bool) -> None:
        await self._wake_up.disarm()
        await asyncio.wait([asking], timeout=self._interval_seconds)
        # INVARIANT (the log is read after it was armed and before it waits): earlier commits wake nobody.
        self._is_armed = not is_busy and not asking.done() and await self._wake_up.arm()

    async def _wait_for_commit(self, asking: asyncio.Task[list[str]]) -> None:
        if self._waiting is None:
            self._waiting = self._tasks.start(self._wake_up.wait(), "relay wake-up", is_awaited=True)
        await asyncio.wait([asking, self._waiting], return_when=asyncio.FIRST_COMPLETED)
        if self._waiting.done():
            waiting, self._waiting = self._waiting, None
            self._is_armed = not waiting.result()

    async def aclose(self) -> None:
        """Ask nothing, wait for nothing; idempotent."""
        await self._tasks.aclose()


class WantedOfWorkers:
    """The virtual columns that the workers want, as Redis last told them; the relay's log asks for those of a table.

    Args:
        stream: where workers say so; the question "" says that somebody has.
    """

    def __init__(self, stream: RedisStream) -> None:
        self._stream = stream
        self._by_table: Mapping[str, Collection[Lookup]] = {}

    def of_table(self, table: str) -> Collection[Lookup]:
        """Return those of the rows of `table`."""
        return self._by_table.get(table, ())

    async def refresh(self) -> None:
        """Ask Redis.

        Raises:
            redis.exceptions.RedisError: Redis does not do as it is told.
        """
        self._by_table = await self._stream.wanted()


class Relay:
    """Feeds Redis for as long as it runs, or waits for its turn to.

    Args:
        make_log: makes the log of the database that a term reads, not open yet.
        make_stream: makes the stream that it writes.
        take_lock: asks for the lock by which relays take turns; None where another holds it.
        poll_interval_seconds: how far apart reads of the database are when nobody asks.
    """

    def __init__(
        self,
        make_log: Callable[[], Log],
        make_stream: Callable[[], RedisStream],
        take_lock: Callable[[], Awaitable[Lock | None]],
        *,
        poll_interval_seconds: float = 0.005,
        clock: Clock | None = None,
    ) -> None:
        self._make_log = make_log
        self._make_stream = make_stream
        self._take_lock = take_lock
        self._poll_interval_seconds = poll_interval_seconds
        self._clock = clock or SystemClock()
        self._appended: Cursor | None = None
        self.status = RelayStatus("candidate", self._clock.monotonic())

    async def run(self) -> None:
        """Take one term after another, until cancelled."""
        async with background(self._take_terms(), "relay terms", patience_seconds=CLEANING_SECONDS) as terms:
            await asyncio.wait([terms])

    async def _take_terms(self) -> None:
        while True:
            try:
                await self._take_turn()
            except Exception as exc:
                if self._become("failing", str(exc) or type(exc).__name__):
                    _log.exception("the relay failed and begins again")
                await self._clock.sleep(FAILED_SECONDS)

    def _become(self, role: Literal["candidate", "leading", "failing"], reason: str | None = None) -> bool:
        """Note what the relay does; return whether that is news."""
        if (role, reason) == (self.status.role, self.status.reason):
            return False
        self.status = RelayStatus(role, self._clock.monotonic(), reason)
        return True

    async def _take_turn(self) -> None:
        """Wait for the lock, or for a long silence, and lead."""
        async with self._stream() as stream:
            lock = await self._wait_for_turn(stream)
            try:
                await self._lead(stream, lock)
            finally:
                if lock is not None:
                    lock.terminate()

    async def _wait_for_turn(self, stream: RedisStream) -> Lock | None:
        """Return the connection that holds the lock; None where whoever holds it does not report."""
        last: bytes | None = None
        silent = SILENT_LOOKS  # whoever has just come tries at once
        while True:
            if silent >= SILENT_LOOKS and (lock := await self._take_lock()) is not None:
                return lock
            if silent >= HOPELESS_LOOKS:
                _log.warning("the relay that holds the lock does not report: leading without it")
                return None
            self._become("candidate")
            await self._clock.sleep(CANDIDATE_SECONDS)
            report = await stream.last_report()
            found = None if report is None else report.id
            silent = silent + 1 if found == last else 0
            last = found

    async def _lead(self, stream: RedisStream, lock: Lock | None) -> None:
        """Feed the stream until something goes wrong, or, without the lock, until it is contested."""
        log = self._make_log()
        try:
            await log.open()
            wanted = WantedOfWorkers(stream)
            await wanted.refresh()
            log.enrich_with(wanted.of_table)
            feed = Feed(log, stream, claim=lock is not None, appended=self._appended)
            questions = _Questions(stream, log.wake_up, self._poll_interval_seconds)
            try:
                reported_at = float("-inf")
                while lock is not None or not feed.is_contested:
                    answered = await questions.taken(is_busy=feed.has_changes)
                    is_due = self._clock.monotonic() - reported_at >= REPORT_SECONDS
                    if is_due or "" in answered:
                        await wanted.refresh()
                    # INVARIANT (questions are taken before the database is read): an answer speaks of a later read.
                    await feed.sync_to_head()
                    if await feed.append(answered, must_report=is_due):
                        reported_at = self._clock.monotonic()
                        self._appended = feed.appended
                        self._become("leading")
                    if lock is not None and lock.is_closed():
                        raise ServiceUnavailableError("the connection that holds the relay's lock was lost")
            finally:
                await questions.aclose()
        finally:
            await log.aclose()

    @asynccontextmanager
    async def _stream(self) -> AsyncIterator[RedisStream]:
        stream = self._make_stream()
        try:
            yield stream
        finally:
            await stream.aclose()
