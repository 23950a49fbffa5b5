"""Prose in pages wraps at 100 columns; tables, code and what cannot be broken may be longer."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [*(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")), *(ROOT / "docs").rglob("*.md")]
COLUMNS = 100


def too_long(page: str) -> list[str]:
    """Return the lines of prose that could be broken."""
    prose = re.sub(r"^ *```.*?^ *```$|<!--.*?-->", "", page, flags=re.MULTILINE | re.DOTALL)
    lines = [line for line in prose.splitlines() if not line.lstrip().startswith(("|", "#"))]
    return [
        line
        for line in lines
        if len(line) > COLUMNS and len(re.sub(r"`[^`]*`|\[[^]]*\]\([^)]*\)", "x", line).split()) > 1
    ]


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_prose_is_wrapped(page: Path) -> None:
    """So that a change shows in few lines."""
    assert too_long(page.read_text(encoding="utf-8")) == []


def test_a_long_line_is_found() -> None:
    """Prose, but not code, a table or a single link."""
    long = "word " * 30
    assert too_long(f"{long}\n\n```text\n{long}\n```\n\n| {long} |\n\n[{long}](page.md)\n") == [long]
