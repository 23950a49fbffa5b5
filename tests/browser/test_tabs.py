"""Tabs of one browser share one event stream, whatever happens to the tab that has it."""

from __future__ import annotations

from itertools import count

import pytest

from tests.support.browser import Context, Tab
from tests.support.teamhub import TeamHub

AGENT = "agent-0001"
ONE = ["agents.get_one", {"agent_id": AGENT}]
ALL = ["agents.get_all"]
FRESH = "page.isFresh('agents.get_one')"
STREAMS = "(page.asked.events ?? 0)"
"""How many streams a tab has opened."""
WAKE = "wake up"
STORED = "Object.keys(localStorage).filter((key) => key.startsWith('rx:')).length"
NUMBERS = count(1)

UNHEARD = "document.addEventListener('freeze', (event) => event.stopImmediatePropagation(), true)"
"""The page does not hear that it is frozen."""

NO_LOCKS = "Object.defineProperty(Navigator.prototype, 'locks', { value: undefined })"
"""As in an old browser, or on plain HTTP elsewhere than on this machine."""

HANG = f"""
setTimeout(() => {{
  for (let role = ''; role !== '{WAKE}'; ) {{
    const request = new XMLHttpRequest();
    request.open('POST', '/rpc/agents.get_one', false);
    request.setRequestHeader('content-type', 'application/json');
    request.setRequestHeader('authorization', 'Bearer ' + page.token);
    request.send(JSON.stringify({{ agent_id: '{AGENT}' }}));
    role = JSON.parse(request.responseText).role;
  }}
}})
"""
"""Let the page's thread do nothing else until the agent has the role that wakes it: no timer says how long."""


def open_tabs(hub: TeamHub, token: str, browser: Context, number: int, **options: str) -> list[Tab]:
    """Return tabs that show an agent, opened one after another; the last is seen, the first leads."""
    tabs: list[Tab] = []
    for _ in range(number):
        if tabs:
            tabs[-1].hide()
        tab = browser.tab(hub.page(token=token, show=[ONE], options=options))
        tab.until(FRESH)
        tabs.append(tab)
    assert [tab.evaluate(f"{STREAMS} > 0") for tab in tabs] == [True] + [False] * (number - 1)
    return tabs


def write(hub: TeamHub, role: str | None = None) -> str:
    """Give the agent another role, behind the server's back; return it."""
    role = role or f"role {next(NUMBERS)}"
    hub.write("UPDATE agent SET role = ? WHERE id = ?", role, AGENT)
    return role


def all_show(tabs: list[Tab], role: str) -> None:
    """Wait until all tabs show a role, as fresh."""
    for tab in tabs:
        tab.until(f"{FRESH} && page.now('agents.get_one').data.role === '{role}'")


def nothing_wrong_was_shown(tabs: list[Tab]) -> None:
    """Hold that no tab has thrown anything."""
    assert [fault for tab in tabs for fault in tab.faults] == []


def test_eight_tabs_load_and_have_one_stream(hub: TeamHub, token: str, browser: Context) -> None:
    """HTTP/1.1 has six connections: with a stream a tab, the seventh would load nothing."""
    tabs = open_tabs(hub, token, browser, 8)
    hub.wait_for_streams(1)
    all_show(tabs, write(hub))
    assert [tab.evaluate(STREAMS) for tab in tabs] == [1] + [0] * 7
    # What one tab wants beside, all have by the stream of all; it takes over from the one before.
    tabs[7].evaluate("page.show('agents.get_all')")
    tabs[7].until("page.isFresh('agents.get_all')")
    role = write(hub)
    tabs[7].until(f"page.isFresh('agents.get_all') && page.now('agents.get_all').data.some((a) => a.role === '{role}')")
    hub.wait_for_streams(1)
    assert sum(tab.evaluate(STREAMS) for tab in tabs) == 2
    nothing_wrong_was_shown(tabs)


def test_hidden_tabs_take_what_a_tab_that_is_seen_has_fetched(hub: TeamHub, token: str, browser: Context) -> None:
    """One fetch for all; unless the tab that is seen takes so long that they lose their patience."""
    tabs = open_tabs(hub, token, browser, 4)
    before = [tab.evaluate("page.asked['agents.get_one'] ?? 0") for tab in tabs]
    all_show(tabs, write(hub))
    after = [tab.evaluate("page.asked['agents.get_one'] ?? 0") for tab in tabs]
    assert after[3] == before[3] + 1
    nothing_wrong_was_shown(tabs)


@pytest.mark.parametrize("end", ["close", "crash"])
def test_another_tab_takes_over_if_the_leader_is_gone(hub: TeamHub, token: str, browser: Context, end: str) -> None:
    """With or without a word; a write of that moment shows."""
    leader, *others = open_tabs(hub, token, browser, 4)
    getattr(leader, end)()
    all_show(others, write(hub))
    hub.wait_for_streams(1)
    nothing_wrong_was_shown(others)


@pytest.mark.parametrize("is_heard", [True, False], ids=["heard", "unheard"])
def test_another_tab_takes_over_if_the_leader_is_frozen(
    hub: TeamHub, token: str, browser: Context, is_heard: bool
) -> None:
    """One that does not hear of it keeps the lock, which is stolen; resumed it follows, and opens no stream."""
    leader, *others = tabs = open_tabs(hub, token, browser, 3)
    if not is_heard:
        leader.evaluate(UNHEARD)
    leader.freeze()
    all_show(others, write(hub))
    assert sum(tab.evaluate(STREAMS) for tab in others) >= 1
    leader.resume()
    leader.show()
    all_show(tabs, write(hub))
    hub.wait_for_streams(1)
    assert leader.evaluate(STREAMS) == 1
    nothing_wrong_was_shown(tabs)


def test_another_tab_takes_over_if_the_leader_hangs(hub: TeamHub, token: str, browser: Context) -> None:
    """It steps down when it wakes."""
    leader, *others = tabs = open_tabs(hub, token, browser, 3)
    leader.evaluate(f"{HANG} && 1")
    all_show(others, write(hub))
    others[-1].until(f"{STREAMS} > 0")
    all_show(others, write(hub, WAKE))
    all_show(tabs, WAKE)
    hub.wait_for_streams(1)
    all_show(tabs, write(hub))
    assert leader.evaluate(STREAMS) == 1
    nothing_wrong_was_shown(tabs)


def test_a_leader_that_is_left_and_comes_back_is_right_again(hub: TeamHub, token: str, browser: Context) -> None:
    """By the events of a page that is kept, as the Chromium of the tests keeps none: no stream, then it follows."""
    leader, *others = tabs = open_tabs(hub, token, browser, 2)
    leader.evaluate("dispatchEvent(new PageTransitionEvent('pagehide', { persisted: true }))")
    assert leader.evaluate("page.now('agents.get_one').isStale")
    role = write(hub)
    all_show(others, role)
    hub.wait_for_streams(1)
    assert leader.evaluate("page.now('agents.get_one').isStale")
    leader.evaluate("dispatchEvent(new PageTransitionEvent('pageshow', { persisted: true }))")
    all_show(tabs, role)
    hub.wait_for_streams(1)
    assert leader.evaluate(STREAMS) == 1
    nothing_wrong_was_shown(tabs)


def test_without_locks_tabs_that_are_hidden_have_no_stream(hub: TeamHub, token: str, browser: Context) -> None:
    """And go on where they were when they are seen again."""
    tabs: list[Tab] = []
    for _ in range(8):
        tab = browser.tab()
        tab.before_each_page(NO_LOCKS)
        tab.open(hub.page(token=token, show=[ONE]))
        tab.until(FRESH)
        tab.hide()
        tab.until("page.now('agents.get_one').isStale")
        tabs.append(tab)
    hub.wait_for_streams(0)
    role = write(hub)
    for tab in tabs[:2]:
        tab.show()
        all_show([tab], role)
    assert tabs[2].evaluate("page.now('agents.get_one').isStale")
    nothing_wrong_was_shown(tabs)


def test_a_logout_leaves_nothing_in_any_tab_nor_in_storage(hub: TeamHub, token: str, browser: Context) -> None:
    """The other tabs are emptied in the same way, and their pages are told."""
    tabs = open_tabs(hub, token, browser, 3, identity="ada")
    tabs[0].until(f"{STORED} > 0")
    for tab in tabs:
        tab.evaluate("page.hide('agents.get_one')")
    tabs[1].evaluate("page.hub.forget()")
    for tab in (tabs[0], tabs[2]):
        tab.until("page.signedOut === 1")
    assert tabs[1].evaluate("page.signedOut") == 0
    assert tabs[0].evaluate(STORED) == 0
    assert [
        tab.evaluate("page.hub.client.getQueryCache().getAll().every(({ state }) => !state.data)") for tab in tabs
    ] == [True] * 3
    hub.wait_for_streams(0)
    nothing_wrong_was_shown(tabs)


def test_a_frozen_tab_that_wakes_after_a_logout_shows_nothing_of_the_last_user(
    hub: TeamHub, token: str, browser: Context
) -> None:
    """It was in no group, so it has heard nothing; nor has any answer come since."""
    frozen, other = tabs = open_tabs(hub, token, browser, 2, identity="ada")
    frozen.evaluate(
        "page.seen = []; document.addEventListener('resume', () => page.seen.push(page.now('agents.get_one').data))"
    )
    frozen.freeze()
    other.evaluate("page.hide('agents.get_one'); page.hub.forget()")
    frozen.resume()
    frozen.until("page.seen.length === 1 && page.signedOut === 1")
    assert frozen.evaluate("page.seen[0] === undefined")
    assert other.evaluate("Object.keys(localStorage).map((key) => key.split(':')[0])") == ["rx-out"]
    nothing_wrong_was_shown(tabs)


def test_tabs_of_two_callers_have_nothing_in_common(hub: TeamHub, token: str, browser: Context) -> None:
    """Each has a stream of its own, and shows what its caller may see."""
    ada = browser.tab(hub.page(token=token, show=[ALL], options={"storage": "none"}))
    other = browser.tab(hub.page(token=hub.log_in("ada@org-02.example"), show=[ALL], options={"storage": "none"}))
    for tab in (ada, other):
        tab.until("page.isFresh('agents.get_all')")
    hub.wait_for_streams(2)
    names = "page.now('agents.get_all').data.map(({ id }) => id).join()"
    assert ada.evaluate(names) != other.evaluate(names)
    nothing_wrong_was_shown([ada, other])
