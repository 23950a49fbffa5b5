"""A real Chromium, which programs of `tests/typescript/browser` start by `support/launch.ts`, and drive."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tests.support.node import TYPESCRIPT, run_node

__all__ = ["run_in_browser"]

PATIENCE_SECONDS = 300.0
"""The first program of all unpacks Chromium, and eight pages load slowly on a machine that does other work too."""


def run_in_browser(
    name: str,
    *arguments: str,
    environment: Mapping[str, str] | None = None,
    within_seconds: float = PATIENCE_SECONDS,
) -> Any:
    """Return the JSON value that a program prints in its last line.

    Args:
        name: of the program, without its folder and `.ts`.
        arguments: its own.
        environment: variables beside this process's own.
        within_seconds: how long it may take.

    Raises:
        AssertionError: it fails, or has not ended in time; it says what the program printed.
    """
    program = TYPESCRIPT / "browser" / f"{name}.ts"
    printed = run_node(program, *arguments, environment=environment, within_seconds=within_seconds)
    return json.loads(printed.splitlines()[-1])
