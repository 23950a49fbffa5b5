"""Where a server can be asked to die."""

from __future__ import annotations

from typing import Literal

__all__ = ["Crash"]

Crash = Literal["before_commit", "after_commit", "applying", "storing"]
"""In the transaction, between commit and announcement, before what was read is applied, before a result is stored."""
