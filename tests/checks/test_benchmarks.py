"""The benchmarks are run by hand alone: that each of them can still be begun is held here."""

from __future__ import annotations

import subprocess
import sys

import pytest

from benchmarks.run import BENCHMARKS
from tests.support.processes import ROOT


@pytest.mark.parametrize("name", BENCHMARKS)
def test_each_benchmark_can_be_begun(name: str) -> None:
    """It is imported in a process of its own, as it is run, and has a function to run."""
    code = f"from importlib import import_module as load; assert callable(load('benchmarks.{name}').run)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_an_unknown_benchmark_is_refused() -> None:
    """With the names of those that there are."""
    command = [sys.executable, "-m", "benchmarks.run", "raeds"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 1
    assert "there is no benchmark 'raeds': reads, trpc, reload, browsers, writes" in done.stderr
