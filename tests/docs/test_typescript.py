"""TypeScript in the documents: files are those of an example that is built and run, other blocks are type-checked."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.examples import EXAMPLES
from tests.support.pages import named_files, unnamed_blocks
from tests.support.processes import ROOT
from tests.support.typescript import COMPILERS, faults_of

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BUILT_ELSEWHERE = {"docs/tutorial/live-page.md"}
"""Pages whose files a test of their own builds and runs: `tests/browser/test_live_page.py`."""

UNUSED = "error TS6133"
"""A name that a block makes for its reader alone."""


def files() -> Iterator[tuple[str, str, str]]:
    """Yield each file that a page shows: the page, its path and its text."""
    for path in PAGES:
        page = str(path.relative_to(ROOT))
        if page not in BUILT_ELSEWHERE:
            shown = named_files(path.read_text(encoding="utf-8"), "ts", "tsx", "js", "html", "svelte")
            yield from ((page, name, text) for name, text in shown.items())


@pytest.mark.parametrize(("page", "name", "text"), [*files()], ids=lambda value: value if len(value) < 60 else "")
def test_a_file_that_a_page_shows_is_one_of_an_example(page: str, name: str, text: str) -> None:
    """As a whole, so that what a reader copies is what was built and run."""
    found = [example / name for example in EXAMPLES.iterdir() if (example / name).is_file()]
    assert text in [file.read_text(encoding="utf-8") for file in found], f"{page} shows {name} otherwise"


@pytest.mark.parametrize("version", COMPILERS)
@pytest.mark.parametrize(
    "page", [str(one.relative_to(ROOT)) for one in PAGES if unnamed_blocks(one.read_text(encoding="utf-8"))]
)
def test_the_typescript_of_a_page_compiles(page: str, version: str, tmp_path: Path) -> None:
    """All blocks in order, as one module beside TeamHub's client, with everything strict that a compiler has."""
    (tmp_path / "client").symlink_to(ROOT / "generated_client/typescript")
    blocks = unnamed_blocks((ROOT / page).read_text(encoding="utf-8"))
    faults = faults_of(tmp_path, {"page.tsx": "\n".join([*blocks, "export {};"])}, version=version)
    assert [fault for fault in faults if UNUSED not in fault] == []


RUNTIME = ROOT / "reactive_rpc/typescript/runtime"
REFERENCE = (ROOT / "docs/reference/typescript.md").read_text(encoding="utf-8")
DOCUMENTED = [
    ("reactive.ts", "ReactiveOptions", "createReactive"),
    ("reactive.ts", "CallOptions", "Reactive"),
    ("reactive.ts", "Reactive", "Reactive"),
    ("reactive.ts", "Status", "Reactive"),
    ("reactive.ts", "LiveQuery", "LiveQuery"),
    ("state.ts", "State", "LiveQuery"),
    ("queue.ts", "QueueOptions", "queue"),
    ("errors.ts", "ReactiveError", "ReactiveError"),
    ("react/index.ts", "Hooks", "React"),
]
"""Interfaces and classes of the runtime: the module, the name, and the section of the reference with their members."""

INTERNAL = {"constructor", "engine", "keysOf", "jsonOf"}
"""What the shells use of the classes."""


def members(module: str, name: str) -> list[str]:
    """Return the names of the public members of an interface or a class."""
    text = (RUNTIME / module).read_text(encoding="utf-8")
    [body] = re.findall(rf"^export (?:interface|class) {name}\b.*?{{\n(.*?)^}}", text, re.MULTILINE | re.DOTALL)
    found = re.findall(r"^  (?:readonly |async |get |override )*(\w+)[?<(:]", body, re.MULTILINE)
    return sorted({*found} - INTERNAL)


def rows(section: str) -> set[str]:
    """Return the names that the tables of a section begin their rows with."""
    [text] = re.findall(rf"^## {section}$(.*?)(?=^## |\Z)", REFERENCE, re.MULTILINE | re.DOTALL)
    return set(re.findall(r"^\| `(\w+)[`(]", text, re.MULTILINE))


@pytest.mark.parametrize(("module", "name", "section"), DOCUMENTED)
def test_every_member_is_in_the_reference(module: str, name: str, section: str) -> None:
    """In a table of its section."""
    named = members(module, name)
    assert len(named) > 2
    assert [member for member in named if member not in rows(section)] == []


@pytest.mark.parametrize("module", ["index.ts", "react.ts", "svelte.ts"])
def test_every_value_that_a_client_exports_has_an_example(module: str) -> None:
    """A block of the reference imports it from where a page does, and both compilers have read that block."""
    text = (ROOT / "generated_client/typescript" / module).read_text(encoding="utf-8")
    if module == "svelte.ts":
        text = (RUNTIME / "svelte/index.ts").read_text(encoding="utf-8")
    lists = re.findall(r"^export (?:const )?{([^}]*)}", text, re.MULTILINE)
    exported = {name.strip() for names in lists for name in names.split(",") if name.strip()}
    exported |= set(re.findall(r"^export (?:const|function) (\w+)", text, re.MULTILINE))
    used = {word for block in unnamed_blocks(REFERENCE) for word in re.findall(r"\w+", block)}
    assert exported - used - {"LiveQuery", "Pages", "Reactive"} == set()
