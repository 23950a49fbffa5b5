"""The official clients of tRPC, each run by Node against a server, with the checks of `tests/typescript/trpc/`."""

from __future__ import annotations

import json
from typing import Any

from tests.support.node import TYPESCRIPT, run_node

CLIENTS = {"newest": "trpc/newest.ts", "11.22.1": "trpc_11_22/pinned.ts"}


def faults_of(script: str, *arguments: str) -> dict[str, Any]:
    """Run a script of checks, and return `{check: what was wrong, or None}`."""
    said = [json.loads(line) for line in run_node(TYPESCRIPT / script, *arguments).splitlines()]
    return {each["name"]: each["fault"] for each in said}
