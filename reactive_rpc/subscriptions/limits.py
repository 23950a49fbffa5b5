"""Limits: how many streams, streamed queries and uploads there may be at once, and how often a caller may come.

Each worker counts for itself: a caller that N workers serve has up to N times as much.

The rate is the generic cell rate algorithm (ITU-T I.371): a token bucket that keeps one number a caller, the moment at
which the bucket will be full again. A caller whose moment has passed needs no number. Long polls have a bucket of their
own, and one that comes too soon is made to wait: refusing it would turn busy times into errors.
"""

from __future__ import annotations

import math
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from typing import Literal

from reactive_rpc.clock import Clock
from reactive_rpc.errors import RPCError, ServiceUnavailableError, TooManyRequestsError

__all__ = ["BURST_SECONDS", "RETRY_SECONDS", "CallerKey", "Limits", "Places", "named", "retry_after"]

CallerKey = tuple[Literal["identity", "address"], str]
"""Whom a limit counts: by the identity of the context, or, if that names nobody, by the address of the client."""

BURST_SECONDS = 10.0
"""At once a caller may do as much as the rate allows in so many seconds."""

PATIENCE_SECONDS = 10.0
"""A poll whose turn is further away than this is refused."""

MAX_CALLERS = 100_000
"""How many callers' rates are remembered; past it, who came first is forgotten and may come as if new."""

RETRY_SECONDS = 5
"""When whoever found every place taken may ask again."""

ROUNDING_SECONDS = 1e-6


class Limits:
    """The limits of one worker. Used on one event loop.

    Args:
        max_streams: `Settings.max_streams`; so with the others.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        max_streams: int,
        max_streams_per_identity: int,
        max_streamed_queries_per_identity: int,
        stream_opens_per_second: float,
    ) -> None:
        self._streams = Places(
            "streams",
            max_streams,
            max_streams_per_identity,
            instead="close one, or watch several queries by one stream",
        )
        # Each takes a place among the streams first, so these alone run out.
        self._streamed_queries = Places(
            "streamed queries", max_streams, max_streamed_queries_per_identity, instead="read one to its end first"
        )
        self.max_streams_per_identity = max_streams_per_identity
        self._per_second = stream_opens_per_second
        self._opens = _Rate(stream_opens_per_second, clock)
        self._polls = _Rate(stream_opens_per_second, clock)
        self._stored = _Rate(stream_opens_per_second, clock)

    @property
    def remembered(self) -> int:
        """How many callers are remembered, with open streams or for their rate."""
        rates = len(self._opens) + len(self._polls) + len(self._stored)
        return len(self._streams) + len(self._streamed_queries) + rates

    def admit(self, caller: CallerKey) -> Callable[[], None]:
        """Take a place for one stream; the returned function gives it back, once.

        Raises:
            ServiceUnavailableError: this worker has no place left; another may have one.
            TooManyRequestsError: the caller has as many streams as it may.
        """
        return self._streams.take(caller)

    def admit_streamed_query(self, caller: CallerKey) -> Callable[[], None]:
        """Take a place for a streamed query, which holds a connection of the database; it counts as a stream, too.

        The returned function gives both places back, once.

        Raises:
            ServiceUnavailableError: as `admit`.
            TooManyRequestsError: the caller has as many of either as it may.
        """
        release_stream = self._streams.take(caller)
        try:
            release_query = self._streamed_queries.take(caller)
        except RPCError:
            release_stream()
            raise

        def release() -> None:
            release_query()
            release_stream()

        return release

    def count_open(self, caller: CallerKey) -> None:
        """Count one stream that is opened.

        Raises:
            TooManyRequestsError: that is too often.
        """
        self._count(self._opens, caller, "opens streams")

    def count_stored(self, caller: CallerKey) -> None:
        """Count one set or ticket: each is made to open a stream by.

        Raises:
            TooManyRequestsError: that is too often.
        """
        self._count(self._stored, caller, "asks for sets and tickets")

    def pace_poll(self, caller: CallerKey) -> float:
        """Count one long poll and return how many seconds it must wait for its turn.

        Raises:
            TooManyRequestsError: its turn is more than `PATIENCE_SECONDS` away.
        """
        return self._count(self._polls, caller, "polls", PATIENCE_SECONDS)

    def _count(self, rate: _Rate, caller: CallerKey, does: str, patience_seconds: float = 0.0) -> float:
        wait_seconds = rate.take(caller, patience_seconds)
        if wait_seconds <= patience_seconds:
            return wait_seconds
        retry_seconds = math.ceil(wait_seconds - patience_seconds)
        raise TooManyRequestsError(
            f"{named(caller)} {does} more often than {self._per_second:g} times a second "
            f"(stream_opens_per_second): try again in {retry_seconds} s",
            headers=retry_after(retry_seconds),
        )


class Places:
    """How many of something a worker holds at once, and of these one caller.

    Args:
        noun: the plural of what takes a place; the settings are called by it.
        at_most: the places.
        per_caller: those that one caller may take.
        instead: what a caller may do who has as many.
    """

    def __init__(self, noun: str, at_most: int, per_caller: int, *, instead: str) -> None:
        self._noun = noun
        self._setting = f"max_{noun.replace(' ', '_')}"
        self._at_most = at_most
        self._per_caller = per_caller
        self._instead = instead
        self._taken: defaultdict[CallerKey, int] = defaultdict(int)
        self._all = 0

    def __len__(self) -> int:
        return len(self._taken)

    def take(self, caller: CallerKey) -> Callable[[], None]:
        """Take a place; the returned function gives it back, once.

        Raises:
            ServiceUnavailableError: no place is left.
            TooManyRequestsError: the caller has as many as it may.
        """
        if self._all >= self._at_most:
            raise ServiceUnavailableError(
                f"this worker holds as many {self._noun} as it may: {self._at_most} ({self._setting}); try again, "
                "another worker may have a place",
                headers=retry_after(RETRY_SECONDS),
            )
        if self._taken.get(caller, 0) >= self._per_caller:
            raise TooManyRequestsError(
                f"{named(caller)} has as many {self._noun} open as it may: {self._per_caller} "
                f"({self._setting}_per_identity); {self._instead}",
                headers=retry_after(RETRY_SECONDS),
            )
        self._all += 1
        self._taken[caller] += 1
        is_held = True

        def release() -> None:
            nonlocal is_held
            if is_held:
                is_held = False
                self._release(caller)

        return release

    def _release(self, caller: CallerKey) -> None:
        self._all -= 1
        self._taken[caller] -= 1
        if not self._taken[caller]:
            del self._taken[caller]


class _Rate:
    """How often each caller comes."""

    def __init__(self, per_second: float, clock: Clock) -> None:
        self._interval_seconds = 1.0 / per_second
        self._burst_seconds = max(0.0, BURST_SECONDS - self._interval_seconds)
        self._clock = clock
        self._full_at: OrderedDict[CallerKey, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._full_at)

    def take(self, caller: CallerKey, patience_seconds: float) -> float:
        """Return how long the caller must wait; it is counted if that is no longer than its patience."""
        now = self._clock.monotonic()
        full_at = max(self._full_at.get(caller, now), now)
        wait_seconds = max(0.0, full_at - now - self._burst_seconds - ROUNDING_SECONDS)
        if wait_seconds <= patience_seconds:
            self._full_at[caller] = full_at + self._interval_seconds
            self._full_at.move_to_end(caller)
        self._forget(now)
        return wait_seconds

    def _forget(self, now: float) -> None:
        """Drop from the front, where those are who have not come for longest."""
        while self._full_at and (len(self._full_at) > MAX_CALLERS or next(iter(self._full_at.values())) <= now):
            self._full_at.popitem(last=False)


def named(caller: CallerKey) -> str:
    """Return how an error calls whoever met a limit: never by the identity, which is nobody else's business."""
    kind, name = caller
    return "this caller" if kind == "identity" else f"the address {name}"


def retry_after(seconds: int) -> dict[str, str]:
    """Return the header that says when to come again."""
    return {"retry-after": str(max(1, seconds))}
