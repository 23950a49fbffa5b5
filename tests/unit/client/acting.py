"""Actions as the vectors spell them, and what shows of a snapshot."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from reactive_rpc.client.state import (
    Action,
    Advanced,
    Confirmed,
    Covered,
    Fetched,
    FetchFailed,
    FetchStarted,
    FetchUnchanged,
    HoldExpired,
    Invalidated,
    OpAnswered,
    OpLost,
    OpMade,
    OpRejected,
    OpSent,
    Pushed,
    QuerySnapshot,
    Reidentified,
    Restored,
    Shared,
    StreamFailed,
    Uncovered,
)
from reactive_rpc.client.versions import parse_version

__all__ = ["action_of", "seen_of", "update_of"]

Spelled = dict[str, Any]

_PLAIN: dict[str, type[Any]] = {
    "advanced": Advanced,
    "covered": Covered,
    "fetchStarted": FetchStarted,
    "holdExpired": HoldExpired,
    "invalidated": Invalidated,
    "opAnswered": OpAnswered,
    "opLost": OpLost,
    "opRejected": OpRejected,
    "opSent": OpSent,
    "pushed": Pushed,
    "reidentified": Reidentified,
    "restored": Restored,
    "shared": Shared,
    "uncovered": Uncovered,
    "unchanged": FetchUnchanged,
    "confirmed": Confirmed,
    "fetched": Fetched,
    "fetchFailed": FetchFailed,
    "streamFailed": StreamFailed,
    "op": OpMade,
}
_NAMES = {"isStale": "is_stale", "notifiedUpTo": "notified_up_to"}


def action_of(spelled: Spelled) -> Action:
    """Return the action that a vector spells."""
    given = {_NAMES.get(name, name): _value(name, value) for name, value in spelled.items() if name != "t"}
    action: Action = _PLAIN[spelled["t"]](**given)
    return action


def _value(name: str, value: Any) -> Any:
    if name in {"version", "notifiedUpTo"}:
        return parse_version(value)
    if name == "apply":
        return update_of(value)
    return RuntimeError(value) if name == "error" and value is not None else value


def update_of(spelled: dict[str, str]) -> Callable[[Any], Any]:
    """Return the update that a vector spells."""
    if "set" in spelled:
        return lambda data: [spelled["set"]]
    return lambda data: [*(data or []), spelled["append"]]


def seen_of(snapshot: QuerySnapshot[Any]) -> dict[str, Any]:
    """Return what shows, under the vectors' names."""
    state = snapshot.state
    return {
        "shown": state.data,
        "isStale": state.is_stale,
        "isPending": state.is_pending,
        "isLoading": state.is_loading,
        "wanted": snapshot.wanted,
        "error": None if state.error is None else str(state.error),
    }
