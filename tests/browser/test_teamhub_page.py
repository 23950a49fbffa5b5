"""TeamHub in the browser: the page that `make run` builds, served by `app.main` under its own strict policy."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.browser import Chromium, Context
from tests.support.page import SOURCES, Page, build
from tests.support.teamhub import TeamHub

OPEN = Callable[..., Page]
GRACE = "agent-0008"
FORBIDDEN = re.compile(
    r"invalidateQuer|queryKey|refetch|setInterval\(|poll(?!ing: )|EventSource|WebSocket", re.IGNORECASE
)


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory, seeded: Path, pages: Path) -> Iterator[TeamHub]:
    """A TeamHub that serves the page."""
    built = build(tmp_path_factory.mktemp("page"))
    folder = tmp_path_factory.mktemp("teamhub")
    with TeamHub(folder, seeded=seeded, pages=pages, environment={"TEAMHUB_PAGE": str(built)}) as hub:
        yield hub


@pytest.fixture
def show(hub: TeamHub, browser: Context) -> Iterator[OPEN]:
    """Return what opens the page; its policy has refused nothing, and it has thrown nothing, at the end."""
    shown: list[Page] = []

    def show(**options: object) -> Page:
        shown.append(Page(options.pop("browser", browser), hub, **options))  # type: ignore[arg-type]
        return shown[-1]

    yield show
    assert [fault for page in shown for fault in page.tab.faults] == []


@pytest.fixture
def other(chromium: Chromium) -> Iterator[Context]:
    """Somebody else's browser."""
    context = chromium.new_context()
    yield context
    context.close()


def test_somebody_logs_in_with_the_keyboard_and_sees_the_agents(show: OPEN) -> None:
    """A wrong password is said, and the right one shows the organization."""
    page = show(email="")
    page.focus("#email")
    page.tab.evaluate("document.querySelector('#email').select()")
    page.write("lin@org-01.example")
    page.press("Tab", code=9)
    page.write("wrong")
    page.press("Enter", code=13, text="\r")
    page.shows("No account has this address and password.")
    page.tab.evaluate("document.querySelector('#password').select()")
    page.write("teamhub")
    page.press("Enter", code=13, text="\r")
    page.shows("Meridian Research")
    page.shows("Katherine", within=".agents")


def test_a_write_of_another_program_shows_in_two_browsers(show: OPEN, other: Context, hub: TeamHub) -> None:
    """The list of one and the agent of the other change by themselves, and both say that it was just now."""
    one = show()
    two = show(browser=other, email="omar@org-01.example", path=f"/agents/{GRACE}")
    one.shows("Grace", within=".agents")
    two.shows("Grace", within=".hero")
    hub.write("UPDATE agent SET role = 'Conductor' WHERE id = ?", GRACE)
    one.shows("Conductor", within=".agents")
    one.shows("Role changed", within=".agents")
    two.shows("Conductor", within=".hero")


def test_what_is_written_in_one_browser_shows_in_the_other(show: OPEN, other: Context) -> None:
    """A message shows at once where it is written, and a moment later elsewhere."""
    one = show(path="/agents/agent-0001")
    two = show(browser=other, email="omar@org-01.example", path="/agents/agent-0001")
    two.is_there(".msg .body")
    one.is_there(".msg .body")
    one.focus("#message")
    one.write("All three quotes are in.")
    one.press("Enter", code=13, text="\r")
    one.shows("All three quotes are in.", within=".talk")
    two.shows("All three quotes are in.", within=".talk")
    one.tab.until("document.querySelector('.msg.pending') === null")


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 1024, 390])
def test_axe_finds_no_fault(show: OPEN, theme: str, width: int) -> None:
    """Each view, in each theme and layout, is one that a screen reader can read."""
    page = show(theme=theme, width=width)
    faults = {}
    for path, ready in {
        "/": ".agents a.tr",
        "/agents/agent-0001": ".msg .body",
        "/agents/agent-0999": ".blank",
        "/search?q=contract": ".res .hit",
        "/search?q=xyzzy": ".blank",
    }.items():
        page.go(path)
        page.is_there(ready)
        faults[path] = page.axe()
    nobody = show(theme=theme, width=width, email="")
    nobody.tab.evaluate("localStorage.clear()")
    nobody.go("/")
    nobody.is_there("#password")
    faults["login"] = nobody.axe()
    assert {path: found for path, found in faults.items() if found} == {}


def test_nothing_scrolls_sideways(show: OPEN) -> None:
    """From a small telephone to a wall, what does not fit is cut or wrapped."""
    page = show()
    beyond = {}
    for path, ready in {"/": ".agents a.tr", "/agents/agent-0001": ".msg .body", "/search?q=contract": ".hit"}.items():
        page.go(path)
        page.is_there(ready)
        for width in (360, 390, 600, 760, 761, 1024, 1100, 1101, 1279, 1280, 1440, 1920, 3840):
            page.resize(width)
            beyond[path, width] = page.sideways()
    assert {at: pixels for at, pixels in beyond.items() if pixels > 0} == {}


KEPT = "Object.keys(localStorage).filter((key) => key.startsWith('rx:')).map((key) => key.split(':')[1])"


def test_whoever_logs_in_next_sees_nothing_of_the_former(show: OPEN, hub: TeamHub) -> None:
    """The page says whose results it keeps: those of another are gone at the start, without any logout."""
    page = show()
    page.shows("Meridian Research")
    page.tab.until(f"{KEPT}.length > 0")
    assert set(page.tab.evaluate(KEPT)) == {"lin@org-01.example"}
    email = "ada@org-02.example"
    session = json.dumps({"email": email, "token": hub.log_in(email)})
    page.tab.evaluate(f"localStorage.setItem('teamhub:session', {json.dumps(session)})")
    page.go("/")
    page.is_there(".agents a.tr")
    assert "Meridian Research" not in page.tab.evaluate("document.body.innerText")
    assert set(page.tab.evaluate(KEPT)) <= {email}


def test_a_logout_elsewhere_leaves_nothing_in_storage(show: OPEN) -> None:
    """By the word of the browser's storage, which may come before that of the other tab's page."""
    page = show()
    page.shows("Katherine", within=".agents")
    page.tab.until(f"{KEPT}.length > 0")
    page.tab.evaluate(
        "{ localStorage.removeItem('teamhub:session');"
        " dispatchEvent(new StorageEvent('storage', { key: 'teamhub:session' })); }"
    )
    page.is_there("#password")
    assert page.tab.evaluate(KEPT) == []


def test_the_page_says_nothing_of_caches() -> None:
    """No source of the page invalidates, names a key, asks again or listens by itself: the runtime does."""
    found = [
        f"{source.name}:{number}: {line.strip()}"
        for source in SOURCES
        for number, line in enumerate(source.read_text(encoding="utf-8").splitlines(), start=1)
        if FORBIDDEN.search(line)
    ]
    assert SOURCES
    assert found == []
