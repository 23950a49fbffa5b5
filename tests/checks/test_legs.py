"""`make legs` where a Python is missing: what was not run is not taken for good."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

LEGS = Path(__file__).parents[2] / ".ci/legs"
NEVER_RELEASED = "2.99"


def run_legs(legs: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LEG")}
    environment |= {"LEGS": legs, **variables}
    return subprocess.run([str(LEGS)], env=environment, capture_output=True, text=True, check=False, timeout=60)


def test_a_leg_whose_python_is_missing_fails() -> None:
    """It names the leg, the Python and the way out."""
    ran = run_legs(NEVER_RELEASED)
    assert ran.returncode == 1
    assert f"leg {NEVER_RELEASED}: not run, as this machine has no Python {NEVER_RELEASED}" in ran.stdout
    assert "set LEGS_SKIP_MISSING=1" in ran.stdout


def test_a_leg_may_be_left_out_on_request() -> None:
    """It is said all the same."""
    ran = run_legs(NEVER_RELEASED, LEGS_SKIP_MISSING="1")
    assert ran.returncode == 0, ran.stderr
    assert "not run" in ran.stdout


@pytest.mark.parametrize("value", ["", "0", "no"])
def test_only_one_value_leaves_legs_out(value: str) -> None:
    """What is unset, or says no, leaves nothing out."""
    assert run_legs(NEVER_RELEASED, LEGS_SKIP_MISSING=value).returncode == 1
