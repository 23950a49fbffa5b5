"""mypy and pyright find every wrong line of the files beside this one, and nothing else (G5)."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[1]
FILES = ("calls.py", "procedures.py", "yielding.py")

Lines = dict[str, set[int]]
"""`{file: numbers of lines}`."""


def expected() -> Lines:
    """Return the lines that are marked as wrong."""
    return {
        name: {
            number
            for number, line in enumerate((HERE / name).read_text().splitlines(), start=1)
            if re.search(r"# error: \w", line)
        }
        for name in FILES
    }


def difference(found: Lines) -> str:
    """Say which lines are found or marked, and not both."""
    lines = {name: found.get(name, set()) ^ marked for name, marked in expected().items()}
    others = found.keys() - lines.keys()
    return f"found or marked, not both: {lines}; errors in other files: {sorted(others)}"


def run(command: list[str]) -> str:
    """Run a type checker on the files and return what it says."""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    answer = subprocess.run(
        [*command, *(str(HERE / name) for name in FILES)],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 1, answer.stdout + answer.stderr
    return answer.stdout


def test_mypy_finds_each_wrong_line(pytestconfig: pytest.Config) -> None:
    """`mypy --strict` reports exactly the marked lines."""
    # Kept between runs: what is not ours is checked once.
    cache = pytestconfig.cache.mkdir("mypy_typing") if pytestconfig.cache else os.devnull
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--enable-error-code=deprecated",
        "--config-file=",
        "--cache-dir",
        str(cache),
    ]
    output = run([*command, "--no-error-summary", "--hide-error-context", "--show-absolute-path"])
    found: Lines = {name: set() for name in FILES}
    for path, number, severity in re.findall(r"^(.+?):(\d+): (error|note):", output, re.MULTILINE):
        if severity == "error":
            found.setdefault(Path(path).name, set()).add(int(number))
    assert found == expected(), difference(found)


def test_pyright_finds_each_wrong_line() -> None:
    """pyright, in its standard mode as an editor runs it, reports exactly the marked lines."""
    command = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable]
    output = run(command)
    found: Lines = {name: set() for name in FILES}
    for one in json.loads(output)["generalDiagnostics"]:
        if one["severity"] == "error":
            found.setdefault(Path(one["file"]).name, set()).add(one["range"]["start"]["line"] + 1)
    assert found == expected(), difference(found)
