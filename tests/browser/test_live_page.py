"""The tutorial `docs/tutorial/live-page.md`: each of its blocks is built and run as it stands, in two browsers."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from pathlib import Path

from reactive_rpc.testing import serving
from tests.browser.forms import another, write
from tests.support.browser import Context
from tests.support.examples import Project, run
from tests.support.pages import blocks_of, named_files
from tests.support.processes import ROOT

PAGE = (ROOT / "docs/tutorial/live-page.md").read_text(encoding="utf-8")
WRITTEN_FOR = "http://127.0.0.1:8000"

__all__ = ["another"]


def test_the_page_is_right_in_two_browsers_while_it_is_written_and_when_it_is_served(
    tmp_path: Path, browser: Context, another: Context
) -> None:
    for name, text in named_files(PAGE, "python", "ts", "tsx", "html").items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    [configuration] = blocks_of(PAGE, "json")
    (tmp_path / "tsconfig.json").write_text(configuration, encoding="utf-8")
    [install] = [script for script in blocks_of(PAGE, "sh") if "npm install" in script]
    for command in install.splitlines():
        if not command.startswith("npm"):
            run("bash", "-euc", command, folder=tmp_path)
    project = Project(tmp_path, tmp_path)
    with serving("main:app", folder=tmp_path) as api:
        config = tmp_path / "vite.config.ts"
        config.write_text(config.read_text().replace(WRITTEN_FOR, api))
        with project.serving_at("npx", "vite", "--port") as url:
            first, second = browser.tab(url), another.tab(url)
            for tab in (first, second):
                tab.until("document.querySelector('p').innerText === 'live'")
            write(second, "paint", field="title")
            for tab in (first, second):
                tab.until("document.querySelector('li').innerText.startsWith('paint')")
            first.evaluate("document.querySelector('button').click()")
            for tab in (first, second):
                tab.until("document.querySelectorAll('li').length === 0")
            [statement] = re.findall(r'^sqlite3 tasks.db "(.*)"', PAGE, re.MULTILINE)
            with closing(sqlite3.connect(tmp_path / "tasks.db")) as connection, connection:
                connection.execute(statement)
            for tab in (first, second):
                tab.until("document.querySelector('li').innerText.startsWith('buy milk')")
                assert tab.faults == []
    project.run("tsc")
    project.run("vite", "build")
    with serving("served:app", folder=tmp_path) as url:
        tab = browser.tab(url)
        tab.until("document.querySelector('li').innerText.startsWith('buy milk')")
        tab.until("document.querySelector('p').innerText === 'live'")
        assert tab.faults == []
