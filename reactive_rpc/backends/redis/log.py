"""The log of a PostgreSQL database read from Redis, where one relay (`backends/redis/relay.py`) writes it for all.

The log follows the relay's reports. A report says that the stream has come to `top` and the database to `version`, with
nothing captured between the two. All entries up to `top` are applied, each only if it joins on to where the log stands,
and then the version becomes the report's. If entries are missing there is a flush, never silence.

`sync_to_head` asks a question and waits for a report that answers it. Versions are the database's own.
docs/internals/redis.md argues both, and describes the cases of another schema, another epoch and another database.
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
from reactive_rpc.changes.log import Batch
from reactive_rpc.dependencies.change import Change
from reactive_rpc.dependencies.lookup import Lookup
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

WANTED_SECONDS: Final = 300.0
"""So long a relay adds a virtual column to images after somebody has wanted it last."""

UNREACHABLE: Final = "Redis cannot be reached: try again later"
"""Said to callers; the cause is chained, for the log."""
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
        self._error: str | None = None
        self._tasks = Tasks()
        self._follower: asyncio.Task[None] | None = None
        self._announcer: asyncio.Task[None] | None = None
        self._announced: frozenset[Lookup] = frozenset()
        self._unannounced: dict[Lookup, None] = {}
        self._news = asyncio.Event()
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
    def error(self) -> str | None:
        """Why this log cannot follow the database, Redis or the relay; None if it can."""
        return self._error

    def want(self, lookups: Collection[Lookup]) -> None:
        """Have the relay add these virtual columns to the images that it makes from here on."""
        self._unannounced.update(dict.fromkeys(each for each in lookups if each not in self._announced))
        if self._unannounced:
            self._news.set()

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
        self._announcer = self._tasks.start(self._announce(), "wanted look-ups")
        try:
            await self._sync_within(OPEN_SECONDS)
        except BaseException:
            await self.aclose()
            raise

    async def aclose(self) -> None:
        """Let go of Redis; idempotent. The log can be opened again."""
        self._state, self._epoch = None, None
        self._refuse("the log was closed")
        tasks = self._follower, self._announcer
        self._follower = self._announcer = None
        for task in tasks:
            if task is not None:
                await end_task(task, patience_seconds=PATIENCE_SECONDS)
        await self._barrier.drain()
        await self._stream.aclose()

    async def sync_to_head(self) -> int:
        """Apply every commit acknowledged before this call and return the version.

        Raises:
            ServiceUnavailableError: Redis cannot be reached, or no relay answers.
        """
        await self._barrier.wait()
        return self._version

    async def read_after(self, cursor: Cursor, *, at_most: int | None = None) -> tuple[Change, ...] | None:
        """Return the changes that were committed after `cursor` up to `version`, from memory or Redis; None is a gap.

        A gap: another epoch, a cursor ahead of `version`, one below the oldest entry in Redis, or more than `at_most`.
        Redis is read a page at a time, and the event loop goes round in between.

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

    async def _sync_within(self, seconds: float) -> None:
        give_up = asyncio.get_running_loop().time() + seconds
        while True:
            try:
                await self.sync_to_head()
                return
            except ServiceUnavailableError:
                if asyncio.get_running_loop().time() > give_up:
                    raise
            await asyncio.sleep(RETRY_SECONDS)

    async def _ask_relay(self) -> None:
        """Ask the relay how far the database is, and return when its report has been applied."""
        _ = self.schema
        if self._error == UNREACHABLE:
            raise ServiceUnavailableError(UNREACHABLE)
        self._answer = asyncio.get_running_loop().create_future()
        self._question = secrets.token_urlsafe(9)
        async with background(self._ask(self._question), "question", patience_seconds=PATIENCE_SECONDS):
            try:
                async with asyncio.timeout(self._limits.timeout_seconds):
                    await self._answer
            except TimeoutError as exc:
                is_silent = self._error in (None, NO_RELAY)
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
                self._note_error(UNREACHABLE, exc)
                self._refuse(UNREACHABLE, exc)
            except Exception as exc:  # nobody would notice that the following has ended
                self._note_error(str(exc) or type(exc).__name__, exc)
            else:
                continue
            await asyncio.sleep(RETRY_SECONDS)

    async def _announce(self) -> None:
        """Say which virtual columns are wanted, at once, and all of them again before they are forgotten.

        A relay that has not heard of one leaves it out of its images, where it counts as unknown.
        """
        while True:
            try:
                async with asyncio.timeout(WANTED_SECONDS / 3):
                    await self._news.wait()
                new = tuple(self._unannounced)
                self._news.clear()
            except TimeoutError:
                self._announced = frozenset()
                tables = () if self._state is None else self._state.tables
                new = tuple(each for table in tables for each in self._wanted(table))
            try:
                if new:
                    await self._stream.want(new, WANTED_SECONDS)
            except FAULTS:  # whoever follows the reports notes it
                await asyncio.sleep(RETRY_SECONDS)
                self._news.set()
            else:
                self._announced |= frozenset(new)
                self._unannounced = {each: None for each in self._unannounced if each not in self._announced}

    def _note_error(self, error: str, cause: Exception | None = None) -> None:
        if error != self._error:
            _log.warning("the log in Redis cannot be followed, trying on: %s", error, exc_info=cause)
        self._error = error

    async def _follow_reports(self) -> None:
        """Follow the reports from the last one on; return after a time of silence."""
        last = await self._stream.last_report()
        if last is not None:
            await self._follow_to([last], last.answered)
        if self._error != NO_RELAY:
            self._error = None
        report_id = b"0" if last is None else last.id
        while reports := await self._stream.reports_after(report_id, SILENCE_SECONDS):
            await self._follow_to(reports, _answered(reports))
            report_id, self._error = reports[-1].id, None
        self._note_error(NO_RELAY)

    async def _follow_to(self, reports: Sequence[RelayReport], answered: Collection[str | None]) -> None:
        """Apply the entries that lead to the last of some reports, and let the barrier pass if that answers it."""
        report = reports[-1]
        question = self._question
        if self._epoch is None and question not in answered:
            return  # we stand nowhere yet, and whoever opens wants to stand at the end
        state = await self._reconcile(report.epoch, report.schema_fingerprint)
        # INVARIANT (another epoch is followed only if our own database says that it is its epoch now): what is relayed
        # of another database, by a mistake in a namespace or a URL, neither moves us nor answers for ours.
        if report.epoch not in (self._epoch, state.epoch):
            raise ServiceUnavailableError(FOREIGN)
        if self._epoch is None:
            self._stand_at(report)
        elif self._epoch != report.epoch:
            if report.version <= self._version:
                raise ServiceUnavailableError(
                    f"the database went back from version {self._version} to {report.version}: restart this process, so"
                    " that it forgets what it knew"
                )
            self._flush(report, self._invalidation_reason or "capture was installed anew, or another worker flushed")
        elif self._invalidation_reason is not None:
            self._flush(report, self._invalidation_reason)
        elif not await self._apply_to(report.top, state, carried=[each.entry for each in reports if each.entry]):
            self._flush(report, "changes are missing in Redis: it was trimmed, emptied or failed over")
        else:
            self._advance(report.version, ())
        if question in answered and question == self._question and self._answer is not None and not self._answer.done():
            self._answer.set_result(None)

    async def _reconcile(self, epoch: str, schema_fingerprint: str) -> CaptureState:
        """Return the schema: that of `epoch` and `schema_fingerprint`, or a later one."""
        state = self.schema
        if (epoch, schema_fingerprint) not in ((state.epoch, str(state.schema_fingerprint)), self._asked_about):
            state = await asyncio.to_thread(self._capture.refresh, at_least=self._version)
            if self._state is None:
                raise ServiceUnavailableError("the log was closed")
            self._state = state
            self._asked_about = epoch, schema_fingerprint
        return state

    def _stand_at(self, report: RelayReport) -> None:
        """Stand where a report is: the next entry lies after it."""
        self._version = max(report.version, self._version)
        self._history.restart(self._version)
        self._epoch, self._top = report.epoch, report.top

    def _flush(self, report: RelayReport, reason: str) -> None:
        version = max(report.version, self._version)
        _log.warning("everything known is dropped at version %s: %s", version, reason)
        self._invalidation_reason = None
        self._epoch = report.epoch
        if version == report.version:
            self._top = report.top
        self._history.restart(version)
        self._notify(Batch(version, flush=reason))
        self._version = version

    async def _apply_to(self, top: int, state: CaptureState, *, carried: Sequence[StreamEntry]) -> bool:
        """Apply the entries up to `top`, those that came with reports first; tell whether all are there."""
        for entry in carried:
            if not self._is_applied(entry, state):
                break  # what lies between is read
        while self._version < top:
            page = await self._stream.entries(self._version, top)
            if not page:
                return False
            for entry in page:
                if not self._is_applied(entry, state):
                    return False
        return True

    def _is_applied(self, entry: StreamEntry, state: CaptureState) -> bool:
        """Apply an entry, unless it is known; return False if that would leave something out."""
        # INVARIANT (an entry is applied only if prev <= version): otherwise something lies between the two.
        if entry.prev > self._version or entry.epoch != self._epoch or entry.changes is None:
            return False
        if entry.version > self._version:
            self._advance(entry.version, _readable(entry, entry.changes, state))
            self._top = entry.version
        return True

    def _advance(self, version: int, changes: tuple[Change, ...]) -> None:
        if version <= self._version:
            return
        self._history.append(version, changes)
        if changes:
            self._notify(Batch(version, changes))
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


def _answered(reports: Sequence[RelayReport]) -> frozenset[str]:
    """Return the questions that the last of some reports answers: also those of earlier ones that show no more."""
    last = reports[-1]
    covered = [report.answered for report in reports if report.epoch == last.epoch and report.version <= last.version]
    return frozenset().union(*covered)


def _readable(entry: StreamEntry, changes: tuple[Change, ...], state: CaptureState) -> tuple[Change, ...]:
    """Return changes as `state` can read them: of another schema, the tables as a whole."""
    if entry.schema_fingerprint == str(state.schema_fingerprint):
        return changes
    tables = dict.fromkeys(change.table for change in changes)
    return tuple(Change(table=table, operation="bulk") for table in tables)
