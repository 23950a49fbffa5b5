"""The example with Next.js, whose packages are 380 MB: `make examples` installs them and runs this, alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.browser.test_examples import another, is_rendered_once_and_live
from tests.support.browser import Context
from tests.support.examples import Project, at_one_address

__all__ = ["another"]


def test_nextjs_renders_on_the_server_and_fetches_nothing_twice(
    tmp_path: Path, browser: Context, another: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEXT_TELEMETRY_DISABLED", "1")
    project = Project.copied("nextjs", tmp_path)
    project.generate("client")
    project.run("next", "build", "--webpack")  # Turbopack reads no packages behind a link
    with at_one_address(project, project.command("next"), "start", "--hostname", "127.0.0.1") as url:
        is_rendered_once_and_live(url, browser, another)
