"""Which errors are worth another try, and when; when a stream counts as good, and when as dead."""

from __future__ import annotations

from typing import Final

from reactive_rpc.client.backoff import Backoff
from reactive_rpc.errors import ReactiveRPCError, RPCError

__all__ = [
    "HEARTBEATS_MISSED",
    "MAX_RETRY_SECONDS",
    "OPEN_SECONDS",
    "STABLE_SECONDS",
    "is_transient",
    "pause_seconds",
    "retry_after_seconds",
    "silence_seconds",
]

OPEN_SECONDS: Final = 30.0
"""How long a new stream may take to begin."""

HEARTBEATS_MISSED: Final = 2.5
"""How many heartbeats may be missing before the stream counts as dead: one may be lost, another late."""

MIN_HEARTBEAT_SECONDS: Final = 1.0
MAX_HEARTBEAT_SECONDS: Final = 600.0
"""A server's promise is believed between these: no stream is given up within an instant, nor kept for ever."""

STABLE_SECONDS: Final = 5.0
"""How long a stream lasts before the backoff starts over."""

MAX_RETRY_SECONDS: Final = 60.0
"""The longest `retry:` that is honoured: a wrong one must not end a watch for good."""

_TRANSIENT: Final = frozenset({"SERVICE_UNAVAILABLE", "TOO_MANY_REQUESTS", "TIMEOUT", "BAD_GATEWAY", "GATEWAY_TIMEOUT"})


def is_transient(error: Exception | None) -> bool:
    """Tell whether the same request may do better a little later; a success need not be tried again."""
    return error.code in _TRANSIENT if isinstance(error, RPCError) else isinstance(error, ReactiveRPCError)


def retry_after_seconds(error: Exception | None) -> float:
    """Return how long the server asked to be left alone; the transport has bounded it."""
    return float(error.headers.get("retry-after", 0)) if isinstance(error, RPCError) else 0.0


def pause_seconds(backoff: Backoff, error: Exception | None, *, lasted_seconds: float = 0.0) -> float:
    """Return how long to wait before the next try: the pause that the server asked for, and the backoff's delay.

    Args:
        backoff: counts the failures; it starts over after a stream that was good.
        error: why it is to be tried again; None if nothing says.
        lasted_seconds: how long the stream was up.
    """
    delay = 0.0
    if lasted_seconds >= STABLE_SECONDS:
        backoff.reset()
        if error is None:  # the server has ended a stream that was well, because it stops: nothing has failed
            delay = backoff.resumption_delay()
    return retry_after_seconds(error) + (delay or backoff.next_delay())


def silence_seconds(heartbeat_seconds: float) -> float:
    """Return how long a stream may say nothing, of which the server has promised such heartbeats."""
    return HEARTBEATS_MISSED * min(max(heartbeat_seconds, MIN_HEARTBEAT_SECONDS), MAX_HEARTBEAT_SECONDS)
