"""A module with many procedures is typed throughout, and a checker has little to try for each of its lines."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any, get_overloads

import pytest

from benchmarks.type_checks import CHECKERS, command_of, module_of
from reactive_rpc import Caller, Definer
from reactive_rpc.procedures.definer import MutationDefiner, QueryDefiner


@pytest.mark.parametrize("checker", CHECKERS)
def test_each_call_has_its_own_type(tmp_path: Path, checker: str) -> None:
    """Of every definer, and of every procedure's own arguments: one wrong call is the one error."""
    file = tmp_path / "procedures.py"
    right = module_of(40)
    file.write_text(right.replace("a7='x'", "a7=7"))
    done = subprocess.run(command_of(checker, file), cwd=tmp_path, capture_output=True, text=True, check=False)
    wrong = {number for number, line in enumerate(right.splitlines(), 1) if "a7='x'" in line}
    assert {int(part.split(":")[1]) for part in done.stdout.splitlines() if "error:" in part} == wrong


@pytest.mark.parametrize(
    ("called", "at_most"),
    [
        (Caller.__call__, 2),
        (Definer.__call__, 16),
        (QueryDefiner.__call__, 16),
        (MutationDefiner.__call__, 12),
        (Definer.use, 5),
    ],
)
def test_the_overloads_are_few(called: Any, at_most: int) -> None:
    """A checker tries them in turn, for each procedure and each call, which is what its time goes to."""
    assert 0 < len(get_overloads(called)) <= at_most
