"""The suites of `tests/typescript`, `*.test.ts`, which Vitest runs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.node import TYPESCRIPT, package_script, run_node

PATIENCE_SECONDS = 600.0
"""More than `vitest.config.ts` gives one test, so that Vitest names the one that hangs."""


def suites() -> Iterator[str]:
    """Yield the path of each suite; `node_modules`, with thousands of folders and suites of others, is left out."""
    for folder, folders, files in os.walk(TYPESCRIPT):
        folders[:] = sorted({*folders} - {"node_modules"})
        yield from (str(Path(folder, file).relative_to(TYPESCRIPT)) for file in sorted(files) if ".test.ts" in file)


def run_vitest(*filters: str, root: Path = TYPESCRIPT) -> str:
    """Return what Vitest says of the suites whose paths contain one of `filters`.

    Raises:
        AssertionError: one of their tests fails, or there is none.
    """
    config = str(TYPESCRIPT / "vitest.config.ts")
    options = ["--config", config, "--root", str(root), "--no-color"]
    return run_node(
        Path(package_script("vitest/vitest.mjs")), "run", *filters, *options, within_seconds=PATIENCE_SECONDS
    )


@pytest.mark.parametrize("suite", [*suites()])
def test_a_suite_passes(suite: str) -> None:
    """Each by itself, so that they are spread over the processes of the tests."""
    assert " passed" in run_vitest(suite)


def test_a_failure_of_vitest_fails_with_its_output(tmp_path: Path) -> None:
    """A suite may stand anywhere, and finds Vitest."""
    suite = "import { expect, test } from 'vitest';\ntest('adds', () => expect(1 + 1).toBe(3));\n"
    (tmp_path / "wrong.test.ts").write_text(suite, encoding="utf-8")
    with pytest.raises(AssertionError, match=r"(?s)expected 2 to be 3.*wrong\.test\.ts:2"):
        run_vitest(root=tmp_path)


def test_no_suite_is_a_failure(tmp_path: Path) -> None:
    """A filter that matches nothing is a mistake."""
    with pytest.raises(AssertionError, match="No test files found"):
        run_vitest("no_such_suite", root=tmp_path)
