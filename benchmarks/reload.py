"""A reload of TeamHub's page: until data of the last visit, kept by the browser, are on the page.

The moments are the browser's own. A module's script starts once the document is parsed (`domInteractive`) and the
script is there, so this counts compiling it too.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from app.seed import seed
from tests.support.browser import Chromium
from tests.support.page import Page, build
from tests.support.teamhub import TeamHub

BAR_MILLISECONDS: Final = 50.0
ROW: Final = ".agents a.tr"

NOTE: Final = f"""
new MutationObserver((_, observer) => {{
  if (document.querySelector({ROW!r}) === null) return;
  observer.disconnect();
  globalThis.shownAt = performance.now();
  requestAnimationFrame(() => {{ globalThis.frameAt = performance.now(); }});
}}).observe(document, {{ childList: true, subtree: true }});
"""
"""Notes when the first row is in the document, and when the frame begins that shows it."""

SCRIPT_AT: Final = """
Math.max(
  performance.getEntriesByType('navigation')[0].domInteractive,
  ...performance.getEntriesByType('resource').filter(({ name }) => name.endsWith('.js')).map((one) => one.responseEnd),
)
"""
KEPT: Final = "Object.keys(localStorage).some((key) => key.startsWith('rx:') && key.includes('get_overview'))"


def measure(folder: Path, *, reloads: int) -> list[tuple[float, float]]:
    """Return for each reload the milliseconds until data are in the document, and until the frame that shows them."""
    pages, profile = folder / "pages", folder / "chromium"
    for each in (pages, profile):
        each.mkdir()
    # The address that `Page` begins at, where it leaves who is logged in.
    (pages / "empty.html").write_text("<!doctype html><title>empty</title>", encoding="utf-8")
    (pages / "queries.html").write_text("<!doctype html><title>queries</title>", encoding="utf-8")
    database = folder / "seeded.db"
    seed(database)
    built = build(folder / "page")
    server = TeamHub(folder, seeded=database, pages=pages, environment={"TEAMHUB_PAGE": str(built)})
    with ExitStack() as stack:
        hub = stack.enter_context(server)
        browser = stack.enter_context(Chromium(profile)).new_context()
        page = Page(browser, hub)
        page.is_there(ROW)
        page.tab.until(KEPT)
        page.tab.before_each_page(NOTE)
        return [_reload(page) for _ in range(reloads)]


def _reload(page: Page) -> tuple[float, float]:
    page.tab.reload()
    page.tab.until("globalThis.frameAt !== undefined")
    began, shown, frame = page.tab.evaluate(f"[{SCRIPT_AT}, shownAt, frameAt]")
    return shown - began, frame - began


def run(folder: Path, *, reloads: int = 20) -> None:
    """Measure and print."""
    print(f"A reload of TeamHub's page, {reloads} times, ms after its script starts; bar {BAR_MILLISECONDS:g}:")
    shown, frames = zip(*measure(folder, reloads=reloads), strict=True)
    for name, values in {"data in the document": shown, "the frame that shows them": frames}.items():
        print(f"  {name:26} {_spread(values)}")


def _spread(values: Sequence[float]) -> str:
    return f"median {statistics.median(values):5.0f}, {min(values):.0f} to {max(values):.0f}"
