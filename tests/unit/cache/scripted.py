"""A log that a test writes, and queries on the little database behind it: every interleaving can be played."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable
from dataclasses import dataclass, field
from typing import Any

from reactive_rpc.cache.invalidation import InvalidatedResults
from reactive_rpc.cache.reader import Reader
from reactive_rpc.cache.result import HandlerOutcome, ResultKey
from reactive_rpc.cache.store import MemoryStore
from reactive_rpc.changes.captured_schema import CaptureState, TableCapture
from reactive_rpc.changes.log import Applier, Batch, WantedLookups
from reactive_rpc.changes.wake_up import NoWakeUp, WakeUp
from reactive_rpc.dependencies.change import Change
from reactive_rpc.dependencies.lookup import Lookup
from reactive_rpc.dependencies.period import ALWAYS, Period, tick_of
from reactive_rpc.dependencies.read_set import Constraint, Equals, ReadSet
from reactive_rpc.errors import RPCError
from reactive_rpc.protocol.cursors import Cursor

Pause = Callable[[], Awaitable[None]]


async def no_pause() -> None:
    """Go on at once."""


class Gate:
    """A pause that lasts until the test opens it; counts who has arrived."""

    def __init__(self) -> None:
        self.arrived = 0
        self._open = asyncio.Event()

    async def __call__(self) -> None:
        self.arrived += 1
        await self._open.wait()

    def open(self) -> None:
        self._open.set()


async def until(condition: Callable[[], bool]) -> None:
    """Let the other tasks run until `condition` holds.

    Raises:
        AssertionError: it never came true.
    """
    for _ in range(10_000):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("the condition never came true")


ITEMS = CaptureState(
    epoch="e1",
    schema_fingerprint=1,
    tables={
        "item": TableCapture(
            name="item",
            columns=("id", "value"),
            image=("id", "value"),
            kinds={"id": "integer", "value": "integer"},
            key_columns=("id",),
            primary_key=("id",),
            foreign_keys=(),
            captured=True,
        )
    },
)


def change(row: int, table: str = "item") -> Change:
    """Return an update of one row."""
    return Change(
        table=table,
        operation="update",
        before={"id": row},
        after={"id": row},
        changed=frozenset({"value"}),
        keys=frozenset({row}),
    )


@dataclass
class ScriptedLog:
    """A `Log` and the database it belongs to: `{row: how often it was written}`.

    Attributes:
        rows: as a transaction that begins now would see them.
        pause: awaited within `sync_to_head`, between reading the database and applying what was read.
        down: what `sync_to_head` raises; None normally.
        readings: how often somebody asked what came after a cursor.
    """

    rows: Counter[int] = field(default_factory=Counter)
    pause: Pause = no_pause
    down: RPCError | None = None
    epoch: str = "e1"
    version: int = 0
    schema: CaptureState = ITEMS
    remembers_from: int = 0
    readings: int = 0
    _committed: list[tuple[int, Change]] = field(default_factory=list)
    _appliers: list[Applier] = field(default_factory=list)

    @property
    def is_look_shared(self) -> bool:
        """Whether another request looks just now: each looks by itself here."""
        return False

    @property
    def committed(self) -> int:
        """The version of the last commit, applied or not."""
        return self._committed[-1][0] if self._committed else 0

    def commit(self, *changes: Change) -> None:
        """Commit one transaction, acknowledged and not yet applied."""
        for each in changes:
            self.rows.update(row for row in each.keys if isinstance(row, int))
        version = self.committed + 1
        self._committed += [(version, each) for each in changes]

    def write(self, *rows: int) -> None:
        """Commit an update of these rows."""
        self.commit(*map(change, rows))

    def flush(self, reason: str) -> None:
        """Begin a new epoch."""
        self.epoch = f"e{int(self.epoch[1:]) + 1}"
        self.version = self.remembers_from = self.committed + 1
        self._committed = [(self.version, change(-1, "none"))]
        self._notify(Batch(self.version, flush=reason))

    @property
    def wake_up(self) -> WakeUp:
        return NoWakeUp()

    def subscribe(self, apply: Applier) -> None:
        self._appliers.append(apply)

    def want(self, lookups: Collection[Lookup]) -> None:
        """Make no images of them."""

    def enrich_with(self, wanted: WantedLookups) -> None:
        """Images here are complete."""

    def cursor_at(self, version: int) -> Cursor:
        return Cursor(self.epoch, version)

    async def sync_to_head(self) -> int:
        target = self.committed
        await self.pause()
        if self.down is not None:
            raise self.down
        self.apply(target)
        return self.version

    def expect_changes(self) -> None:
        """Ask nothing less."""

    async def sync_to_head_for_server(self) -> int:
        return await self.sync_to_head()

    def apply(self, target: int | None = None) -> None:
        """Apply what was committed up to `target`, one batch."""
        target = self.committed if target is None else target
        if target <= self.version:
            return
        found = tuple(each for version, each in self._committed if self.version < version <= target)
        self._notify(Batch(target, found))
        self.version = target

    def changes_since(self, version: int) -> tuple[Change, ...] | None:
        if not self.remembers_from <= version <= self.version:
            return None
        return tuple(each for at, each in self._committed if version < at <= self.version)

    async def read_after(self, cursor: Cursor, *, at_most: int | None = None) -> tuple[Change, ...] | None:
        self.readings += 1
        await self.pause()
        changes = self.changes_since(cursor.version) if cursor.epoch == self.epoch else None
        return None if changes is not None and at_most is not None and len(changes) > at_most else changes

    async def open(self) -> None:
        """Nothing to open."""

    async def aclose(self) -> None:
        """Nothing to close."""

    def _notify(self, batch: Batch) -> None:
        for apply in self._appliers:
            apply(batch)


@dataclass
class RowQuery:
    """A query that sums up some rows: a `Computable`, and what the hub asks of a call besides.

    Attributes:
        pause: awaited before the snapshot is taken and after it.
        opaque: as in `ReadSet`.
        fails: what `compute` raises; None normally.
        error: what the handler answers on purpose; None normally.
        computed: how often it ran.
        depth: as in `Computable`.
        is_cached: as in `Computable`.
        is_shared: as in `Computable`.
        time: what the handler asks for the time; None where it does not.
        every: the length of its ticks.
        ttl_seconds: as in `procedures.cache_options.Cache`.
        pushes_results: as in `QueryCall`.
        size_bytes: what it claims to hold.
        shows: whether its outcome names the version that its snapshot shows.
    """

    log: ScriptedLog
    rows: tuple[int, ...]
    scope: str = ""
    path: str = "items.sum"
    pause: Pause = no_pause
    keep: Callable[[Change], bool] | None = None
    opaque: str | None = None
    fails: Exception | None = None
    error: RPCError | None = None
    padding: int = 0
    computed: int = 0
    depth: int = 0
    is_cached: bool = True
    is_shared: bool = True
    time: Callable[[], float] | None = None
    every: float = 60.0
    ttl_seconds: float | None = None
    pushes_results: bool = False
    size_bytes: int = 100
    shows: bool = False

    @property
    def key(self) -> ResultKey:
        return (self.path, repr(self.rows).encode(), self.scope.encode())

    @property
    def held_bytes(self) -> int:
        return self.size_bytes

    @property
    def wire_key(self) -> str:
        return f"{self.path}{list(self.rows)}{self.scope}"

    @property
    def wire_input(self) -> object:
        return {"rows": list(self.rows), "scope": self.scope}

    async def compute(self) -> HandlerOutcome:
        self.computed += 1
        period = self.period
        await self.pause()
        value = sum(self.log.rows[row] for row in self.rows)
        shows = self.log.committed if self.shows else None
        if period.is_exact and self.time is not None:
            value += int(period.since // self.every) % 1000 * 1000
        await self.pause()
        if self.fails is not None:
            raise self.fails
        body = b"" if self.error else str(value).encode() + b" " * self.padding
        return HandlerOutcome(body, ReadSet(tuple(constraints(self.rows)), self.opaque, period), self.error, shows)

    @property
    def period(self) -> Period:
        """What it is told of the time, now."""
        if self.time is None:
            return ALWAYS
        if self.ttl_seconds is not None:
            return Period(self.time(), self.time() + self.ttl_seconds, is_exact=False)
        return tick_of(self.time(), self.every)


def constraints(rows: Iterable[int]) -> Iterable[Constraint]:
    """Yield what a query on these rows reads, one constraint a row."""
    return (Constraint("item", frozenset({"id", "value"}), {"id": Equals(frozenset({row}))}) for row in rows)


class ScriptedReader:
    """A reader that follows a scripted log, and what its listeners were notified of.

    Args:
        make: the class of the reader.
        log: one of its own where none is given.
        max_bytes: of its store.
        options: further ones of the reader.
    """

    def __init__(
        self, make: type[Reader] = Reader, *, log: ScriptedLog | None = None, max_bytes: int = 1_000_000, **options: Any
    ) -> None:
        self.log = log or ScriptedLog()
        self.store = MemoryStore(max_bytes)
        self.reader = make(self.log, self.store, **options)
        self.log.subscribe(self.reader.apply)
        self.notified: list[InvalidatedResults] = []
        self.reader.invalidations.add(self.notified.append)

    def query(self, *rows: int, **options: Any) -> RowQuery:
        """Return a query of these rows; `options` are fields of `RowQuery`."""
        return RowQuery(self.log, rows, **options)

    async def value(self, query: RowQuery) -> int:
        """Return what the reader answers."""
        return int((await self.reader.get(query)).answer())
