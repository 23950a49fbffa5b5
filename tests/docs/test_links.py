"""Links that the site's build does not see: from the README and its neighbours, and names of pages in the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINK = re.compile(r"\]\(([^)#\s]*)(?:#([^)\s]+))?\)")
PAGE = re.compile(r"\bdocs/[\w/-]+\.md")
SOURCES = [
    *(
        ROOT / name
        for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "Makefile", "pyproject.toml")
    ),
    *(path for folder in ("reactive_rpc", "app", "benchmarks") for path in (ROOT / folder).rglob("*.py")),
]
MODULE = re.compile(r"`((?:[\w.-]+/)*[\w-]+\.py)`")
FOLDER = re.compile(r"`((?:[\w.-]+/)+)`")
MADE_BY_READERS = {
    *("main.py", "env.py", "openapi/", "generated_client/", "site/"),
    *("reactive_rpc/backends/mysql/", "tests/integration/backends/mysql/"),
}
TREE = {
    f"{path.relative_to(ROOT)}{'/' * path.is_dir()}"
    for folder in ("reactive_rpc", "tests", "benchmarks", "app", "docs", ".ci")
    for path in [ROOT / folder, *(ROOT / folder).rglob("*")]
}


def headings(page: Path) -> set[str]:
    """Return the anchors of a page, as the site and the forges make them."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\s-]", "", title).strip().lower().replace(" ", "-") for title in titles}


def broken(page: Path, text: str) -> list[str]:
    """Return the links of a page that lead nowhere."""
    found = []
    for path, anchor in LINK.findall(text):
        target = (page.parent / path) if path else page
        is_there = path.startswith("http") or (target.exists() and (not anchor or anchor in headings(target)))
        found += [] if is_there else [f"{path}#{anchor}"]
    return found


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"])
def test_a_page_outside_of_the_site_links_to_what_is_there(name: str) -> None:
    """Files and headings; those of the site are held by its strict build."""
    assert broken(ROOT / name, (ROOT / name).read_text(encoding="utf-8")) == []


def test_a_link_to_nothing_is_found() -> None:
    """A page and a heading that are not there."""
    text = "[a](docs/index.md) [b](docs/none.md) [c](README.md#try-it) [d](README.md#none)"
    assert broken(ROOT / "README.md", text) == ["docs/none.md#", "README.md#none"]


def test_a_page_that_the_code_names_is_there() -> None:
    """In docstrings, comments and messages."""
    named = {page for source in SOURCES for page in PAGE.findall(source.read_text(encoding="utf-8"))}
    assert len(named) > 5
    assert [page for page in named if not (ROOT / page).exists()] == []


def absent(text: str) -> list[str]:
    """Return the modules and folders that a page names and that are not there."""
    named = {*MODULE.findall(text), *FOLDER.findall(text)} - MADE_BY_READERS
    return sorted(name for name in named if not any(name == path or path.endswith(f"/{name}") for path in TREE))


def test_a_module_that_a_page_names_is_there() -> None:
    """Under its whole path, or under the end of it."""
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    assert {page.name: gone for page in pages if (gone := absent(page.read_text(encoding="utf-8")))} == {}


def test_each_term_of_the_glossary_names_its_module_or_another_term() -> None:
    """So that the way from a word of a bug report to its code is one page."""
    page = (ROOT / "docs/glossary.md").read_text(encoding="utf-8").split("\n## ")[0]
    terms = dict(re.findall(r"^\*\*(.+)\*\*\n:   ((?:.+\n)+)", page, re.MULTILINE))
    assert len(terms) > 25
    elsewhere = {term: re.findall(r"^See \*(.+)\*", text) for term, text in terms.items()}
    lost = [t for t, text in terms.items() if not MODULE.search(text) and not set(elsewhere[t]) & terms.keys()]
    assert lost == []


def test_a_module_that_is_gone_is_found() -> None:
    """Renamed or moved."""
    assert absent("`sql/database.py`, `app.py`, `delivery/`, `web/routing/`") == ["delivery/", "sql/database.py"]


def test_every_picture_is_shown() -> None:
    """By a page of the documentation: one that nobody sees is out of date before anybody knows."""
    shown = {
        target.rpartition("/")[2]
        for page in (ROOT / "docs").rglob("*.md")
        for target, _ in LINK.findall(page.read_text(encoding="utf-8"))
    }
    assert {picture.name for picture in (ROOT / "docs/images").iterdir()} <= shown
