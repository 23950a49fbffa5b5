"""TeamHub's smaller page, in Svelte: built from `app/svelte`, served by `app.main` under the strict policy."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser.forms import another, write
from tests.support.browser import Context
from tests.support.page import Page, build
from tests.support.processes import ROOT
from tests.support.teamhub import TeamHub

LIVE = "document.querySelector('header output').innerText === 'live'"
SHOWN = "[...document.querySelectorAll('li')].map((li) => li.innerText)"
MANY = 95
INSERT = """
WITH RECURSIVE number(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < ?)
INSERT INTO message (id, from_agent_id, body, created_at)
SELECT 'old-' || n, ?, 'old ' || n, '2020-01-01 00:00:00.000000' FROM number
"""

__all__ = ["another"]


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory, seeded: Path, pages: Path) -> Iterator[TeamHub]:
    """A TeamHub that serves the page in Svelte."""
    built = build(tmp_path_factory.mktemp("page"), sources=ROOT / "app/svelte")
    folder = tmp_path_factory.mktemp("teamhub")
    with TeamHub(folder, seeded=seeded, pages=pages, environment={"TEAMHUB_PAGE": str(built)}) as hub:
        yield hub


def test_somebody_logs_in_and_out(hub: TeamHub, browser: Context) -> None:
    """A wrong password is said, the right one shows the organization, and nothing stays after a logout."""
    page = Page(browser, hub, email="")
    page.is_there("input[type=password]")
    page.focus("input[type=password]")
    page.write("wrong")
    page.press("Enter", code=13, text="\r")
    page.shows("No account has this address and password.")
    page.tab.evaluate("document.querySelector('input[type=password]').select()")
    page.write("teamhub")
    page.press("Enter", code=13, text="\r")
    page.shows("Katherine", within="nav")
    page.click("button", "Log out")
    page.is_there("input[type=password]")
    # All that stays is the word of the logout, for tabs that are frozen: it tells nothing of who it was.
    assert page.tab.evaluate("Object.keys(localStorage).map((key) => key.split(':')[0])") == ["rx-out"]


def test_agents_are_live(hub: TeamHub, browser: Context) -> None:
    """A row that another program writes shows by itself."""
    page = Page(browser, hub)
    page.tab.until(LIVE)
    page.shows("Katherine", within="nav")
    hub.write("UPDATE agent SET role = 'Conductor' WHERE id = ?", "agent-0008")
    page.shows("Conductor", within="nav")


def test_a_message_shows_before_the_server_has_answered(hub: TeamHub, browser: Context, another: Context) -> None:
    """It is marked as being sent until then, and shows in another browser after that."""
    here, there = (Page(context, hub, path="/#agent-0001") for context in (browser, another))
    for page in (here, there):
        page.tab.until(f"{LIVE} && document.querySelector('ol').ariaBusy === 'false' && {SHOWN}.length > 0")
    hub.pause()
    try:
        write(here.tab, "All three quotes are in.", field="body")
        here.shows("All three quotes are in.", within="li.sending")
    finally:
        hub.resume()
    for page in (here, there):
        page.shows("All three quotes are in.", within="ol")
        page.tab.until("document.querySelector('li.sending') === null")
        assert page.tab.faults == []
    assert here.tab.evaluate(f"{SHOWN}.filter((text) => text.startsWith('All three quotes')).length") == 1


def test_a_message_that_is_refused_is_given_back(hub: TeamHub, browser: Context) -> None:
    """It leaves the list, the reason is said, and the text is in the field again."""
    page = Page(browser, hub, path="/#agent-0001")
    page.tab.until(f"{LIVE} && {SHOWN}.length > 0")
    write(page.tab, "x" * 5000, field="body")
    page.tab.until("document.querySelector('main [role=alert]').innerText !== ''")
    page.tab.until("document.querySelector('input[name=body]').value.length === 5000")
    page.tab.until("document.querySelector('li.sending') === null")
    assert not page.tab.evaluate(f"{SHOWN}.some((text) => text.startsWith('xxxx'))")


def test_a_conversation_is_read_back_to_its_beginning(hub: TeamHub, browser: Context) -> None:
    """Each page is loaded when the end of the one before is in view, and what is deleted meanwhile leaves."""
    agent = "agent-0005"
    hub.write("DELETE FROM message WHERE from_agent_id = ?1 OR to_agent_id = ?1", agent)
    hub.write(INSERT, MANY, agent)
    page = Page(browser, hub, path=f"/#{agent}")
    page.tab.until(f"{LIVE} && {SHOWN}.length >= 30")
    page.tab.until(
        "document.querySelector('main > button') === null || (scrollTo(0, document.body.scrollHeight), false)"
    )
    assert page.tab.evaluate(f"{SHOWN}.length") == MANY
    hub.write("DELETE FROM message WHERE id = 'old-50'")
    page.tab.until(f"{SHOWN}.length === {MANY - 1}")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_no_fault(hub: TeamHub, browser: Context, theme: str) -> None:
    """A screen reader can read the login, and an agent."""
    page = Page(browser, hub, email="", theme=theme)
    page.is_there("input[type=password]")
    faults = page.axe()
    shown = Page(browser, hub, theme=theme, path="/#agent-0001")
    shown.tab.until(f"{LIVE} && {SHOWN}.length > 0")
    assert faults + shown.axe() == []
