"""Credentials that end while a page shows something, and a caller who is sent away."""

from __future__ import annotations

from itertools import count

from tests.support.browser import Context, Tab
from tests.support.teamhub import TeamHub

AGENT = "agent-0004"
ONE = ["agents.get_one", {"agent_id": AGENT}]
FRESH = "page.isFresh('agents.get_one')"
STATE = "page.hub.status.state"
WAS_LIVE = f"{FRESH} && {STATE} === 'live'"


def page_with_a_token_that_ends(hub: TeamHub, browser: Context) -> Tab:
    """Return a page whose token ends soon, but has got it a stream: it lasts longer, the slower this machine is."""
    for doublings in count():
        tab = browser.tab(hub.page(token=hub.token_for(2.0**doublings), show=[ONE]))
        if tab.until(f"({WAS_LIVE} && 'live') || (page.unauthorized > 0 && 'late')") == "live":
            return tab
        tab.close()
    raise AssertionError("unreachable")


def test_a_token_that_expires_in_mid_stream_is_asked_for_once_and_data_stays(hub: TeamHub, browser: Context) -> None:
    """The page shows what it had, as stale; with another token of the same caller it goes on, and fetches no more."""
    tab = page_with_a_token_that_ends(hub, browser)
    tab.until(f"page.unauthorized === 1 && {STATE} === 'refused'")
    assert tab.evaluate("page.now('agents.get_one').isStale")
    hub.write("UPDATE agent SET role = 'meanwhile' WHERE id = ?", AGENT)
    asked = tab.evaluate("({ ...page.asked })")
    token = hub.log_in()
    tab.evaluate(f"{{ page.token = '{token}'; page.hub.reidentify(); }}")
    tab.until(f"{WAS_LIVE} && page.now('agents.get_one').data.role === 'meanwhile'")
    assert tab.evaluate("page.unauthorized") == 1
    assert tab.evaluate("page.asked['agents.get_one']") <= asked["agents.get_one"] + 1
    first = tab.evaluate("page.frames.findIndex(({ state }) => state.data !== undefined)")
    assert tab.evaluate(f"page.frames.slice({first}).every(({{ state }}) => state.data !== undefined)")


def test_credentials_are_asked_for_at_each_request(hub: TeamHub, browser: Context) -> None:
    """A page that renews its token in time is never interrupted: the next stream has the new one."""
    tab = browser.tab(hub.page(token=hub.log_in(), show=[ONE]))
    tab.until(WAS_LIVE)
    renewed = hub.token_for(3000)
    tab.evaluate(f"{{ page.token = '{renewed}'; page.show('agents.get_all'); }}")
    tab.until(f"{WAS_LIVE} && page.isFresh('agents.get_all')")
    assert tab.evaluate("page.unauthorized") == 0
    refused = [line for line in tab.chromium.timeline().splitlines() if " < 401 " in line]
    assert refused == []


def test_who_is_sent_away_hears_of_it_once_and_asks_for_nothing_more(hub: TeamHub, browser: Context) -> None:
    """Their user goes to another organization: the stream says `revoked`, and the page waits for other credentials."""
    tab = browser.tab(hub.page(token=hub.log_in("ada@org-03.example"), show=[["agents.get_all"]]))
    tab.until(f"page.isFresh('agents.get_all') && {STATE} === 'live'")
    hub.write("UPDATE user SET organization_id = 'org-04' WHERE id = 'user-03'")
    tab.until(f"page.unauthorized === 1 && {STATE} === 'refused'")
    hub.wait_for_streams(0)
    hub.write("UPDATE agent SET role = 'secret' WHERE organization_id = 'org-03'")
    # Whoever looks at it again, nothing is asked without other credentials but what somebody wants anew.
    tab.evaluate("dispatchEvent(new Event('online'))")
    assert tab.evaluate("new Promise((done) => requestIdleCallback(() => done(page.unauthorized)))") == 1
    assert "secret" not in tab.evaluate("JSON.stringify(page.frames)")
    token = hub.log_in("ada@org-03.example")
    tab.evaluate(f"{{ page.token = '{token}'; page.hub.forget(); }}")
    tab.until("page.isFresh('agents.get_all')")
    assert tab.evaluate("page.now('agents.get_all').data.every((agent) => agent.organization_id === 'org-04')")


def test_a_logout_fetches_what_is_shown_once_for_whoever_comes(hub: TeamHub, token: str, browser: Context) -> None:
    """One request a query, although a former caller's may be under way; nothing of the former in between."""
    tab = browser.tab(hub.page(token=token, show=[ONE]))
    tab.until(WAS_LIVE)
    asked = tab.evaluate("page.asked['agents.get_one']")
    tab.evaluate("page.hub.forget()")
    tab.until(WAS_LIVE)
    assert tab.evaluate("page.asked['agents.get_one']") == asked + 1
