"""Examples of docstrings are shown as code on the pages of the reference."""

from __future__ import annotations

import pytest
from markdown import Markdown
from pages.doctests import DoctestExtension


@pytest.fixture
def site() -> Markdown:
    """Markdown as the site has it."""
    return Markdown(extensions=[DoctestExtension(), "pymdownx.superfences"])


@pytest.mark.parametrize("text", [">>> 1 + 1\n2", "So:\n\n>>> 1 + 1\n2\n\nAnd on.", "```pycon\n>>> 1 + 1\n2\n```"])
def test_an_example_is_code(site: Markdown, text: str) -> None:
    """Also at the end, between paragraphs, and in a fence of its own."""
    shown = site.convert(text)
    assert "<blockquote>" not in shown
    assert shown.count("<pre>") == 1


def test_without_the_extension_it_is_quoted() -> None:
    """The test above can fail."""
    assert "<blockquote>" in Markdown().convert(">>> 1 + 1\n2")
