"""What comes between a page and its server: the server goes, the network goes, the page sleeps."""

from __future__ import annotations

import signal

from tests.support.browser import Context, Tab
from tests.support.teamhub import TeamHub

AGENT = "agent-0001"
ONE = ["agents.get_one", {"agent_id": AGENT}]
FRESH = "page.isFresh('agents.get_one')"
STATE = "page.hub.status.state"


def change(hub: TeamHub, role: str) -> None:
    """Give the agent another role, behind the server's back."""
    hub.write("UPDATE agent SET role = ? WHERE id = ?", role, AGENT)


def wait_until_shown(tab: Tab, role: str) -> None:
    """Wait until the page shows that role, and says that it is not stale."""
    tab.until(f"{FRESH} && page.now('agents.get_one').data.role === '{role}'")


def assert_never_fresh_and_wrong(tab: Tab, *roles: str) -> None:
    """Hold that what counted as fresh went through these roles in order, and was nothing else."""
    fresh = "page.frames.filter(({ state }) => !state.isStale && state.data).map(({ state }) => state.data.role)"
    seen = tab.evaluate(fresh)
    assert list(dict.fromkeys(seen)) == list(roles)


def test_a_server_that_is_killed_leaves_data_that_is_stale_and_returns_to_the_truth(
    hub: TeamHub, token: str, browser: Context
) -> None:
    """A write while it is down shows once it is up again; nobody reloads."""
    change(hub, "first")
    tab = browser.tab(hub.page(token=token, show=[ONE]))
    wait_until_shown(tab, "first")
    hub.end(signal.SIGKILL)
    tab.until(f"page.now('agents.get_one').isStale && {STATE} === 'reconnecting'")
    assert tab.evaluate("page.now('agents.get_one').data.role") == "first"
    change(hub, "second")
    hub.start()
    wait_until_shown(tab, "second")
    assert tab.evaluate(STATE) == "live"
    assert_never_fresh_and_wrong(tab, "first", "second")


def test_a_server_that_is_stopped_and_started_costs_no_fetch_of_what_has_not_changed(
    hub: TeamHub, token: str, browser: Context
) -> None:
    """The ETag confirms it, also to a server that knows nothing of the one before."""
    tab = browser.tab(hub.page(token=token, show=[ONE]))
    tab.until(FRESH)
    hub.end()
    tab.until("page.now('agents.get_one').isStale")
    hub.start()
    tab.until(FRESH)
    assert tab.evaluate("page.asked['agents.get_one']") == 1


def test_offline_and_back(hub: TeamHub, token: str, browser: Context) -> None:
    """What is shown stays, as stale; it is right again without a reload."""
    change(hub, "before")
    tab = browser.tab(hub.page(token=token, show=[ONE]))
    wait_until_shown(tab, "before")
    tab.go_offline()
    tab.until(f"{STATE} === 'offline' && page.now('agents.get_one').isStale")
    assert tab.evaluate("page.now('agents.get_one').data.role") == "before"
    change(hub, "after")
    tab.go_online()
    wait_until_shown(tab, "after")
    tab.until(f"{STATE} === 'live'")
    assert_never_fresh_and_wrong(tab, "before", "after")


def test_a_stream_whose_sockets_stay_open_does_not_count_when_the_network_goes(
    hub: TeamHub, token: str, browser: Context
) -> None:
    """They may say nothing of it for minutes: by the browser's word the page is stale in the same turn."""
    tab = browser.tab(hub.page(token=token, show=[ONE]))
    tab.until(f"{FRESH} && {STATE} === 'live'")
    seen = f"dispatchEvent(new Event('offline')), [page.now('agents.get_one').isStale, {STATE}]"
    assert tab.evaluate(seen) == [True, "offline"]
    tab.evaluate("dispatchEvent(new Event('online'))")
    change(hub, "online")
    wait_until_shown(tab, "online")


def test_a_page_that_is_offline_from_the_start_shows_what_it_showed_last(
    hub: TeamHub, token: str, browser: Context
) -> None:
    """As one does whose files a service worker has: all that it shows is stale, and it says why."""
    tab = browser.tab(hub.page(token=token, show=[ONE], options={"identity": "ada"}))
    tab.until(FRESH)
    tab.until("Object.keys(localStorage).some((key) => key.includes('get_one'))")
    tab.go_offline()
    tab.evaluate("{ globalThis.page = page.again(); }")
    tab.until("page.now('agents.get_one').error !== null")
    assert tab.evaluate(STATE) == "offline"
    assert tab.evaluate("page.frames.every(({ state }) => state.isStale && state.data !== undefined)")
    tab.go_online()
    tab.until(FRESH)


def test_a_page_that_was_frozen_is_right_once_it_is_seen_again(hub: TeamHub, token: str, browser: Context) -> None:
    """A change meanwhile waits for it."""
    change(hub, "before")
    tab = browser.tab(hub.page(token=token, show=[ONE]))
    wait_until_shown(tab, "before")
    tab.hide()
    tab.freeze()
    change(hub, "after")
    tab.resume()
    tab.show()
    wait_until_shown(tab, "after")
    assert_never_fresh_and_wrong(tab, "before", "after")


def test_a_page_that_was_hidden_for_long_takes_another_stream(hub: TeamHub, token: str, browser: Context) -> None:
    """The old one seems to be up, but its sockets may be gone: both end in one, and nothing is fetched."""
    tab = browser.tab(hub.page(token=token, show=[ONE]))
    tab.until(f"{FRESH} && {STATE} === 'live'")
    asked = tab.evaluate("page.asked.events")
    tab.hide()
    # The page's clock alone: it has been hidden for a minute.
    tab.evaluate("{ const { now } = Date; Date.now = () => now() + 60_000; }")
    tab.show()
    tab.until(f"page.asked.events === {asked + 1}")
    hub.wait_for_streams(1)
    change(hub, "after")
    wait_until_shown(tab, "after")


def test_a_glance_at_another_tab_costs_nothing(hub: TeamHub, token: str, browser: Context) -> None:
    """Hidden for a moment: the stream that is up stays."""
    tab = browser.tab(hub.page(token=token, show=[ONE]))
    tab.until(f"{FRESH} && {STATE} === 'live'")
    asked = tab.evaluate("({ ...page.asked })")
    # The page's clock stands, however slow this machine is.
    tab.evaluate("{ const at = Date.now(); Date.now = () => at; }")
    tab.hide()
    tab.show()
    change(hub, "glanced")
    wait_until_shown(tab, "glanced")
    assert tab.evaluate("page.asked.events") == asked["events"]


def test_a_page_out_of_the_back_and_forward_cache_is_right(hub: TeamHub, token: str, browser: Context) -> None:
    """It was frozen there, and comes back with all its objects: it does not trust the stream that it had."""
    change(hub, "before")
    tab = browser.tab(hub.page(token=token, show=[ONE]))
    wait_until_shown(tab, "before")
    asked = tab.evaluate("page.asked.events")
    # This Chromium is built without the cache, so the page hears what one hears that is taken out of it.
    tab.hide()
    tab.evaluate("dispatchEvent(new PageTransitionEvent('pagehide', { persisted: true }))")
    tab.freeze()
    change(hub, "after")
    tab.resume()
    tab.evaluate("dispatchEvent(new PageTransitionEvent('pageshow', { persisted: true }))")
    tab.show()
    wait_until_shown(tab, "after")
    tab.until(f"page.asked.events > {asked} && {STATE} === 'live'")
    hub.wait_for_streams(1)
    assert_never_fresh_and_wrong(tab, "before", "after")


def test_a_page_that_somebody_goes_back_to_shows_at_once_what_it_showed(
    hub: TeamHub, token: str, browser: Context
) -> None:
    """Loaded anew, out of storage; a change meanwhile shows."""
    change(hub, "before")
    tab = browser.tab(hub.page(token=token, show=[ONE], options={"identity": "ada"}))
    wait_until_shown(tab, "before")
    tab.open(f"{hub.url}/pages/empty.html")
    hub.wait_for_streams(0)
    change(hub, "after")
    tab.back()
    assert tab.until("page.frames[0]")["state"]["data"]["role"] == "before"
    wait_until_shown(tab, "after")
    assert_never_fresh_and_wrong(tab, "after")


def test_a_page_whose_second_chunk_is_missing_shows_the_servers_answers_as_stale_and_is_live_once_it_is_there(
    hub: TeamHub, token: str, browser: Context
) -> None:
    """As after a deployment that has removed it: nothing throws, and nothing counts as confirmed."""
    change(hub, "alone")
    tab = browser.tab()
    tab.call("Network.setBlockedURLs", urls=["*/live-*.js"])
    tab.open(hub.page(token=token, show=[ONE]))
    tab.until("page.now('agents.get_one')?.data?.role === 'alone' && page.now('agents.get_one').error !== null")
    assert tab.evaluate("page.frames.every(({ state }) => state.isStale)")
    assert tab.evaluate(STATE) == "reconnecting"
    change(hub, "heard of")
    tab.call("Network.setBlockedURLs", urls=[])
    wait_until_shown(tab, "heard of")
    assert tab.evaluate(STATE) == "live"
    assert_never_fresh_and_wrong(tab, "heard of")
