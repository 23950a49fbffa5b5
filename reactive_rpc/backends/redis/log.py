"""The log of a PostgreSQL database read from Redis, where one relay (`backends/redis/relay.py`) writes it for all.

Keys, entries and reports are those of `backends/redis/stream.py`. Versions are the database's own, so where this log
stands means the same whatever happens to Redis: everything that the snapshot of that version shows has been applied
here.

**Reports lead.** This log waits for reports only. One says that the stream has come to `top` and the database to
`version`, with nothing captured between the two. So first all entries up to `top` are applied, each only if it joins on
to where we stand, and only then does the version become the report's. Where entries are missing there is a flush, never
silence: a report that cannot be followed entry by entry is the reason for one. Reports may be missed (each holds all
that the one before held), come late, or come from a copy of Redis that has gone back: one that knows less than we do
moves nothing. Their ids may go back with Redis, so after a pause the last of them is read again, whatever its id.

**A barrier is promise 1.** `fresh` writes a question into Redis. A relay takes it out, and *then* looks at the
database, and only a report of what that look showed, or of a later one, names the question. A commit acknowledged
before `fresh` was called is visible to any look begun after it, so once that report has been followed, the commit has
been applied. Questions are random names that nobody uses twice: no report written for another, or before a fail-over,
can pass for the answer. One barrier is under way at a time; whoever asks meanwhile shares the next. A question may get
lost with the relay that took it, so it is asked again until it is answered, or its time is over.

**The version is promise 2**: it was read from a snapshot of the primary.

**Schema.** A relay decodes changes by the schema of the snapshot that shows them. Where a report names another one than
ours, capture looks again, before anything of it is applied: our schema is then that one or a later one. Images of an
earlier one may hold values in a form that we do not compare by any more, so their tables count as a whole.

**Epoch.** A report of another epoch than ours is followed only if our own database says that this is its epoch now. So
what is relayed of another database, by a mistake in a namespace or a URL, can neither move us nor answer for ours.

**Images lack virtual columns.** The relay cannot know what the entries of every worker rest on, and here it is too late
to read parents in the snapshot of the change. A column that an image lacks is unknown and matches every condition: too
wide, and right.

Rejected: consumer groups (every worker needs every entry, and keeps its own place), publish and subscribe (a subscriber
that is away for a moment misses what it cannot know of), blocking on the stream of entries too (a report wakes us for
each of them, and a stream that was begun anew may never have an id past ours).
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Collection, Sequence
from typing import Final

from reactive_rpc.backends.redis.connection import PATIENCE_SECONDS
from reactive_rpc.backends.redis.stream import FAULTS, RedisStream, RelayReport, StreamEntry
from reactive_rpc.changes.barrier import Barrier
from reactive_rpc.changes.base_log import DEFAULT_LIMITS, BaseLog, LogLimits
from reactive_rpc.changes.capture_backend import CaptureBackend
from reactive_rpc.changes.captured_schema import CaptureState
from reactive_rpc.changes.log import Batch, WantedLookups
from reactive_rpc.dependencies.change import Change
from reactive_rpc.errors import ServiceUnavailableError
from reactive_rpc.protocol.cursors import Cursor
from reactive_rpc.tasks import Tasks, background, end_task

__all__ = ["NO_RELAY", "UNREACHABLE", "RedisLog"]

ASK_AGAIN_SECONDS: Final = 0.25
SILENCE_SECONDS: Final = 3.0
"""A relay reports every second: after so long without a report there is none."""
OPEN_SECONDS: Final = 15.0
"""So long a relay may take to be elected when everything starts at once."""
RETRY_SECONDS: Final = 0.2

UNREACHABLE: Final = "Redis cannot be reached: try again later"
"""What callers are told; the cause is chained, for the log."""
NOT_FOLLOWED: Final = "the changes of the database cannot be followed: try again later"
FOREIGN: Final = (
    "what is relayed is another database: give each database a namespace of its own (REACTIVE_RPC_REDIS_NAMESPACE), and"
    " a relay that has the same URL of the database as its workers"
)
NO_RELAY: Final = "no relay has answered through Redis: is one running (Settings.relay, or `reactive-rpc relay`)?"

_log = logging.getLogger(__name__)


class RedisLog(BaseLog):
    """The changes of one PostgreSQL database, as a relay tells them in Redis; a `Log`. Used on one event loop.

    Args:
        capture: of the database; it is asked for the schema, not for changes.
        stream: where the relay writes; `aclose` closes its connections, and it connects again when it is used again.
        limits: those of this log; a question to the relay may take as long as it may wait.
    """

    def __init__(self, capture: CaptureBackend, stream: RedisStream, limits: LogLimits = DEFAULT_LIMITS) -> None:
        super().__init__(limits)
        self._capture = capture
        self._stream = stream
        self._epoch: str | None = None
        self._top = 0
        self._asked_about: tuple[str, str] | None = None
        self._trouble: str | None = None
        self._tasks = Tasks()
        self._follower: asyncio.Task[None] | None = None
        self._question: str | None = None
        self._answer: asyncio.Future[None] | None = None
        self._barrier = Barrier(self._ask_relay, "barrier")

    @property
    def epoch(self) -> str:
        """Within an epoch versions can be compared.

        Raises:
            ServiceUnavailableError: the log is not open.
        """
        if self._epoch is None:
            raise ServiceUnavailableError("the log is not open: await open() first")
        return self._epoch

    @property
    def trouble(self) -> str | None:
        """What keeps this log from following the database: Redis or the relay; None where nothing does."""
        return self._trouble

    def enrich_with(self, wanted: WantedLookups) -> None:
        """Do nothing: what comes from Redis has no virtual columns, so each of them counts as unknown."""

    async def open(self) -> None:
        """Install (or, where capture does not manage the schema, verify) and stand where the relay is; idempotent.

        Raises:
            CaptureError: nothing can be captured, with the way out.
            ServiceUnavailableError: the database or Redis cannot be reached, or no relay answers.
        """
        if self._state is not None:
            return
        self._state = await asyncio.to_thread(self._capture.install)
        self._follower = self._tasks.start(self._follow(), "redis log")
        try:
            await self._fresh_within(OPEN_SECONDS)
        except BaseException:
            await self.aclose()
            raise

    async def aclose(self) -> None:
        """Let go of Redis; idempotent. The log can be opened again."""
        self._state, self._epoch = None, None
        self._refuse("the log was closed")
        follower, self._follower = self._follower, None
        if follower is not None:
            await end_task(follower, patience_seconds=PATIENCE_SECONDS)
        await self._barrier.drain()
        await self._stream.aclose()

    async def fresh(self) -> int:
        """Apply every commit acknowledged before this call and return the version.

        Raises:
            ServiceUnavailableError: Redis cannot be reached, or no relay answers.
        """
        await self._barrier.wait()
        return self._version

    async def read_after(self, cursor: Cursor, *, at_most: int | None = None) -> tuple[Change, ...] | None:
        """Return what was committed after `cursor` up to `version`, from memory or Redis; None is a gap.

        A gap is: another epoch, a cursor ahead of `version`, one below what Redis keeps, and more than `at_most`. Redis
        is read a page at a time, and the event loop goes round in between.

        Raises:
            ServiceUnavailableError: Redis cannot be reached.
        """
        epoch, until, top = self.epoch, self._version, self._top
        if cursor.epoch != epoch or cursor.version > until:
            return None
        reaches, remembered = self._remembered(cursor.version, at_most)
        if reaches:
            return remembered
        try:
            changes = await self._read(cursor.version, top, at_most)
        except FAULTS as exc:
            raise ServiceUnavailableError(UNREACHABLE) from exc
        since = self.changes_since(until)  # applied while we read
        if changes is None or since is None or self._epoch != epoch:
            return None
        return None if at_most is not None and len(changes) + len(since) > at_most else (*changes, *since)

    async def _fresh_within(self, seconds: float) -> None:
        give_up = asyncio.get_running_loop().time() + seconds
        while True:
            try:
                await self.fresh()
                return
            except ServiceUnavailableError:
                if asyncio.get_running_loop().time() > give_up:
                    raise
            await asyncio.sleep(RETRY_SECONDS)

    async def _ask_relay(self) -> None:
        """Ask the relay how far the database is, and return when what it reports has been applied."""
        _ = self.schema
        if self._trouble == UNREACHABLE:
            raise ServiceUnavailableError(UNREACHABLE)
        self._answer = asyncio.get_running_loop().create_future()
        self._question = secrets.token_urlsafe(9)
        async with background(self._ask(self._question), "question", patience_seconds=PATIENCE_SECONDS):
            try:
                async with asyncio.timeout(self._limits.timeout_seconds):
                    await self._answer
            except TimeoutError as exc:
                is_silent = self._trouble in (None, NO_RELAY)
                raise ServiceUnavailableError(NO_RELAY if is_silent else NOT_FOLLOWED) from exc
            finally:
                self._question = None

    async def _ask(self, question: str) -> None:
        """Ask, and ask again until somebody cancels it: a question may get lost."""
        try:
            while True:
                await self._stream.ask(question)
                await asyncio.sleep(ASK_AGAIN_SECONDS)
        except FAULTS as exc:
            self._refuse(UNREACHABLE, exc)

    async def _follow(self) -> None:
        """Follow the reports for ever, whatever goes wrong with Redis."""
        while True:
            try:
                await self._follow_reports()
            except FAULTS as exc:
                self._be_in_trouble(UNREACHABLE, exc)
                self._refuse(UNREACHABLE, exc)
            except Exception as exc:  # nobody would notice that the following has ended
                self._be_in_trouble(str(exc) or type(exc).__name__, exc)
            else:
                continue
            await asyncio.sleep(RETRY_SECONDS)

    def _be_in_trouble(self, trouble: str, cause: Exception | None = None) -> None:
        if trouble != self._trouble:
            _log.warning("the log in Redis cannot be followed, trying on: %s", trouble, exc_info=cause)
        self._trouble = trouble

    async def _follow_reports(self) -> None:
        """Follow the reports from the last one on; return after a time of silence."""
        last = await self._stream.last_beat()
        if last is not None:
            await self._follow_to(last, last.served)
        if self._trouble != NO_RELAY:
            self._trouble = None
        beat_id = b"0" if last is None else last.id
        while beats := await self._stream.beats_after(beat_id, SILENCE_SECONDS):
            await self._follow_to(beats[-1], _served(beats))
            beat_id, self._trouble = beats[-1].id, None
        self._be_in_trouble(NO_RELAY)

    async def _follow_to(self, beat: RelayReport, served: Collection[str | None]) -> None:
        """Apply what leads to a report, and answer the barrier if its question was served."""
        question = self._question
        if self._epoch is None and question not in served:
            return  # we stand nowhere yet, and whoever opens wants to stand at the end
        state = await self._settle(beat.epoch, beat.mark)
        if beat.epoch not in (self._epoch, state.epoch):
            raise ServiceUnavailableError(FOREIGN)
        if self._epoch is None:
            self._stand_at(beat)
        elif self._epoch != beat.epoch:
            if beat.version <= self._version:
                raise ServiceUnavailableError(
                    f"the database went back from version {self._version} to {beat.version}: restart this process, so"
                    " that it forgets what it knew"
                )
            self._flush(beat, self._doubt or "capture was installed anew, or another worker flushed")
        elif self._doubt is not None:
            self._flush(beat, self._doubt)
        elif not await self._apply_to(beat.top, state):
            self._flush(beat, "changes are missing in Redis: it was trimmed, emptied or failed over")
        else:
            self._advance(beat.version, ())
        if question in served and question == self._question and self._answer is not None and not self._answer.done():
            self._answer.set_result(None)

    async def _settle(self, epoch: str, mark: str) -> CaptureState:
        """Return the schema: that of `epoch` and `mark`, or a later one."""
        state = self.schema
        if (epoch, mark) not in ((state.epoch, str(state.schema_fingerprint)), self._asked_about):
            state = await asyncio.to_thread(self._capture.refresh, at_least=self._version)
            if self._state is None:
                raise ServiceUnavailableError("the log was closed")
            self._state = state
            self._asked_about = epoch, mark
        return state

    def _stand_at(self, beat: RelayReport) -> None:
        """Stand where a report is: what comes next lies after it."""
        self._version = max(beat.version, self._version)
        self._history.restart(self._version)
        self._epoch, self._top = beat.epoch, beat.top

    def _flush(self, beat: RelayReport, reason: str) -> None:
        version = max(beat.version, self._version)
        _log.warning("everything known is dropped at version %s: %s", version, reason)
        self._doubt = None
        self._epoch = beat.epoch
        if version == beat.version:
            self._top = beat.top
        self._history.restart(version)
        self._tell(Batch(version, flush=reason))
        self._version = version

    async def _apply_to(self, top: int, state: CaptureState) -> bool:
        """Apply the entries up to `top`; tell whether all are there."""
        while self._version < top:
            page = await self._stream.entries(self._version, top)
            if not page:
                return False
            for entry in page:
                if entry.prev > self._version or entry.epoch != self._epoch or entry.changes is None:
                    return False
                self._advance(entry.version, _readable(entry, entry.changes, state))
                self._top = entry.version
        return True

    def _advance(self, version: int, changes: tuple[Change, ...]) -> None:
        if version <= self._version:
            return
        self._history.append(version, changes)
        if changes:
            self._tell(Batch(version, changes))
        self._version = version

    async def _read(self, after: int, top: int, at_most: int | None) -> tuple[Change, ...] | None:
        """Return the changes of the entries after a version up to `top`; None where one is missing, or too many."""
        changes: list[Change] = []
        tables: dict[str, None] = {}
        place = after
        while place < top:
            page = await self._stream.entries(place, top)
            if not page:
                return None
            for entry in page:
                if entry.prev > place or entry.epoch != self._epoch or entry.changes is None:
                    return None
                place = entry.version
                changes += _readable(entry, entry.changes, self.schema)
            if at_most is not None and len(changes) > at_most:
                return None
            if len(changes) > self._limits.bulk_threshold:
                tables.update(dict.fromkeys(change.table for change in changes))
                changes.clear()
        return (*(Change(table=table, operation="bulk") for table in tables), *changes)

    def _refuse(self, message: str, cause: Exception | None = None) -> None:
        """Let the barrier under way fail."""
        if self._answer is not None and not self._answer.done():
            error = ServiceUnavailableError(message)
            error.__cause__ = cause
            self._answer.set_exception(error)
            self._answer.exception()  # noted: whoever waited may have gone


def _served(beats: Sequence[RelayReport]) -> frozenset[str]:
    """Return the questions that the last of some reports answers: also those of earlier ones that show no more."""
    last = beats[-1]
    covered = [beat.served for beat in beats if beat.epoch == last.epoch and beat.version <= last.version]
    return frozenset().union(*covered)


def _readable(entry: StreamEntry, changes: tuple[Change, ...], state: CaptureState) -> tuple[Change, ...]:
    """Return changes as `state` can read them: of another schema, the tables as a whole."""
    if entry.mark == str(state.schema_fingerprint):
        return changes
    tables = dict.fromkeys(change.table for change in changes)
    return tuple(Change(table=table, operation="bulk") for table in tables)
