"""What a visitor does with a form, and another visitor's browser."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.browser import Chromium, Context, Tab

__all__ = ["another", "write"]


@pytest.fixture
def another(chromium: Chromium) -> Iterator[Context]:
    """Another browser than `browser`: nothing is shared."""
    context = chromium.new_context()
    yield context
    context.close()


def write(tab: Tab, text: str, *, field: str = "text") -> None:
    """Write a text into a field of a page, and press Enter."""
    tab.evaluate(f"document.querySelector('input[name={field}]').focus()")
    tab.call("Input.insertText", text=text)
    for type in ("keyDown", "keyUp"):
        tab.call("Input.dispatchKeyEvent", type=type, key="Enter", code="Enter", windowsVirtualKeyCode=13, text="\r")
