"""Show the examples of docstrings as code: Markdown takes each `>>>` for three quotations, one in another."""

from __future__ import annotations

from collections.abc import Iterator

from markdown import Markdown
from markdown.extensions import Extension
from markdown.preprocessors import Preprocessor

__all__ = ["DoctestExtension", "fenced"]

BEFORE_FENCES = 100
"""A priority above that of superfences, 25: what is written here is a fence that it reads."""


class DoctestExtension(Extension):  # type: ignore[misc]  # Markdown ships no types
    """Puts fences around examples, in pages and in the docstrings that mkdocstrings renders."""

    def extendMarkdown(self, md: Markdown) -> None:  # Markdown's own method
        """Register the preprocessor."""
        md.preprocessors.register(_Fences(md), "doctests", BEFORE_FENCES)


class _Fences(Preprocessor):  # type: ignore[misc]  # the same
    def run(self, lines: list[str]) -> list[str]:
        return list(fenced(lines))


def fenced(lines: list[str]) -> Iterator[str]:
    """Yield the lines, with a fence around each example that stands in none: up to the next empty line.

    >>> list(fenced(["So:", "", ">>> 1 + 1", "2", "", "End."]))
    ['So:', '', '```pycon', '>>> 1 + 1', '2', '```', '', 'End.', '']
    >>> list(fenced(["```pycon", ">>> 1", "1", "```"]))
    ['```pycon', '>>> 1', '1', '```', '']
    """
    is_fenced = is_example = False
    indent = ""
    for line in [*lines, ""]:  # the last ends an example that ends the text
        text = line.strip()
        if text.startswith(("```", "~~~")):
            is_fenced = not is_fenced
        elif not is_fenced and not is_example and text.startswith(">>> "):
            is_example = True
            yield f"{line[: len(line) - len(line.lstrip())]}```pycon"
        elif is_example and not text:
            is_example = False
            yield f"{indent}```"
        if is_example:
            indent = line[: len(line) - len(line.lstrip())]
        yield line
