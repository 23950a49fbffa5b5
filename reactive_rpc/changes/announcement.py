"""How a topic is announced: in the transaction of whoever announces. See `dependencies/topics.py`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sqlalchemy import Connection

__all__ = ["Announce"]

Announce = Callable[[Connection, str, Sequence[str] | None], None]
"""Announce stored keys of a topic, by its name in the log; None is all of it. The transaction stays open."""
