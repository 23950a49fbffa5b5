"""Processes of the tests' own, which import the tests as a package."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["ROOT", "environment_with"]

ROOT = Path(__file__).parents[2]
"""The folder that `tests` and `app` are imported from."""


def environment_with(**variables: str) -> dict[str, str]:
    """Return this process's environment, with `ROOT` in `PYTHONPATH`, and further variables."""
    return {**os.environ, "PYTHONPATH": str(ROOT), **variables}
