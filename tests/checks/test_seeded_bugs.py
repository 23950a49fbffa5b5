"""The tests that put a bug in carry the marker `seeded_bug`, and none of them is lost."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
TESTS = ROOT / "tests"

CASES = 349
"""How many cases seed a bug, the soak's aside. May only go up: raise it with each that is added."""

SAYS_SO = re.compile("seeded_(bug|fault)|can_fail|found_out")
"""Names of tests that seed a bug, but for these."""

SEED_NONE = {"test_a_proxy_that_takes_less_is_found_out_by_halving"}


def marked_files() -> list[str]:
    """Return the test files in which a test is marked, but for those that `make soak` alone collects."""
    return sorted(
        path.relative_to(ROOT).as_posix()
        for path in TESTS.rglob("test_*.py")
        if "@pytest.mark.seeded_bug" in path.read_text(encoding="utf-8")
        and path != Path(__file__)
        and path.parent != TESTS / "soak"
    )


def unmarked(path: Path) -> Iterator[str]:
    """Yield the tests of a file whose names say that they seed a bug, and that are not marked."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            marks = {ast.unparse(decorator) for decorator in node.decorator_list}
            if SAYS_SO.search(node.name) and node.name not in SEED_NONE and "pytest.mark.seeded_bug" not in marks:
                yield f"{path.relative_to(ROOT)}::{node.name}"


def test_no_case_is_lost() -> None:
    """`pytest -m seeded_bug` runs as many cases as ever, and none fewer."""
    command = [sys.executable, "-m", "pytest", "-o", "addopts=--strict-markers", "-p", "no:cacheprovider"]
    command += ["--collect-only", "-q", "-m", "seeded_bug", *marked_files()]
    collected = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert collected.returncode == 0, collected.stdout + collected.stderr
    cases = sum("::" in line for line in collected.stdout.splitlines())
    assert cases >= CASES, f"{cases} cases seed a bug, and there were {CASES}"
    assert cases == CASES, f"{cases} cases seed a bug: raise CASES, so that none of them is lost"


def test_whoever_says_that_it_seeds_a_bug_is_marked() -> None:
    """Or the count above would leave it out."""
    assert [name for path in sorted(TESTS.rglob("test_*.py")) for name in unmarked(path)] == []
