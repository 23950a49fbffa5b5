"""The examples of `tests/typescript/examples`, which the documents show: built, served, and opened in two browsers."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from tests.browser.forms import another, write
from tests.support.browser import Context, Tab
from tests.support.examples import Project, at_one_address, beside_its_application

__all__ = ["another"]


def react_router(folder: Path) -> Project:
    """Build the example, whose types are checked too."""
    project = Project.copied("react-router", folder)
    project.generate("app/client")
    project.run("react-router", "typegen")
    project.run("tsc")
    project.run("react-router", "build")
    return project


def test_react_router_renders_on_the_server_and_fetches_nothing_twice(
    tmp_path: Path, browser: Context, another: Context
) -> None:
    project = react_router(tmp_path)
    with at_one_address(project, project.command("react-router-serve"), "build/server/index.js") as url:
        is_rendered_once_and_live(url, browser, another)


def test_sveltekit_renders_on_the_server_and_fetches_nothing_twice(
    tmp_path: Path, browser: Context, another: Context
) -> None:
    project = Project.copied("sveltekit", tmp_path)
    project.generate("src/lib/client")
    project.run("vite", "build")
    with at_one_address(project, "node", "build/index.js") as url:
        is_rendered_once_and_live(url, browser, another)


def is_rendered_once_and_live(url: str, browser: Context, another: Context) -> None:
    """Require that a page has its notes in its HTML, asks for none of them, and shows what another browser writes."""
    httpx.post(f"{url}/rpc/notes.add", json={"room": "kitchen", "text": "sweep the floor"}).raise_for_status()
    assert "sweep the floor" in httpx.get(f"{url}/kitchen").raise_for_status().text
    first, second = browser.tab(f"{url}/kitchen"), another.tab(f"{url}/kitchen")
    for tab in (first, second):
        tab.until("document.querySelector('output').innerText === 'live'")
        tab.until("document.querySelector('ul').ariaBusy === 'false'")
        assert fetched(tab) == []
    write(second, "buy milk")
    for tab in (first, second):
        tab.until("document.querySelectorAll('li').length === 2")
        assert tab.faults == []
    # To another page without a reload: it is right there too, and what was watched before is no more.
    first.evaluate("document.querySelector('a').click()")
    first.until("document.querySelector('h1').innerText === 'attic'")
    write(second, "not for the attic")
    httpx.post(f"{url}/rpc/notes.add", json={"room": "attic", "text": "count the mice"}).raise_for_status()
    first.until("document.querySelector('li').innerText.startsWith('count the mice')")
    assert first.faults == []
    assert "console.error" not in browser.chromium.timeline()


def fetched(tab: Tab) -> list[str]:
    """Return the addresses of notes that a page has fetched."""
    names = "performance.getEntriesByType('resource').map(({ name }) => name)"
    return [name for name in tab.evaluate(names) if "notes.get_all" in name]


def test_a_page_without_a_bundler_is_right_in_two_browsers(tmp_path: Path, browser: Context, another: Context) -> None:
    """Its client is one file, made by one command; nothing of it needs more than a strict policy allows."""
    project = Project.copied("plain", tmp_path)
    project.generate("client")
    project.run("esbuild", "client/index.ts", "--bundle", "--format=esm", "--minify", "--outfile=client.js")
    with beside_its_application(project, ".") as url:
        is_right_in_both(url, browser, another)


def is_right_in_both(url: str, browser: Context, another: Context) -> None:
    """Require that two browsers show what one of them writes."""
    first, second = browser.tab(url), another.tab(url)
    for tab in (first, second):
        tab.until("document.querySelector('input') !== null")
    write(second, "buy milk")
    for tab in (first, second):
        tab.until("document.querySelector('li').innerText.startsWith('buy milk')")
        assert tab.faults == []


@pytest.mark.parametrize("way", ["", "#listen"], ids=["in its own QueryClient", "by the events of tRPC's wire"])
def test_a_page_of_trpc_and_tanstack_query_is_right_in_two_browsers(
    way: str, tmp_path: Path, browser: Context, another: Context
) -> None:
    """Its components are those of `@trpc/tanstack-react-query`, and know nothing of us."""
    project = Project.copied("tanstack", tmp_path)
    project.generate("src/client")
    project.run("tsc")
    project.run("vite", "build")
    with beside_its_application(project, "dist") as url:
        is_right_in_both(f"{url}/{way}", browser, another)
