"""Mutations that wait for the network: over reloads, in several tabs, each made once, in order."""

from __future__ import annotations

import signal
import sqlite3
from contextlib import closing
from typing import Any

from tests.support.browser import Context, Tab
from tests.support.teamhub import TeamHub

AGENT = "agent-0001"
ADA: dict[str, Any] = {"identity": "ada"}
LIVE = "page.hub.status.state === 'live'"
STORED = "Object.keys(localStorage).filter((name) => name.startsWith('rx:') && name.includes(':out:'))"


def open_page(browser: Context, hub: TeamHub, token: str) -> Tab:
    """Open a page of Ada's that hears of changes."""
    tab = browser.tab(hub.page("waiting", token=token, options=ADA))
    tab.until(f"{LIVE} && page.lists.length > 0")
    return tab


def cut(tab: Tab, *, isolated: bool) -> None:
    """Let no request of a tab reach the procedures, though its page can be loaded; or end that."""
    urls = ["*/trpc/*", "*/rpc/*"] if isolated else []
    tab.call("Network.setBlockedURLs", urls=urls)


def send(tab: Tab, *bodies: str, to: str | None = None) -> None:
    """Write messages in a page, one after another."""
    for body in bodies:
        tab.evaluate(f"page.send({body!r}, {'null' if to is None else repr(to)})")


def sent(hub: TeamHub, prefix: str) -> list[str]:
    """Return the messages of the server that begin so, in the order in which they were made."""
    with closing(sqlite3.connect(hub.database, timeout=60)) as connection:
        rows = connection.execute("SELECT body FROM message WHERE body LIKE ? ORDER BY rowid", (f"{prefix}%",))
        return [body for (body,) in rows]


def test_what_was_written_offline_outlives_a_reload_and_arrives_once_in_order(
    hub: TeamHub, token: str, browser: Context
) -> None:
    """Three messages, a page that is loaded again without a server, and the network comes back."""
    tab = open_page(browser, hub, token)
    tab.go_offline()
    tab.until("page.hub.status.state === 'offline'")
    send(tab, "a 1", "a 2", "a 3")
    tab.until("page.waiting.join() === 'a 1,a 2,a 3'")
    assert tab.evaluate("page.hub.status.waiting") == 3
    cut(tab, isolated=True)
    tab.go_online()
    tab.reload()
    tab.until("page.waiting.join() === 'a 1,a 2,a 3' && page.hub.status.waiting === 3")
    send(tab, "a 4")
    assert sent(hub, "a ") == []
    cut(tab, isolated=False)
    tab.evaluate("page.hub.retry()")
    tab.until(f"{LIVE} && page.hub.status.waiting === 0 && page.waiting.length === 0")
    tab.until("page.lists.at(-1).filter((body) => body.startsWith('a ')).join() === 'a 1,a 2,a 3,a 4'")
    assert sent(hub, "a ") == ["a 1", "a 2", "a 3", "a 4"]
    assert tab.evaluate(STORED) == []
    assert tab.evaluate("[page.rejections, page.isDoubled, Object.keys(page.ended)]") == [[], False, ["a 4"]]


def test_what_was_made_though_its_answer_was_lost_is_made_once(hub: TeamHub, token: str, browser: Context) -> None:
    """The server is killed between COMMIT and answer, and the page is closed before it hears of anything."""
    tab = open_page(browser, hub, token)
    tab.evaluate("localStorage.setItem('losing', 'yes')")
    send(tab, "b 1", "b 2")
    tab.until("localStorage.getItem('losing') === 'lost'")
    hub.end(signal.SIGKILL)
    assert sent(hub, "b ")[:1] == ["b 1"]
    tab.evaluate("localStorage.removeItem('losing')")
    hub.start()
    tab.reload()
    tab.until(f"{LIVE} && page.hub.status.waiting === 0 && page.waiting.length === 0")
    assert sent(hub, "b ") == ["b 1", "b 2"]
    assert tab.evaluate(f"[page.rejections, {STORED}]") == [[], []]


def test_tabs_see_what_waits_and_the_order_is_that_of_all(hub: TeamHub, token: str, browser: Context) -> None:
    """One writes, the other shows it; who made it hears the answer, whichever tab sends."""
    one = open_page(browser, hub, token)
    other = open_page(browser, hub, token)
    for tab in (one, other):
        tab.go_offline()
        tab.until("page.hub.status.state === 'offline'")
    send(one, "c 1")
    other.until("page.waiting.join() === 'c 1'")
    send(other, "c 2")
    one.until("page.waiting.join() === 'c 1,c 2'")
    send(one, "c 3")
    other.until("page.hub.status.waiting === 3")
    for tab in (one, other):
        tab.go_online()
    for tab in (one, other):
        tab.until(f"{LIVE} && page.hub.status.waiting === 0 && page.waiting.length === 0")
    assert sent(hub, "c ") == ["c 1", "c 2", "c 3"]
    one.until("Object.keys(page.ended).toSorted().join() === 'c 1,c 3'")
    other.until("Object.keys(page.ended).join() === 'c 2'")
    assert one.evaluate("Object.values(page.ended).every((id) => id.startsWith('message-') || id.length > 20)")


def test_who_is_closed_while_it_sends_is_followed_by_another_tab(hub: TeamHub, token: str, browser: Context) -> None:
    """The tab that sends crashes with the answer under way."""
    one = open_page(browser, hub, token)
    other = open_page(browser, hub, token)
    one.evaluate("localStorage.setItem('losing', 'yes')")
    send(one, "d 1", "d 2")
    one.until("localStorage.getItem('losing') === 'lost'")
    other.evaluate("localStorage.removeItem('losing')")
    one.crash()
    other.until(f"page.hub.status.waiting === 0 && {STORED}.length === 0")
    assert sent(hub, "d ") == ["d 1", "d 2"]


def test_what_is_refused_is_told_of_in_each_tab_and_the_next_one_goes_on(
    hub: TeamHub, token: str, browser: Context
) -> None:
    """To an agent that there is not; the one after it arrives."""
    one = open_page(browser, hub, token)
    other = open_page(browser, hub, token)
    for tab in (one, other):
        tab.go_offline()
    send(one, "e 1", to="agent-none")
    send(one, "e 2")
    other.until("page.waiting.join() === 'e 1,e 2'")
    for tab in (one, other):
        tab.go_online()
    expected = [{"body": "e 1", "code": "NOT_FOUND", "mayBeMade": False}]
    for tab in (one, other):
        tab.until("page.rejections.length === 1 && page.waiting.length === 0")
        assert tab.evaluate("page.rejections") == expected
    assert sent(hub, "e ") == ["e 2"]
    one.until("page.ended['e 1'] === 'NOT_FOUND'")


def test_after_a_logout_nothing_of_what_waits_is_left_or_sent(hub: TeamHub, token: str, browser: Context) -> None:
    """The caller in this tab and in another one hears that it was not sent; whoever comes next sends nothing."""
    one = open_page(browser, hub, token)
    other = open_page(browser, hub, token)
    for tab in (one, other):
        tab.go_offline()
    send(other, "f 1")
    one.until("page.hub.status.waiting === 1")
    one.evaluate("page.hub.forget()")
    other.until("page.ended['f 1'] === 'ABORTED'")
    assert one.evaluate(STORED) == []
    grace = hub.log_in("ada@org-02.example")
    for tab in (one, other):
        tab.go_online()
    one.open(hub.page("waiting", token=grace, options={"identity": "grace"}))
    one.until(LIVE)
    assert sent(hub, "f ") == []


def test_what_waits_is_never_sent_as_somebody_else(hub: TeamHub, token: str, browser: Context) -> None:
    """The session was swapped while it waited, and the page names its caller as before: the server refuses it."""
    tab = open_page(browser, hub, token)
    tab.go_offline()
    send(tab, "g 1")
    tab.until("page.hub.status.waiting === 1")
    other = hub.log_in("ada@org-02.example")
    tab.evaluate(f"page.token = {other!r}")
    tab.go_online()
    tab.until("page.signedOut === 1")
    assert tab.evaluate(STORED) == []
    assert tab.evaluate("page.hub.status.waiting") == 0
    assert sent(hub, "g ") == []


def test_a_mutation_that_may_not_wait_fails_at_once(hub: TeamHub, token: str, browser: Context) -> None:
    """Without the network; nothing of it is stored."""
    tab = open_page(browser, hub, token)
    tab.go_offline()
    said = tab.evaluate(
        f"page.hub.call('agents.update', {{ agent_id: '{AGENT}', name: 'X' }}).catch(({{ code }}) => code)"
    )
    assert said == "CONNECTION_FAILED"
    assert tab.evaluate(STORED) == []
