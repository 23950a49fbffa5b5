"""The server of `fanout_reactive.py`, whose worker nobody wakes: it looks at the log in intervals, however idle."""

from __future__ import annotations

from benchmarks.fanout_reactive import app, rpc
from reactive_rpc.changes.wake_up import NoWakeUp

__all__ = ["app"]

rpc._follower._wake_up = NoWakeUp()
