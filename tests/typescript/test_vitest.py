"""The suites of `tests/typescript`, `*.test.ts`, which Vitest runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.node import TYPESCRIPT, package_script, run_node

SUITES = sorted(
    path.relative_to(TYPESCRIPT).as_posix()
    for path in TYPESCRIPT.rglob("*.test.ts*")
    if "node_modules" not in path.parts
)


def run_vitest(*filters: str, root: Path = TYPESCRIPT) -> str:
    """Return what Vitest says of the suites whose paths contain one of `filters`.

    Raises:
        AssertionError: one of their tests fails, or there is none.
    """
    config = str(TYPESCRIPT / "vitest.config.ts")
    options = ["--config", config, "--root", str(root), "--no-color"]
    return run_node(Path(package_script("vitest/vitest.mjs")), "run", *filters, *options)


@pytest.mark.parametrize("suite", SUITES)
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
