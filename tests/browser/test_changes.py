"""Who writes does not matter: a page shows it."""

from __future__ import annotations

import pytest

from generated_client import SyncTeamHub
from tests.support.browser import Chromium, Context
from tests.support.teamhub import TeamHub

AGENT = "agent-0002"
ONE = ["agents.get_one", {"agent_id": AGENT}]
FRESH = "page.isFresh('agents.get_one')"


def test_a_write_of_anybody_shows(hub: TeamHub, token: str, browser: Context, chromium: Chromium) -> None:
    """By `sqlite3`, the Python client, another browser, the page's own mutation; each costs one fetch at most."""
    tab = browser.tab(hub.page(token=token, show=[ONE]))
    tab.until(f"{FRESH} && page.hub.status.state === 'live'")

    hub.write("UPDATE agent SET role = 'by sqlite3' WHERE id = ?", AGENT)
    tab.until(f"{FRESH} && page.now('agents.get_one').data.role === 'by sqlite3'")

    with SyncTeamHub(hub.url, headers={"authorization": f"Bearer {token}"}) as client:
        client.agents.update(agent_id=AGENT, role="by Python")
    tab.until(f"{FRESH} && page.now('agents.get_one').data.role === 'by Python'")

    elsewhere = chromium.new_context()
    other = elsewhere.tab(hub.page(token=token))
    other.evaluate(f"page.hub.call('agents.update', {{ agent_id: '{AGENT}', role: 'by a browser' }})")
    tab.until(f"{FRESH} && page.now('agents.get_one').data.role === 'by a browser'")
    elsewhere.close()

    tab.evaluate(f"page.hub.call('agents.update', {{ agent_id: '{AGENT}', role: 'by itself' }})")
    tab.until(f"{FRESH} && page.now('agents.get_one').data.role === 'by itself'")
    assert tab.evaluate("page.asked['agents.get_one']") <= 5


UPDATE = """
page.hub.call('agents.update', { agent_id: '%(agent)s', %(change)s }, {
  optimistic: (on) => on('agents.get_one', { agent_id: '%(agent)s' }, (agent) => ({ ...agent, %(change)s })),
}).then(() => 'done', (error) => error.code)
"""
FRAMES = "page.frames.map(({ state }) => [state.data?.name, state.isPending])"


def test_an_own_change_shows_at_once_and_never_goes_back(hub: TeamHub, token: str, browser: Context) -> None:
    """Frames: the old one, the new one, and nothing in between; pending until the server's answer contains it."""
    tab = browser.tab(hub.page(token=token, show=[ONE]))
    tab.until(f"{FRESH} && page.hub.status.state === 'live'")
    before = tab.evaluate("page.now('agents.get_one').data.name")
    own = UPDATE % {"agent": AGENT, "change": "name: 'Renamed'"}
    # In one turn of the page: it shows before anything was sent.
    shown = tab.evaluate(f"(() => {{ globalThis.made = {own}; return page.now('agents.get_one'); }})()")
    assert (shown["data"]["name"], shown["isPending"]) == ("Renamed", True)
    assert tab.evaluate("made") == "done"
    tab.until(FRESH)
    names = [name for name, _ in tab.evaluate(FRAMES) if name is not None]
    assert list(dict.fromkeys(names)) == [before, "Renamed"]
    assert names == sorted(names, key=[before, "Renamed"].index)


@pytest.mark.parametrize(
    ("change", "code"),
    [("name: ''", "BAD_REQUEST"), ("name: 'x'.repeat(101)", "BAD_REQUEST")],
    ids=["an empty name", "a long one"],
)
def test_an_own_change_that_is_refused_goes_back(
    hub: TeamHub, token: str, browser: Context, change: str, code: str
) -> None:
    """Frames: the old one, the new one as pending, the old one; and it is the truth without a reload."""
    tab = browser.tab(hub.page(token=token, show=[ONE]))
    tab.until(f"{FRESH} && page.hub.status.state === 'live'")
    before = tab.evaluate("page.now('agents.get_one').data.name")
    assert tab.evaluate(UPDATE % {"agent": AGENT, "change": change}) == code
    tab.until(f"{FRESH} && !page.now('agents.get_one').isPending")
    frames = [(name, pending) for name, pending in tab.evaluate(FRAMES) if name is not None]
    changes = [frame for index, frame in enumerate(frames) if index == 0 or frames[index - 1] != frame]
    new = tab.evaluate(f"({{ {change} }}).name")
    assert changes == [(before, False), (new, True), (before, False)]
