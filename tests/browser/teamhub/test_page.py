"""TeamHub in the browser: the page that `make run` builds, served by `app.main` under its own strict policy."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator

import pytest

from tests.support.browser import Chromium, Context
from tests.support.page import SOURCES, WEB, Page
from tests.support.page_states import STATES, Stage
from tests.support.teamhub import TeamHub

OPEN = Callable[..., Page]
GRACE = "agent-0008"
TALK = "document.querySelector('.talk')"
TALK_BELOW = f"({TALK}.scrollHeight - {TALK}.scrollTop - {TALK}.clientHeight)"
NAMES = "[...document.querySelectorAll('.agents a.tr b')].map((name) => name.textContent)"
COUNTS = (
    "[...document.querySelectorAll('.agents a.tr .c-msg')].map((count) => parseInt(count.textContent.replace(',', '')))"
)
FORBIDDEN = re.compile(
    r"invalidateQuer|queryKey|refetch|setInterval\(|poll(?!ing: )|EventSource|WebSocket", re.IGNORECASE
)


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


@pytest.mark.parametrize("state", STATES)
def test_axe_finds_no_fault_and_nothing_scrolls_sideways_in_any_state(stage: Stage, state: str) -> None:
    """A screen reader can read each state that the page may come into, light on a desk and dark on a telephone."""
    reaching = STATES[state](stage)
    page = next(reaching)
    wide = page.axe()
    page.resize(390)
    page.show_theme("dark")
    narrow = page.axe()
    beyond = page.sideways()
    next(reaching, None)
    assert wide == []
    assert narrow == []
    assert beyond <= 0


@pytest.mark.parametrize(
    ("state", "loaded", "fixed"),
    [
        (
            "agents-loading",
            ".agents a.tr",
            (".head h1", ".bar", ".agents .th", ".agents .th + .tr", ".feed h2"),
        ),
        (
            "agent-loading",
            ".msg .body",
            (".hero", ".hero .av, .hero .sk", ".stats", ".stats dd", ".compose", ".rail h2"),
        ),
    ],
)
@pytest.mark.parametrize("width", [1440, 390])
def test_nothing_moves_when_the_data_comes(
    stage: Stage, state: str, loaded: str, fixed: tuple[str, ...], width: int
) -> None:
    """What stands for rows and figures has their places and heights."""
    reaching = STATES[state](stage)
    page = next(reaching)
    page.resize(width)
    before = {selector: page.place(selector) for selector in fixed}
    next(reaching, None)
    page.is_there(loaded)
    page.is_there(".stats time, .agents time")
    assert {selector: page.place(selector) for selector in fixed} == before


def test_the_keyboard_goes_everywhere(show: OPEN) -> None:
    """The first stop leads to the content, arrows go from row to row, Enter opens, `/` searches, Esc closes."""
    page = show()
    page.is_there(".agents a.tr")
    page.press("Tab", code=9)
    assert page.tab.evaluate("document.activeElement.className") == "skip"
    page.press("Enter", code=13, text="\r")
    page.tab.until("document.activeElement.id === 'main'")
    page.focus(".agents a.tr")
    page.press("ArrowDown", code=40)
    page.tab.until("document.activeElement === document.querySelectorAll('.agents a.tr')[1]")
    page.press("Enter", code=13, text="\r")
    page.is_there(".msg .body")
    page.press("/", code=191, text="/")
    page.tab.until("document.activeElement.id === 'q'")
    page.click(".me")
    page.is_there("dialog[open]")
    page.press("Escape", code=27)
    page.tab.until("document.querySelector('dialog') === null")


def test_the_list_has_an_order_and_holds_still_while_somebody_is_in_it(show: OPEN, hub: TeamHub) -> None:
    """A row that moved away under the pointer would have another one opened; it moves when the list is left."""
    page = show()
    page.is_there(".agents a.tr")
    page.choose(".bar select", "messages")
    page.tab.until(f"{COUNTS}.every((count, place, all) => place === 0 || count <= all[place - 1])")
    page.choose(".bar select", "name")
    first, last = (page.tab.evaluate(f"{NAMES}.at({place})") for place in (0, -1))
    page.focus(".agents a.tr")
    hub.write("UPDATE agent SET name = 'Aaron' WHERE name = ? AND organization_id = 'org-01'", last)
    page.shows("Sorted anew when you leave the list")
    assert page.tab.evaluate(f"[{NAMES}.at(0), {NAMES}.at(-1)]") == [first, "Aaron"]
    page.focus(".find")
    page.tab.until(f"{NAMES}.at(0) === 'Aaron'")
    hub.write("UPDATE agent SET name = ? WHERE name = 'Aaron' AND organization_id = 'org-01'", last)
    page.tab.until(f"{NAMES}.at(0) === {json.dumps(first)}")


def test_a_conversation_is_read_back_to_its_beginning(show: OPEN, hub: TeamHub) -> None:
    """Whoever scrolls up gets what was said before, and stays where they read."""
    page = show(path="/agents/agent-0001")
    page.is_there(".msg .body")
    shown = "document.querySelectorAll('.msg').length"
    before = page.tab.evaluate(shown)
    page.tab.evaluate("document.querySelector('.earlier').click()")
    page.tab.until(f"{shown} > {before}")


@pytest.mark.parametrize("at_end", [True, False])
def test_a_resize_moves_the_conversation_for_nobody(show: OPEN, at_end: bool) -> None:
    """Whoever stands at its end stays there, though texts become higher; who reads further up is not taken there."""
    page = show(path="/agents/agent-0001")
    page.is_there(".msg .body")
    page.tab.until(f"{TALK}.scrollHeight > {TALK}.clientHeight + 200 && {TALK_BELOW} < 8")
    if not at_end:
        page.tab.evaluate(f"{TALK}.scrollTop -= 120")
        page.tab.until(f"{TALK_BELOW} >= 100")
    before = page.tab.evaluate(f"{TALK}.scrollHeight")
    page.resize(390)
    page.tab.until(f"{TALK}.scrollHeight > {before}")
    page.tab.until(f"{TALK_BELOW} < 8" if at_end else f"{TALK_BELOW} >= 100")


def test_an_edit_that_meets_another_is_not_lost(stage: Stage) -> None:
    """Both texts are shown, and either can be kept."""
    page = next(STATES["message-conflict"](stage))
    page.shows("Tuesday evening", within=".clash ins, .clash .two")
    page.click(".clash .btn", "Save mine instead")
    page.tab.until("document.querySelector('.clash') === null && document.querySelector('.editing') === null")
    page.shows("with the delivery dates", within=".talk")


def test_every_pair_of_colours_has_enough_contrast() -> None:
    """Texts have 4.5 to what they stand on, borders of controls and marks 3, in both themes (WCAG 1.4.3 and 1.4.11)."""
    tokens = re.findall(
        r"--([\w-]+):\s*light-dark\((#[0-9a-f]{6}), (#[0-9a-f]{6})\)",
        (WEB / "src/styles/tokens.css").read_text(encoding="utf-8"),
    )
    themes = [{name: pair[theme] for name, *pair in tokens} | {"on-accent": "#ffffff"} for theme in (0, 1)]
    low = [
        (text, surface, round(contrast(theme[text], theme[surface]), 2))
        for texts, surfaces, least in CONTRASTS
        for text in texts.split()
        for surface in surfaces.split()
        for theme in themes
        if contrast(theme[text], theme[surface]) < least
    ]
    assert low == []


SURFACES = "bg bg-sunk bg-raised bg-hover bg-active accent-tint"
CONTRASTS = [
    ("text text-2 text-3 accent-text danger ok warn", SURFACES, 4.5),
    ("on-accent", "accent accent-hover", 4.5),
    ("ok", "ok-tint", 4.5),
    ("warn", "warn-tint", 4.5),
    ("danger", "danger-tint", 4.5),
    ("text", "mark warn-tint danger-tint", 4.5),
    ("text-2", "warn-tint danger-tint ok-tint", 4.5),
    ("line-control ok-mark warn-mark danger-mark", "bg bg-sunk bg-raised", 3.0),
]


def contrast(one: str, other: str) -> float:
    """Return the contrast ratio of two colours, as WCAG 2.2 defines it."""
    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def luminance(colour: str) -> float:
    """Return the relative luminance of `#rrggbb`."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_nothing_scrolls_sideways(show: OPEN) -> None:
    """From a small telephone to a wall, what does not fit is cut or wrapped."""
    page = show()
    beyond = {}
    for path, ready in {"/": ".agents a.tr", "/agents/agent-0001": ".msg .body", "/search?q=contract": ".hit"}.items():
        page.go(path)
        page.is_there(ready)
        for width in (360, 600, 760, 761, 1100, 1101, 1280, 1920, 3840):
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
