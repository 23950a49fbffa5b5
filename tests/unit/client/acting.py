"""Actions as the vectors spell them, and what shows of a snapshot."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from reactive_rpc.client import state as states
from reactive_rpc.client.versions import parse_version

__all__ = ["action_of", "seen_of", "update_of"]

Spelled = dict[str, Any]

_PLAIN: dict[str, type[Any]] = {
    "advanced": states.Advanced,
    "covered": states.Covered,
    "fetchStarted": states.FetchStarted,
    "holdExpired": states.HoldExpired,
    "invalidated": states.Invalidated,
    "opAnswered": states.OpAnswered,
    "opLost": states.OpLost,
    "opRejected": states.OpRejected,
    "opSent": states.OpSent,
    "pushed": states.Pushed,
    "reidentified": states.Reidentified,
    "restored": states.Restored,
    "shared": states.Shared,
    "uncovered": states.Uncovered,
    "unchanged": states.FetchUnchanged,
    "confirmed": states.Confirmed,
    "fetched": states.Fetched,
    "fetchFailed": states.FetchFailed,
    "streamFailed": states.StreamFailed,
    "op": states.OpMade,
}
_NAMES = {"isStale": "is_stale", "notifiedUpTo": "notified_up_to"}


def action_of(spelled: Spelled) -> states.Action:
    """Return the action that a vector spells."""
    given = {_NAMES.get(name, name): _value(name, value) for name, value in spelled.items() if name != "t"}
    action: states.Action = _PLAIN[spelled["t"]](**given)
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


def seen_of(snapshot: states.QuerySnapshot[Any]) -> dict[str, Any]:
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
