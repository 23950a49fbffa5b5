"""Which errors are worth another try, and when."""

from __future__ import annotations

from typing import Final

from reactive_rpc.errors import ReactiveRPCError, RPCError

__all__ = ["is_transient", "retry_after_seconds"]

_TRANSIENT: Final = frozenset({"SERVICE_UNAVAILABLE", "TOO_MANY_REQUESTS", "TIMEOUT", "BAD_GATEWAY", "GATEWAY_TIMEOUT"})


def is_transient(error: Exception | None) -> bool:
    """Tell whether the same request may do better a little later; a success need not be tried again."""
    return error.code in _TRANSIENT if isinstance(error, RPCError) else isinstance(error, ReactiveRPCError)


def retry_after_seconds(error: Exception | None) -> float:
    """Return how long the server asked to be left alone; the transport has bounded it."""
    return float(error.headers.get("retry-after", 0)) if isinstance(error, RPCError) else 0.0
