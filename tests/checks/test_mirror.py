"""The tests stand where `tests/README.md` says: a file is named after the module or folder of the package it tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = "reactive_rpc"

MIRRORS = {
    "tests/unit": "",
    "tests/integration/backends": "backends",
    "tests/integration/changes": "changes",
    "tests/integration/statements": "statements",
    "tests/integration/testing": "testing",
}
"""Which folder of tests mirrors which folder of the package."""

OF_CONTRACTS = "tests/contract"
"""Flat: what its files are named after may stand anywhere in the package."""

EXCEPTIONS = {
    "tests/unit/test_documented_parameters.py",  # of every public name, wherever it is defined
}
"""May only shrink."""


def strays(root: Path) -> Iterator[str]:
    """Yield the paths of the test files that are named after nothing in the package."""
    package = root / PACKAGE
    for folder, mirrored in MIRRORS.items():
        for path in sorted((root / folder).rglob("test_*.py")):
            if not _is_named(path, [package / mirrored / path.parent.relative_to(root / folder)]):
                yield path.relative_to(root).as_posix()
    folders = [package, *(path for path in package.rglob("*") if path.is_dir())]
    for path in sorted((root / OF_CONTRACTS).glob("test_*.py")):
        if not _is_named(path, folders):
            yield path.relative_to(root).as_posix()


def _is_named(path: Path, folders: list[Path]) -> bool:
    """Tell whether `test_{module}.py` or `test_{module}_{aspect}.py` has its module, or its folder, in one of these."""
    words = path.stem.split("_")[1:]
    names = ["_".join(words[:count]) for count in range(1, len(words) + 1)]
    return any(
        (folder / f"{name}.py").is_file() or (folder / name / "__init__.py").is_file()
        for folder in folders
        for name in names
    )


def test_every_file_is_named_after_what_it_tests() -> None:
    """Rename or move one that is not; an exception that excepts nothing goes."""
    found = set(strays(ROOT))
    assert found - EXCEPTIONS == set(), "these are named after no module or folder of the package"
    assert EXCEPTIONS - found == set(), "these are no exceptions any more: take them out of EXCEPTIONS"


@pytest.mark.parametrize(
    ("path", "is_stray"),
    [
        ("tests/unit/cache/test_reader.py", False),
        ("tests/unit/cache/test_reader_races.py", False),
        ("tests/unit/test_cache.py", False),
        ("tests/unit/cache/test_readers.py", True),
        ("tests/unit/test_reader.py", True),
        ("tests/unit/elsewhere/test_reader.py", True),
        ("tests/integration/changes/test_reader.py", True),
        ("tests/contract/test_reader.py", False),
        ("tests/contract/test_writer.py", True),
        ("tests/integration/server/test_anything.py", False),
    ],
)
def test_a_file_without_its_module_is_a_stray(tmp_path: Path, path: str, is_stray: bool) -> None:
    """By its folder and its name, which may end in an aspect; folders by feature are not looked into."""
    for each in ("reactive_rpc/cache/__init__.py", "reactive_rpc/cache/reader.py", path):
        (tmp_path / each).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / each).touch()
    assert list(strays(tmp_path)) == ([path] if is_stray else [])
