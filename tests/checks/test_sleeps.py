"""No test waits for a given time: `tests/support/waiting.py` waits for conditions, or says why time must pass."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.processes import ROOT

ALLOWED = ROOT / "tests/support/waiting.py"
CLOCKS = {"asyncio", "anyio", "time", "trio"}


def timed_sleeps(code: str) -> Iterator[int]:
    """Yield the lines that call `sleep` of a module which tells the time, however imported, other than with a 0."""
    tree = ast.parse(code)
    names = dict(_imported(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and _called(node.func, names) and not _is_zero(node):
            yield node.lineno


def _imported(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Yield `(name here, what it is)` of every import."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.asname or alias.name, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((alias.asname or alias.name, f"{node.module}.{alias.name}") for alias in node.names)


def _called(function: ast.expr, names: dict[str, str]) -> bool:
    if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name):
        return function.attr == "sleep" and names.get(function.value.id) in CLOCKS
    return isinstance(function, ast.Name) and names.get(function.id, "") in {f"{module}.sleep" for module in CLOCKS}


def _is_zero(call: ast.Call) -> bool:
    return not call.keywords and [ast.unparse(each) for each in call.args] == ["0"]


@pytest.mark.parametrize(
    "code",
    [
        "import time\ntime.sleep(1)",
        "import time as t\nt.sleep(0.1)",
        "from asyncio import sleep\nasync def f(): await sleep(0.1)",
        "from time import sleep as rest\nrest(seconds)",
        "import asyncio\nasyncio.sleep(delay=1)",
    ],
)
def test_a_timed_sleep_is_found(code: str) -> None:
    """However it is spelled."""
    assert list(timed_sleeps(code))


@pytest.mark.parametrize("code", ["import asyncio\nasyncio.sleep(0)", "clock.sleep(1)", "SQL = 'SELECT pg_sleep(1)'"])
def test_other_things_are_no_timed_sleep(code: str) -> None:
    """A turn of the event loop, a clock that the test moves, and a statement of a database."""
    assert not list(timed_sleeps(code))


def test_no_test_waits_for_a_given_time() -> None:
    """`waiting.until` and `wait_until` fail at a deadline with their reason; `waiting.idle` says why time must pass."""
    files = [file for file in sorted((ROOT / "tests").rglob("*.py")) if file != ALLOWED]
    found = [f"{file.relative_to(ROOT)}:{line}" for file in files for line in timed_sleeps(_text(file))]
    assert not found, f"wait for a condition instead, see tests/support/waiting.py: {found}"


def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8")
