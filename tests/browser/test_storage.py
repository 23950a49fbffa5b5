"""What a page keeps for the next visit: where it may, and only there; and a storage that is of no use is none."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.support.browser import Context, Tab
from tests.support.teamhub import TeamHub

AGENT = "agent-0003"
ONE = ["agents.get_one", {"agent_id": AGENT}]
ALL = ["agents.get_all"]
ADA = {"identity": "ada"}
FRESH = "page.isFresh('agents.get_one') && page.isFresh('agents.get_all')"
KEYS = 'Object.keys({}).filter((key) => key.startsWith(\'rx:\')).map((key) => /"(\\w+)","(\\w+)"/.exec(key)[2]).sort()'


def wait_until_kept(tab: Tab, storage: str, *queries: str) -> None:
    """Wait until a storage holds the results of these queries, and of no others."""
    tab.until(f"{KEYS.format(storage)}.join() === '{','.join(sorted(queries))}'")


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({}, {}),
        ({"identity": ""}, {}),
        ({"storage": "session"}, {}),
        (ADA, {"localStorage": ["get_all", "get_one"]}),
        (ADA | {"storage": "local"}, {"localStorage": ["get_all", "get_one"]}),
        (ADA | {"storage": "session"}, {"sessionStorage": ["get_all", "get_one"]}),
        (ADA | {"persist": {"agents.get_one": False}}, {"localStorage": ["get_all"]}),
        (
            ADA | {"storage": "session", "persist": {"agents": False, "agents.get_one": True}},
            {"sessionStorage": ["get_one"]},
        ),
    ],
    ids=[
        "nobody says whose they are",
        "of nobody",
        "of nobody, session",
        "by default",
        "local",
        "session",
        "one is not kept",
        "one of a namespace is kept",
    ],
)
def test_results_are_kept_where_the_page_says(
    hub: TeamHub, token: str, browser: Context, options: dict[str, Any], kept: dict[str, list[str]]
) -> None:
    """The first frames after a reload have what was kept, and nothing else."""
    tab = browser.tab(hub.page(token=token, show=[ONE, ALL], options=options))
    tab.until(FRESH)
    for storage in ("localStorage", "sessionStorage"):
        wait_until_kept(tab, storage, *kept.get(storage, []))
    tab.reload()
    for query in ("get_one", "get_all"):
        first = tab.evaluate(f"page.frames.find(({{ path }}) => path === 'agents.{query}').state")
        assert ("data" in first) == (query in [name for names in kept.values() for name in names])
    tab.until(FRESH)


def test_nothing_is_kept_if_the_page_wants_so(hub: TeamHub, token: str, browser: Context) -> None:
    """Also at the end of the page, when all that waits is written."""
    tab = browser.tab(hub.page(token=token, show=[ONE, ALL], options=ADA | {"storage": "none"}))
    tab.until(FRESH)
    tab.open(f"{hub.url}/pages/empty.html")
    assert tab.evaluate("[localStorage.length, sessionStorage.length]") == [0, 0]


def test_what_waits_is_written_when_the_page_goes(hub: TeamHub, token: str, browser: Context) -> None:
    """Somebody leaves the page in the moment in which a result comes."""
    tab = browser.tab(hub.page(token=token, show=[ONE, ALL], options=ADA))
    # In one turn of the page, before there is time to write.
    tab.evaluate(f"new Promise((done) => page.whenever(() => {FRESH} && done(location.assign('empty.html'))))")
    tab.until("location.pathname.endsWith('empty.html')")
    wait_until_kept(tab, "localStorage", "get_one", "get_all")


FULL = """
(() => {
  localStorage.clear();
  for (let size = 1 << 22; size > 0; size >>= 1)
    for (let n = 0; ; n += 1) {
      try { localStorage.setItem(`full${size}-${n}`, 'x'.repeat(size)); } catch { break; }
    }
  return localStorage.length;
})()
"""


def test_a_full_storage_is_as_none(hub: TeamHub, token: str, browser: Context) -> None:
    """What others have put there stays; the page shows what it always shows, and hears of changes."""
    tab = browser.tab(f"{hub.url}/pages/empty.html")
    filled = tab.evaluate(FULL)
    tab.open(hub.page(token=token, show=[ONE, ALL], options=ADA))
    tab.until(FRESH)
    tab.evaluate("page.hub.close()")
    assert tab.evaluate("localStorage.length") == filled
    tab.reload()
    tab.until(FRESH)
    hub.write("UPDATE agent SET role = 'full' WHERE id = ?", AGENT)
    tab.until(f"{FRESH} && page.now('agents.get_one').data.role === 'full'")


FORBIDDEN = """
for (const name of ['localStorage', 'sessionStorage'])
  Object.defineProperty(globalThis, name, { get() { throw new DOMException('denied', 'SecurityError'); } });
"""


def test_a_forbidden_storage_is_as_none(hub: TeamHub, token: str, browser: Context) -> None:
    """Its mere name throws, as where somebody blocks cookies; the page shows what it always shows."""
    tab = browser.tab(f"{hub.url}/pages/empty.html")
    tab.call("Page.addScriptToEvaluateOnNewDocument", source=FORBIDDEN)
    for options in (ADA, ADA | {"storage": "session"}):
        tab.open(hub.page(token=token, show=[ONE, ALL], options=options))
        tab.until(FRESH)
        tab.reload()
        tab.until(FRESH)
        tab.evaluate("page.hub.forget()")


def test_what_somebody_has_damaged_is_not_shown(hub: TeamHub, token: str, browser: Context) -> None:
    """An entry that is half of one, and one of another shape: they are fetched."""
    tab = browser.tab(hub.page(token=token, show=[ONE, ALL], options=ADA))
    tab.until(FRESH)
    wait_until_kept(tab, "localStorage", "get_one", "get_all")
    tab.evaluate("page.hub.close()")
    tab.evaluate("""(() => {
      const [one, all] = ['get_one', 'get_all'].map((name) => Object.keys(localStorage).find((k) => k.includes(name)));
      localStorage.setItem(one, localStorage.getItem(one).slice(0, 60));
      localStorage.setItem(all, '17|0|{"json":{"created_at":5},"etag":"x","version":"y"}');
    })()""")
    tab.reload()
    tab.until(FRESH)
    shapes = "page.frames.every(({ state }) => state.data === undefined || state.data.id || Array.isArray(state.data))"
    assert tab.evaluate(shapes)


def test_without_a_name_whoever_comes_next_sees_nothing_of_the_former(
    hub: TeamHub, token: str, browser: Context
) -> None:
    """Neither a logout nor a name: the next user of a machine that is shared begins empty, from the first frame on."""
    tab = browser.tab(hub.page(token=token, show=[ONE, ALL]))
    tab.until(FRESH)
    tab.open(f"{hub.url}/pages/empty.html")
    assert tab.evaluate("[localStorage.length, sessionStorage.length]") == [0, 0]
    tab.open(hub.page(token=hub.log_in("ada@org-02.example"), show=[ALL]))
    tab.until("page.isFresh('agents.get_all')")
    assert "org-01" not in tab.evaluate("JSON.stringify(page.frames)")


@pytest.mark.parametrize("damaged", [False, True], ids=["whole", "damaged"])
def test_another_session_under_the_same_name_empties_everything(
    hub: TeamHub, token: str, browser: Context, damaged: bool
) -> None:
    """The cookie was swapped, and the page does not know: by the first answer nothing of the former is left."""
    tab = browser.tab(hub.page(token=token, show=[ONE, ALL], options=ADA))
    tab.until(FRESH)
    wait_until_kept(tab, "localStorage", "get_one", "get_all")
    tab.evaluate("page.hub.close()")
    if damaged:
        tab.evaluate("""for (const [key, text] of Object.entries({ ...localStorage }))
          localStorage.setItem(key, text.replace(/\\|[^|]*\\|/, '|'));""")
    tab.open(hub.page(token=hub.log_in("ada@org-02.example"), show=[ALL], options=ADA))
    tab.until("page.isFresh('agents.get_all')")
    former = "page.frames.filter(({ state }) => JSON.stringify(state.data ?? null).includes('org-01'))"
    assert tab.evaluate(f"{former}.filter(({{ state }}) => !state.isStale)") == []
    assert tab.evaluate(f"{former}.length > 0") == (not damaged)
    assert tab.evaluate("page.signedOut") == (0 if damaged else 1)
    assert "org-01" not in tab.evaluate("JSON.stringify({ ...localStorage })")
    assert "org-01" not in tab.evaluate("JSON.stringify(page.hub.client.getQueryCache().getAll().map((q) => q.state))")


def test_after_a_logout_nothing_is_left(hub: TeamHub, token: str, browser: Context) -> None:
    """Neither of what was shown, nor of what waits to be written, in storage or on the page; another begins empty."""
    tab = browser.tab(hub.page(token=token, show=[ONE, ALL], options=ADA))
    tab.until(FRESH)
    wait_until_kept(tab, "localStorage", "get_one", "get_all")
    hub.write("UPDATE agent SET role = 'secret' WHERE id = ?", AGENT)
    tab.until("page.now('agents.get_one').data.role === 'secret'")
    # What has just come waits to be written.
    gone = tab.evaluate(
        "{ page.token = ''; page.hub.forget(); } page.frames.slice(-2).map(({ state }) => state.data ?? null)"
    )
    assert gone == [None, None]
    tab.evaluate("page.hub.close()")
    tab.open(f"{hub.url}/pages/empty.html")
    # But for the word that tabs find which were frozen: a small number, and when it was, and nothing of who it was.
    [(name, word)] = tab.evaluate("Object.entries(localStorage)")
    assert re.fullmatch(r"rx-out:\d{1,5}", name)
    assert re.fullmatch(r"\d{13}(\.\d+)?", word)
    assert tab.evaluate("sessionStorage.length") == 0
    assert tab.evaluate("caches.keys()") == []
    assert tab.evaluate("indexedDB.databases()") == []


def test_whoever_comes_next_sees_nothing_of_the_former(hub: TeamHub, token: str, browser: Context) -> None:
    """Without a logout: the page says who they are, and that suffices, from the first frame on."""
    tab = browser.tab(hub.page(token=token, show=[ONE, ALL], options=ADA))
    tab.until(FRESH)
    wait_until_kept(tab, "localStorage", "get_one", "get_all")
    other = hub.log_in("ada@org-02.example")
    tab.open(hub.page(token=other, show=[ALL], options={"identity": "grace"}))
    tab.until("page.isFresh('agents.get_all')")
    assert tab.evaluate(
        "page.frames.every(({ state }) => (state.data ?? []).every((a) => a.organization_id === 'org-02'))"
    )
    wait_until_kept(tab, "localStorage", "get_all")
    assert "org-01" not in tab.evaluate("JSON.stringify({ ...localStorage })")
