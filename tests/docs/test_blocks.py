"""Every block of code in the README, its neighbours and the docs: Python runs, commands and their options exist.

What answers is run by `tests/acceptance`: the README's application, client and commands, and the page of events.
"""

from __future__ import annotations

import json
import re
import shlex
import sqlite3
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import typer
from uvicorn import main as uvicorn_command

from reactive_rpc import Settings
from reactive_rpc.cli.main import cli

ROOT = Path(__file__).parents[2]
RUN = Path(__file__).with_name("run_page.py")
AT_THE_TOP = ("README.md", "CONTRIBUTING.md", "SECURITY.md")
PAGES = [*AT_THE_TOP, *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md"))]
TEXT = {page: (ROOT / page).read_text(encoding="utf-8") for page in PAGES}
RUN_ELSEWHERE = {"README.md", "docs/tutorial/live-page.md"}
"""Pages whose Python is served by `tests/acceptance/test_readme.py` and `tests/browser/test_live_page.py`."""

FENCE = re.compile(r"^ *```(.*)$", re.MULTILINE)
SHELL = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
SETUP = (ROOT / ".ci/setup").read_text(encoding="utf-8")
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
LOCK = ROOT / "tests/typescript/examples/package-lock.json"
LOCKED: dict[str, Any] = json.loads(LOCK.read_text(encoding="utf-8"))["packages"]
VARIABLES = {f"REACTIVE_RPC_{name}".upper() for name in Settings.model_fields}


@pytest.mark.parametrize("page", [page for page in PAGES if "```python" in TEXT[page] and page not in RUN_ELSEWHERE])
def test_the_python_of_a_page_runs(page: str, tmp_path: Path) -> None:
    """In order, as one module, in a process and a folder of its own; a warning is an error."""
    command = [sys.executable, "-W", "error", str(RUN), str(ROOT / page)]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=180)
    assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize("page", PAGES)
def test_every_block_says_its_language(page: str) -> None:
    """One of those that are run here or in `test_typescript.py`, or `text`: what a command answers, or a drawing."""
    opened = FENCE.findall(TEXT[page])[::2]
    assert set(opened) <= {"python", "sh", "text", "ts", "tsx", "js", "html", "svelte", "json"}


def commands(script: str) -> Iterator[tuple[dict[str, str], list[str]]]:
    """Yield each command of a script: the variables before it, and its words."""
    for line in script.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        places = [place for place, word in enumerate(words) if not re.match(r"[A-Z_]+=", word)]
        if places:
            first = places[0]
            yield dict(word.split("=", 1) for word in words[:first]), words[first:]


def takes(command: Any, name: str, words: list[str]) -> None:
    """Have a command of click's, or the one below it that the words name, read its words.

    Raises:
        click.UsageError: it has no such command, option or argument.
        typer.BadParameter, or the class above it: likewise, of a command made by typer, which has a click of its own.
    """
    with command.make_context(name, list(words)) as context:
        if hasattr(command, "resolve_command"):
            below, found, rest = command.resolve_command(context, [*context._protected_args, *context.args])
            assert found is not None
            takes(found, str(below), rest)


def targets(words: list[str]) -> None:
    """Require that make has the target, and that somebody reads the variables."""
    variables = [word.split("=")[0] for word in words if "=" in word]
    assert all(f"\n{name} ?=" in MAKEFILE or f"{{{name}:-" in SETUP for name in variables)
    for target in words[: len(words) - len(variables)]:
        assert f"\n.PHONY: {target}\n" in MAKEFILE


def paths(words: list[str]) -> None:
    """Require that there are such tests."""
    found = [word for word in words if "/" in word]
    assert found
    assert all((ROOT / path).exists() for path in found)


def statements(words: list[str]) -> None:
    """Require a file and one whole statement; the page runs it."""
    [file, statement] = words
    assert file.endswith(".db")
    assert sqlite3.complete_statement(f"{statement};")


def files_of_tests(words: list[str]) -> None:
    """Require that some page writes them."""
    assert all(f"```python\n# {word}\n" in "".join(TEXT.values()) for word in words)


def extras(words: list[str]) -> None:
    """Require that the package has the extras that are installed."""
    [install, what] = words
    [listed] = re.findall(r"^\.\[(.*)\]$", what)
    assert install == "install"
    assert set(listed.split(",")) <= set(EXTRAS)


def urls(words: list[str]) -> None:
    """Require that a server of ours is asked, on a path of procedures or events."""
    [url] = [word for word in words if word.startswith(("http", "$URL"))]
    assert re.match(r"(http://127\.0\.0\.1:8000|\$URL)/rpc/[a-z]+", url)


def packages(words: list[str]) -> None:
    """Require that each package that is installed is one of those that the examples are built with."""
    [install, *names] = [word for word in words if word != "--save-dev"]
    assert install == "install"
    assert {f"node_modules/{name}" for name in names} <= LOCKED.keys()


def commands_of_packages(words: list[str]) -> None:
    """Require that a package of the examples has the command."""
    assert any(words[0] in package.get("bin", {}) for package in LOCKED.values())


PROGRAMS: dict[str, Callable[[list[str]], None]] = {
    ".venv/bin/pytest": paths,
    "curl": urls,
    "make": targets,
    "npm": packages,
    "npx": commands_of_packages,
    "pip": extras,
    "pytest": files_of_tests,
    "reactive-rpc": lambda words: takes(typer.main.get_command(cli), "reactive-rpc", words),
    "sqlite3": statements,
    "uvicorn": lambda words: takes(uvicorn_command, "uvicorn", words),
}

COMMANDS = [(page, *command) for page in PAGES for script in SHELL.findall(TEXT[page]) for command in commands(script)]


@pytest.mark.parametrize(
    ("page", "variables", "words"), COMMANDS, ids=[" ".join(words[:3]) for _, _, words in COMMANDS]
)
def test_a_command_exists(page: str, variables: dict[str, str], words: list[str]) -> None:
    """With its options, arguments and variables."""
    PROGRAMS[words[0]](words[1:])
    ours = {name for name in variables if name.startswith("REACTIVE_RPC_")}
    assert ours <= VARIABLES
    assert all(in_the_tests_or_the_application(name) for name in variables.keys() - ours)


def in_the_tests_or_the_application(variable: str) -> bool:
    """Tell whether somebody reads a variable of the environment that is no setting."""
    files = [*(ROOT / "app").rglob("*.py"), *(ROOT / "tests").rglob("*.py")]
    return any(f'"{variable}"' in file.read_text(encoding="utf-8") for file in files)


@pytest.mark.parametrize(
    "script",
    [
        "make soundnes",
        "make soundness CASES=2",
        ".venv/bin/pytest tests/unit/none",
        "reactive-rpc db remove URL",
        "reactive-rpc doctor",
        "uvicorn main:app --worker 4",
        "pip install '.[all]'",
        "pytest test_none.py",
        'sqlite3 team.db "UPDATE person SET role = \'member"',
    ],
)
def test_a_command_that_does_not_exist_is_found(script: str) -> None:
    """A misspelt target, command, option or extra, and an argument that is missing."""
    [(_, words)] = commands(script)
    with pytest.raises((AssertionError, click.UsageError, *typer.BadParameter.__bases__)):
        PROGRAMS[words[0]](words[1:])
