"""How a client stands with its server: computed from its lanes when it is asked for, and followed without a queue."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, Protocol, Self

from reactive_rpc.clock import Clock
from reactive_rpc.errors import ConnectionFailedError

__all__ = ["Connection", "Status", "StatusNews", "StatusWatch", "status_of"]


@dataclass(frozen=True, slots=True)
class Status:
    """How a client stands with its server at one moment.

    >>> Status(state="live", last_sync=None, waiting=0, error=None).state
    'live'

    Attributes:
        state: `live`: a change of any watched result is told at once, also if nothing is watched; `polling`: the same
            by long poll; `reconnecting`: a stream is being opened, or opened again; `offline`: the server gives no
            answer and is tried again, or it has refused the caller, and nothing is tried until there is another token.
        last_sync: when the server was last heard on every stream, with an event or a heartbeat; None before.
        waiting: how many own mutations are not answered yet.
        error: why the state is neither `live` nor `polling`, as far as that is known.
    """

    state: Literal["live", "reconnecting", "polling", "offline"]
    last_sync: datetime | None
    waiting: int
    error: Exception | None


class Connection(Protocol):
    """A lane, as far as its state matters here.

    Attributes:
        failure: why the last try to open a stream has failed; None after one that has not.
        heard_at: on the clock, when its streams were last heard; None before.
    """

    failure: Exception | None
    heard_at: float | None

    @property
    def is_wanted(self) -> bool:
        """Whether it has queries to watch."""
        ...

    @property
    def is_up(self) -> bool:
        """Whether a stream watches for it."""
        ...


def status_of(
    connections: Iterable[Connection],
    *,
    clock: Clock,
    refusal: Exception | None,
    is_polling: bool,
    is_starting: bool,
    waiting: int,
) -> Status:
    """Return the status of a client.

    Args:
        connections: all of its lanes.
        clock: of the lanes.
        refusal: why no stream can be had by this caller; None normally.
        is_polling: whether new streams come by long poll.
        is_starting: whether a query is about to be watched for the first time.
        waiting: how many own mutations are not answered yet.
    """
    wanted = [one for one in connections if one.is_wanted]
    down = [one for one in wanted if not one.is_up]
    error = refusal or next((one.failure for one in down if one.failure is not None), None)
    last_sync = _last_sync(wanted, clock)
    if refusal is not None or isinstance(error, ConnectionFailedError):
        return Status("offline", last_sync, waiting, error)
    if down or (is_starting and not wanted):
        return Status("reconnecting", last_sync, waiting, error)
    return Status("polling" if is_polling else "live", last_sync, waiting, None)


def _last_sync(wanted: list[Connection], clock: Clock) -> datetime | None:
    heard = [one.heard_at for one in wanted if one.heard_at is not None]
    if not heard or len(heard) < len(wanted):
        return None
    return datetime.fromtimestamp(clock.time() - (clock.monotonic() - min(heard)), UTC)


class StatusNews:
    """Wakes whoever follows the status. Refers to none of them."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def announce(self) -> None:
        """Wake them: the status may be another."""
        self._event.set()
        self._event = asyncio.Event()

    async def wait(self) -> None:
        """Wait for the next announcement."""
        await self._event.wait()


class StatusWatch:
    """Follow the status: `async for status in hub.watch_status(): ...`.

    The first one comes at once, another one whenever `state`, `waiting` or `error` is another; a slow consumer skips
    those between. The iteration ends when the client closes.

    Args:
        current: returns the present status; None once the client is closed.
        news: of it.
    """

    def __init__(self, current: Callable[[], Status | None], news: StatusNews) -> None:
        self._current = current
        self._news = news
        self._seen: Status | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Status:
        status = await self.next_status()
        if status is None:
            raise StopAsyncIteration
        return status

    async def next_status(self) -> Status | None:
        """Wait for a status that was not handed out yet and return it; None when the client is closed."""
        while (status := self._current()) is not None and _looks_alike(status, self._seen):
            await self._news.wait()
        self._seen = status
        return status


def _looks_alike(one: Status, other: Status | None) -> bool:
    if other is None:
        return False
    return one.state == other.state and one.waiting == other.waiting and one.error is other.error
