"""The programs of the README and of the tutorial are right for mypy and pyright, as their readers' editors run them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.run_page import file_named_by, python_blocks
from tests.support.processes import script
from tests.typing.test_typing import REPOSITORY

FIRST = ("README.md", "docs/tutorial/index.md", "docs/tutorial/login.md")
"""Pages whose programs stand alone."""

PAGES = ["README.md", "docs/tutorial/index.md", "docs/tutorial/login.md", "docs/tutorial/testing.md"]


def programs(page: str) -> dict[str, str]:
    """Return `{file: its program}`, for those that a page has its readers write."""
    found = {}
    for block in python_blocks(str(REPOSITORY / page)):
        for name in file_named_by(block):
            found[name] = block.parsed
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a folder for each page, which has the programs of the pages before, too."""
    root = tmp_path_factory.mktemp("pages")
    written: dict[str, str] = {}
    for page in PAGES:
        made = programs(page)
        assert made or page.endswith("testing.md"), page
        written = made if page in FIRST else {**written, **made}
        folder = root / page.replace("/", "_").removesuffix(".md")
        folder.mkdir()
        for name, program in written.items():
            (folder / name).write_text(program, encoding="utf-8")
        if "generated_client" in "".join(written.values()):
            for command in (
                ["export-openapi", "main:app", "--out", "openapi/openapi.json"],
                ["generate", "--openapi", "openapi/openapi.json", "--out", "generated_client"],
            ):
                subprocess.run([script("reactive-rpc"), *command], cwd=folder, check=True, capture_output=True)
    return root


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("checker", ["mypy", "pyright"])
def test_a_page_is_right(page: str, checker: str, folder: Path) -> None:
    """Under the strictest rules of each."""
    command = ["mypy", "--strict", "--enable-error-code=deprecated", "--config-file="]
    if checker == "pyright":
        command = ["pyright", "--pythonpath", sys.executable]
    found = subprocess.run(
        [sys.executable, "-m", *command, "."],
        cwd=folder / page.replace("/", "_").removesuffix(".md"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stdout
