"""TeamHub's page in Chromium: when a write shows that another program, another browser or a Python client has made.

The moments are taken on one machine by one clock: a write begins in this process or in a page, and a page notes when
its document has changed. Eight tabs of one browser, over HTTP/1.1, are timed until each shows its rows and is live.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from app.seed import seed
from tests.support.browser import Chromium
from tests.support.page import Page, build
from tests.support.teamhub import TeamHub

ROW: Final = ".agents a.tr"
GRACE: Final = "agent-0008"
BAR_MILLISECONDS: Final = 300.0
TABS_BAR_MILLISECONDS: Final = 1000.0

NOTICED: Final = """new Promise((resolve) => {
  const look = () => {
    if (!document.body.innerText.includes('ROLE')) return;
    observer.disconnect();
    resolve(Date.now());
  };
  const observer = new MutationObserver(look);
  observer.observe(document.body, { subtree: true, childList: true, characterData: true });
  globalThis.isLooking = 'ROLE';
  look();
})"""
CALLED: Final = """(() => {
  globalThis.beganAt = Date.now();
  const headers = { authorization: `Bearer ${TOKEN}`, 'content-type': 'application/json' };
  return fetch('/rpc/agents.update', { method: 'POST', headers, body: JSON.stringify(INPUT) }).then(() => beganAt);
})()"""


LIVE: Final = f"""
new MutationObserver((_, observer) => {{
  const isLive = document.querySelector('[data-connection=live]') !== null;
  if (!isLive || document.querySelector({ROW!r}) === null) return;
  observer.disconnect();
  globalThis.liveAt = performance.now();
}}).observe(document, {{ childList: true, subtree: true, attributes: true }});
"""


@contextmanager
def served_page(folder: Path) -> Iterator[tuple[TeamHub, Chromium]]:
    """Give a TeamHub that serves its page, with seeded data, and a Chromium."""
    pages, profile = folder / "pages", folder / "chromium"
    for each in (pages, profile):
        each.mkdir()
    # The address that `Page` begins at, where it leaves who is logged in.
    (pages / "empty.html").write_text("<!doctype html><title>empty</title>", encoding="utf-8")
    (pages / "queries.html").write_text("<!doctype html><title>queries</title>", encoding="utf-8")
    database = folder / "seeded.db"
    seed(database)
    environment = {"TEAMHUB_PAGE": str(build(folder / "page"))}
    with ExitStack() as stack:
        hub = stack.enter_context(TeamHub(folder, seeded=database, pages=pages, environment=environment))
        yield hub, stack.enter_context(Chromium(profile))


def measure_writes(hub: TeamHub, page: Page, write: Callable[[str], float], *, writes: int, name: str) -> list[float]:
    """Return for each write the milliseconds from its beginning to the page's document."""
    return [_time_of(page, write, f"{name} {number}") for number in range(writes)]


def _time_of(page: Page, write: Callable[[str], float], role: str) -> float:
    with ThreadPoolExecutor(1) as pool:
        noticed = pool.submit(page.tab.evaluate, NOTICED.replace("ROLE", role))
        page.tab.until(f"globalThis.isLooking === {json.dumps(role)}")
        began = write(role)
        return float(noticed.result()) - began


def measure_tabs(hub: TeamHub, chromium: Chromium, *, tabs: int) -> list[float]:
    """Open tabs of one browser at once; return the milliseconds that each takes until it shows rows, and is live."""
    context = chromium.new_context()
    Page(context, hub).is_there(ROW)  # logs in, and keeps who it is
    opened = [context.tab() for _ in range(tabs)]
    for tab in opened:
        tab.before_each_page(LIVE)
        tab.call("Page.navigate", url=f"{hub.url}/")
    return [float(tab.until("globalThis.liveAt")) for tab in opened]


def run(folder: Path, *, writes: int = 30, tabs: int = 8) -> None:
    """Measure and print."""
    with served_page(folder) as (hub, chromium):
        page, other = (Page(chromium.new_context(), hub) for _ in range(2))
        for each in (page, other):
            each.tab.call("Emulation.setFocusEmulationEnabled", enabled=True)
            each.is_there(ROW)
            each.shows("Live", within=".side")
        token = hub.log_in()

        def by_program(role: str) -> float:
            began = time.time() * 1000
            hub.write("UPDATE agent SET role = ? WHERE id = ?", role, GRACE)
            return began

        def by_browser(role: str) -> float:
            given = json.dumps({"agent_id": GRACE, "role": role})
            return float(other.tab.evaluate(CALLED.replace("TOKEN", json.dumps(token)).replace("INPUT", given)))

        def by_python(role: str) -> float:
            began = time.time() * 1000
            hub.call("agents.update", token=token, agent_id=GRACE, role=role)
            return began

        print(f"From the beginning of a write to TeamHub's document, ms, {writes} of each; bar {BAR_MILLISECONDS:g}:")
        for name, write in {"sqlite3": by_program, "another browser": by_browser, "Python": by_python}.items():
            print(f"  {name:16} {spread(measure_writes(hub, page, write, writes=writes, name=name))}")
        print(f"{tabs} tabs of one browser at once, ms until each is live; bar {TABS_BAR_MILLISECONDS:g} each:")
        print(f"  {spread(measure_tabs(hub, chromium, tabs=tabs))}, {hub.metric('streams'):g} streams are open")


def spread(values: Sequence[float]) -> str:
    """Spell the middle and the ends."""
    return f"median {statistics.median(values):5.0f}, {min(values):.0f} to {max(values):.0f}"
