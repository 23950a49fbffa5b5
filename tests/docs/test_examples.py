"""Each public name has an example that runs: a doctest of its own, or a block of a page that uses it."""

from __future__ import annotations

import ast
import doctest
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from .run_page import python_blocks

ROOT = Path(__file__).parents[2]
MODULES = ["reactive_rpc", "reactive_rpc.client", "reactive_rpc.testing"]
NAMES = [(module, name) for module in MODULES for name in import_module(module).__all__]
REFERENCE = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "docs/reference").glob("*.md"))


def has_doctest(value: object) -> bool:
    """Tell whether the docstring of a name, or of a method of its, has an example."""
    return any(test.examples for test in doctest.DocTestFinder(recurse=True).find(value, name="it"))


def used_in(source: str, module: str) -> Iterator[str]:
    """Yield the names that a program imports from a module and then uses."""
    tree = ast.parse(source)
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module == module]
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    yield from (alias.name for node in imports for alias in node.names if alias.name in used)


@pytest.fixture(scope="module")
def programs() -> list[str]:
    """Return the program of each page: the blocks that readers see, and those that they do not."""
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    return ["\n".join(block.parsed for block in python_blocks(str(page))) for page in pages]


@pytest.mark.parametrize(("module", "name"), NAMES)
def test_a_public_name_has_an_example_that_runs(module: str, name: str, programs: list[str]) -> None:
    """A reader of the reference sees how it is used, and what is seen is true."""
    assert has_doctest(getattr(import_module(module), name)) or any(name in used_in(one, module) for one in programs)


@pytest.mark.parametrize(("module", "name"), NAMES)
def test_a_public_name_is_in_the_reference(module: str, name: str) -> None:
    """Once, under the name by which it is imported."""
    assert REFERENCE.count(f"::: {module}.{name}\n") == 1
