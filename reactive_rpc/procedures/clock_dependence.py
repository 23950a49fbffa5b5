"""Finding out whether a query depends on Python's clock, of which neither the database nor `now(every=...)` tells.

The handler is run three times on the same data, with `now` standing still: twice as it is, and once with Python's clock
moved by weeks. If two unmoved runs differ, in a bound parameter or in the result, the handler asks the clock to the
microsecond, or chance; if only the moved run differs, it asks for a date or an hour.

Python's clock is moved for the whole process (`time_machine`), so this is for commands and tests, never for a server.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone

from reactive_rpc.cache.reader import Reader
from reactive_rpc.cache.result import CachedResult, HandlerOutcome
from reactive_rpc.clock import SystemClock
from reactive_rpc.dependencies.results_differ import moved_columns
from reactive_rpc.extras import needs
from reactive_rpc.procedures.call import QueryCall
from reactive_rpc.statements.recorder import Trace

__all__ = ["clock_dependencies"]

AWAY = timedelta(days=40, hours=7, minutes=13, seconds=11)
"""Another month, weekday, date, hour and minute."""

ATTEMPTS = 3
"""So often it is tried anew where somebody wrote what the query reads meanwhile."""


class FrozenClock(SystemClock):
    """Tells one moment for ever, and waits as the real one does."""

    def __init__(self, moment: float) -> None:
        self._moment = moment

    def time(self) -> float:
        """Return the moment."""
        return self._moment


@dataclass(slots=True)
class _Run:
    """One run: the outcome, and each statement."""

    outcome: HandlerOutcome
    trace: Trace = field(default_factory=list)


async def clock_dependencies(call: QueryCall, reader: Reader) -> tuple[str, ...]:
    """Return what a query binds, or that it answers, by a clock of its own; nothing where it does not.

    Nothing either where it cannot be told (it fails, somebody writes all the time), and where it is no matter: nothing
    is kept of what may not be cached, and an author's `ttl_seconds` allows for it.

    Raises:
        MissingExtraError: `time_machine` is not installed.
        Exception: whatever the handler raised by accident.
    """
    if not call.is_cached:
        return ()
    with needs("cli", "trying a query by another clock"):
        from time_machine import travel  # noqa: PLC0415  # it is for commands alone

    moment = SystemClock().time()
    away = datetime.fromtimestamp(moment, timezone.utc) + AWAY  # noqa: UP017  # time_machine patches the class, not UTC
    for _ in range(ATTEMPTS):
        version = await reader.freshness.sync_to_head()
        first = await _run(call, moment, nullcontext)
        others = [await _run(call, moment, nullcontext), await _run(call, moment, lambda: travel(away))]
        await reader.freshness.sync_to_head()
        if not _is_kept(first.outcome):
            return ()
        if not reader.matcher.touched_since(version, CachedResult(call, first.outcome, version)):
            return tuple(dict.fromkeys(what for other in others for what in _moved(first, other)))
    return ()


async def _run(call: QueryCall, moment: float, at: Callable[[], AbstractContextManager[object]]) -> _Run:
    trace: Trace = []
    with at():
        return _Run(await call.compute(FrozenClock(moment), trace), trace)


def _is_kept(outcome: HandlerOutcome) -> bool:
    read_set = outcome.read_set
    return outcome.error is None and read_set.opaque is None and read_set.period.is_exact


def _moved(one: _Run, other: _Run) -> Sequence[str]:
    """Return what differs: the columns compared; else the statement; else the result."""
    if other.outcome.error is not None or one.outcome.read_set.period != other.outcome.read_set.period:
        return ()
    columns = moved_columns(one.outcome.read_set, other.outcome.read_set)
    if columns:
        return columns
    ran = {(each.text, each.parameters) for each in other.trace}
    statements = [each.text for each in one.trace if (each.text, each.parameters) not in ran]
    if statements:
        return [f"a parameter of {' '.join(statements[0].split())[:120]!r}"]
    return [] if one.outcome.body == other.outcome.body else ["its result"]
