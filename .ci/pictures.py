#!/usr/bin/env python3
"""Take the pictures of the documentation from the running product: `make pictures`.

The page of TeamHub in a real Chromium, with seeded data, no motion and its own fonts, so that a picture changes only if
the page does, but for times and for the one figure that is measured: how long after a commit both pages have changed.
"""

from __future__ import annotations

import base64
import html
import sqlite3
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from statistics import median
from string import Template
from typing import Final

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from app.seed import seed  # noqa: E402
from tests.support.browser import Chromium  # noqa: E402
from tests.support.page import WEB, Page, build  # noqa: E402
from tests.support.page_states import STATES, Stage  # noqa: E402
from tests.support.teamhub import TeamHub  # noqa: E402

IMAGES: Final = ROOT / "docs/images"
HERO: Final = ROOT / ".ci/pictures.html"
GRACE: Final = "agent-0008"

SHOTS: Final = {
    # a state: (width, theme) of each picture
    "agents": [(1440, "light"), (1440, "dark"), (390, "light")],
    "agents-loading": [(1440, "light")],
    "agents-empty": [(1440, "light")],
    "agents-error": [(1440, "light")],
    "agents-offline": [(1440, "light")],
    "agents-reconnecting": [(1440, "dark")],
    "agent": [(1440, "light"), (1440, "dark"), (390, "dark")],
    "agent-forbidden": [(1440, "light")],
    "agent-gone": [(1440, "light")],
    "agent-toast": [(1440, "light")],
    "message-pending": [(1440, "light")],
    "message-waiting": [(1440, "light")],
    "message-rejected": [(1440, "light")],
    "message-conflict": [(1440, "light")],
    "search": [(1440, "light")],
    "more": [(390, "dark")],
    "login": [(1440, "light")],
}
QUALITY: Final = 82

WRITE: Final = "UPDATE agent SET role = 'Conductor' WHERE id = 'agent-0008'"
ROLES: Final = ("Organist", "Drummer", "Violinist", "Cellist", "Conductor")
"""Grace becomes one after the other; the picture tells the median, and shows the last."""
NOTICED: Final = """new Promise((resolve) => {
  const look = () => document.body.innerText.includes('ROLE') && resolve(Date.now());
  globalThis.isLooking = 'ROLE';
  new MutationObserver(look).observe(document.body, { subtree: true, childList: true, characterData: true });
})"""
QUERY: Final = """@procedure.query
async def get_all(db: AsyncSession, ctx: Tenant) -> list[Agent]:
    \"\"\"The agents of your organization, by name.\"\"\"
    agents = select(Agent).where(Agent.organization_id == ctx.tenant)
    return list((await db.exec(agents.order_by(Agent.name))).all())"""
HOOK: Final = "const { data, isStale } = useReactive('agents.get_all');"


def picture(page: Page, path: Path) -> None:
    """Save what a page shows."""
    page.tab.evaluate("document.fonts.ready.then(() => new Promise((done) => setTimeout(done, 600)))")
    shot = page.tab.call("Page.captureScreenshot", format="webp", quality=QUALITY)
    path.write_bytes(base64.b64decode(shot["data"]))
    print(f"{path.relative_to(ROOT)}  {path.stat().st_size // 1024} kB")


def without_scrollbars(page: Page) -> Page:
    """Hide them: a picture has them at other places each time."""
    page.tab.call("Emulation.setScrollbarsHidden", hidden=True)
    return page


def take_states(stage: Stage, names: list[str]) -> None:
    """Take the pictures of the states."""
    for name in names:
        state = STATES[name](stage)
        page = next(state)
        for width, theme in SHOTS[name]:
            page.resize(width)
            page.show_theme(theme)
            picture(page, IMAGES / f"{name}-{width}-{theme}.webp")
        next(state, None)
        page.tab.close()


def take_hero(hub: TeamHub, stage: Stage, chromium: Chromium) -> None:
    """Write as another program while two browsers look, measure how long they take, and put all into one picture."""
    left = stage.open()
    right = stage.open(email="omar@org-01.example", path=f"/agents/{GRACE}")
    for page in (left, right):
        page.resize(1060, 620)
        page.show_theme("light", reduced_motion=False)
        # Two windows beside each other are both seen; of two tabs, the browser would give one less time.
        page.tab.call("Emulation.setFocusEmulationEnabled", enabled=True)
    left.is_there(".agents a.tr")
    right.is_there(".msg .body")
    milliseconds = median(time_of_a_write(hub, [left, right], role) for role in ROLES)
    shots = [page.tab.call("Page.captureScreenshot", format="png")["data"] for page in (left, right)]
    print(f"both pages have changed {milliseconds:.0f} ms after the commit began, the median of {len(ROLES)}")
    document = hero(shots, max(1, round(milliseconds)))
    sheet = Page(chromium.new_context(), hub, email="", path="/pages/empty.html")
    sheet.tab.call("Page.navigate", url="about:blank")
    sheet.tab.until("location.href === 'about:blank'")
    frame = sheet.tab.call("Page.getFrameTree")["frameTree"]["frame"]["id"]
    sheet.tab.call("Page.setDocumentContent", frameId=frame, html=document)
    sheet.resize(1600, 952)
    picture(sheet, IMAGES / "teamhub.webp")


def time_of_a_write(hub: TeamHub, pages: list[Page], role: str) -> float:
    """Write a role as another program would; return how long after the commit began the last page shows it."""
    with ThreadPoolExecutor(len(pages)) as pool:
        noticed = [pool.submit(page.tab.evaluate, NOTICED.replace("ROLE", role)) for page in pages]
        for page in pages:
            page.tab.until(f"globalThis.isLooking === '{role}'")
        with closing(sqlite3.connect(hub.database)) as connection, connection:
            connection.execute(WRITE.replace("Conductor", role))
            began = time.time() * 1000
        return float(max(moment.result() for moment in noticed) - began)


def hero(shots: list[str], milliseconds: int) -> str:
    """Return the document of the picture: two browsers, a terminal, the code."""
    terminal = html.escape(
        f'$ python3\n>>> import sqlite3\n>>> with sqlite3.connect("teamhub.db") as database:\n'
        f'...     database.execute("{WRITE}")'
    )
    places = {"left": shots[0], "right": shots[1], "milliseconds": milliseconds, "terminal": terminal}
    return Template(HERO.read_text(encoding="utf-8")).substitute(
        places, query=html.escape(QUERY), hook=html.escape(HOOK), font=font()
    )


def font() -> str:
    """Return Inter as an address of its own."""
    file = WEB / "node_modules/@fontsource-variable/inter/files/inter-latin-wght-normal.woff2"
    return f"data:font/woff2;base64,{base64.b64encode(file.read_bytes()).decode()}"


def main() -> None:
    """Take those that are named, or all."""
    names = sys.argv[1:] or [*SHOTS, "teamhub"]
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary, ExitStack() as stack:
        folder = Path(temporary)
        for name in ("chromium", "hub", "pages"):
            (folder / name).mkdir()
        (folder / "pages/empty.html").write_text("<!doctype html><title>empty</title>")
        seed(folder / "seeded.db")
        variables = {"TEAMHUB_PAGE": str(build(folder / "built"))}
        (folder / "pages/queries.html").write_text("<!doctype html><title>ready</title>")
        hub = stack.enter_context(
            TeamHub(folder / "hub", seeded=folder / "seeded.db", pages=folder / "pages", environment=variables)
        )
        chromium = stack.enter_context(Chromium(folder / "chromium"))
        # Each page has a browser of its own: what one has stored, the next would show.
        stage = Stage(hub, lambda **options: without_scrollbars(Page(chromium.new_context(), hub, **options)))
        take_states(stage, [name for name in names if name in SHOTS])
        if "teamhub" in names:
            take_hero(hub, stage, chromium)


if __name__ == "__main__":
    main()
