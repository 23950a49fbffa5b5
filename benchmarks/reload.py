"""A reload of TeamHub's page: until data of the last visit, kept by the browser, are on the page.

The moments are the browser's own. A module's script starts once the document is parsed (`domInteractive`) and the
script is there, so this counts compiling it too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from benchmarks.browsers import ROW, served_page, spread
from tests.support.page import Page

BAR_MILLISECONDS: Final = 50.0

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
  performance.getEntriesByName(document.querySelector('script[type=module]').src)[0].responseEnd,
)
"""
KEPT: Final = "Object.keys(localStorage).some((key) => key.startsWith('rx:') && key.includes('get_overview'))"


def measure(folder: Path, *, reloads: int) -> list[tuple[float, float]]:
    """Return for each reload the milliseconds until data are in the document, and until the frame that shows them."""
    with served_page(folder) as (hub, chromium):
        page = Page(chromium.new_context(), hub)
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
        print(f"  {name:26} {spread(values)}")
