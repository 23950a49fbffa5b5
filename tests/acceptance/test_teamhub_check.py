"""TeamHub's own declarations hold: every query is tried on the examples that its documentation shows."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from app.seed import seed

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("command", "text"),
    [
        ("check", "11 queries were tried"),
        ("doctor", "organizations.get_mine"),
        ("explain", "narrow: from_agent_id = 'agent-0001'"),
    ],
)
def test_every_query_is_cached_and_every_declaration_holds(tmp_path: Path, command: str, text: str) -> None:
    """No query is left untried, fails, or cannot be cached, but for the streamed one; no dependency drifts."""
    seed(tmp_path / "teamhub.db")
    arguments = [command, "app.main:rpc", "--context", "app.seed:CONTEXTS"]
    found = subprocess.run(
        [sys.executable, "-c", "from reactive_rpc.cli import main; main()", *arguments],
        check=False,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stdout + found.stderr
    assert text in found.stdout
    assert not any(words in found.stdout for words in ("not tried", "no: it", "not known", "not run"))
