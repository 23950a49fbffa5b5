"""The page of TeamHub in a tab: built by Vite once, looked at in any size and theme."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from tests.support.browser import Context, Tab
from tests.support.examples import run
from tests.support.node import NODE, package_script
from tests.support.processes import ROOT
from tests.support.teamhub import TeamHub

__all__ = ["SOURCES", "WEB", "Page", "build"]

WEB: Final = ROOT / "app/web"
SOURCES: Final = sorted((WEB / "src").rglob("*.ts*"))

EMAIL: Final = "lin@org-01.example"
AXE: Final = Path(package_script("axe-core/axe.min.js"))


def build(folder: Path, *, sources: Path = WEB) -> Path:
    """Build a page, that of `make run` or another one, into a folder, and return it."""
    vite = sources / "node_modules/vite/bin/vite.js"
    assert vite.exists(), f"{vite} is missing: make setup installs it"
    # Not by `run_node`, which has every program find the packages of `tests/typescript`: a page has its own.
    run(str(NODE), str(vite), "build", str(sources), "--outDir", str(folder), "--logLevel", "warn", folder=sources)
    return folder


class Page:
    """The page in a tab of its own, of somebody who is logged in.

    Args:
        browser: whose tab it is.
        hub: the server.
        email: who is logged in; with "", nobody.
        path: the address, without the server.
        width: of the window, in CSS pixels.
        theme: `light` or `dark`, as the system would say.
    """

    def __init__(
        self, browser: Context, hub: TeamHub, *, email: str = EMAIL, path: str = "/", width: int = 1440,
        theme: str = "light",
    ) -> None:  # fmt: skip
        self._hub = hub
        self.tab: Tab = browser.tab()
        self.resize(width)
        self.show_theme(theme)
        self.tab.open(f"{hub.url}/pages/empty.html")
        # Who logs in later needs a server then that answers.
        self._session = json.dumps({"email": email or EMAIL, "token": hub.log_in(email or EMAIL)})
        if email:
            self._log_in()
        self.tab.open(hub.url + path)

    def log_in_at_once(self) -> None:
        """Log in as another tab would, so that nothing is loaded."""
        self._log_in()
        self.tab.evaluate("dispatchEvent(new StorageEvent('storage', { key: 'teamhub:session' }))")

    def _log_in(self) -> None:
        self.tab.evaluate(f"localStorage.setItem('teamhub:session', {json.dumps(self._session)})")

    def resize(self, width: int, height: int | None = None) -> None:
        """Give the window another size."""
        tall = height or (844 if width <= 760 else 900)
        self.tab.call("Emulation.setDeviceMetricsOverride", width=width, height=tall, deviceScaleFactor=1, mobile=False)

    def show_theme(self, theme: str, *, reduced_motion: bool = True) -> None:
        """Have the system prefer a theme."""
        features = [
            {"name": "prefers-color-scheme", "value": theme},
            {"name": "prefers-reduced-motion", "value": "reduce" if reduced_motion else "no-preference"},
        ]
        self.tab.call("Emulation.setEmulatedMedia", features=features)

    def go(self, path: str) -> None:
        """Load another address."""
        self.tab.open(self._hub.url + path)

    def shows(self, text: str, *, within: str = "body") -> None:
        """Wait until an element shows a text."""
        self.tab.until(f"document.querySelector({json.dumps(within)}).innerText.includes({json.dumps(text)})")

    def is_there(self, selector: str) -> None:
        """Wait until there is such an element."""
        self.tab.until(f"document.querySelector({json.dumps(selector)}) !== null")

    def press(self, key: str, *, code: int = 0, text: str = "", shift: bool = False) -> None:
        """Press a key, and let it go."""
        about: dict[str, Any] = {"key": key, "windowsVirtualKeyCode": code, "modifiers": 8 if shift else 0}
        self.tab.call("Input.dispatchKeyEvent", type="keyDown", text=text, **about)
        self.tab.call("Input.dispatchKeyEvent", type="keyUp", **about)

    def write(self, text: str) -> None:
        """Type a text where the focus is."""
        self.tab.call("Input.insertText", text=text)

    def focus(self, selector: str) -> None:
        """Give an element the focus once it is there."""
        self.is_there(selector)
        self.tab.evaluate(f"document.querySelector({json.dumps(selector)}).focus()")

    def click(self, selector: str, text: str = "") -> None:
        """Click the first element that is such a one, and shows a text."""
        shows = f"(one) => one.innerText.includes({json.dumps(text)})"
        found = f"[...document.querySelectorAll({json.dumps(selector)})].find({shows})"
        self.tab.until(f"{found} !== undefined")
        self.tab.evaluate(f"{found}.click()")

    def choose(self, selector: str, value: str) -> None:
        """Choose an option as a user would."""
        self.tab.evaluate(
            f"(() => {{ const one = document.querySelector({json.dumps(selector)}); one.value = {json.dumps(value)}; "
            "one.dispatchEvent(new Event('change', { bubbles: true })); })()"
        )

    def axe(self) -> list[str]:
        """Return what axe-core finds fault with."""
        if not self.tab.evaluate("'axe' in globalThis"):
            self.tab.evaluate(f"{AXE.read_text(encoding='utf-8')}; 0")
        found: list[dict[str, Any]] = self.tab.evaluate(
            "axe.run(document, { resultTypes: ['violations'] }).then((report) => report.violations.map("
            "({ id, nodes }) => ({ id, at: nodes.map((node) => node.target.join(' ') + ': ' + node.failureSummary) })))"
        )
        return [f"{violation['id']} {at}" for violation in found for at in violation["at"]]

    def place(self, selector: str) -> list[int] | None:
        """Return where the first such element is that is seen, and how high: `[left, top, height]`."""
        found: list[int] | None = self.tab.evaluate(
            f"(() => {{ const one = [...document.querySelectorAll({json.dumps(selector)})].find((one) => "
            "one.checkVisibility()); if (!one) return null; const { left, top, height } = one.getBoundingClientRect(); "
            "return [left, top, height].map(Math.round); })()"
        )
        return found

    def sideways(self) -> int:
        """Return how many pixels of the page are beyond its right edge."""
        beyond: int = self.tab.evaluate("document.documentElement.scrollWidth - innerWidth")
        return beyond
