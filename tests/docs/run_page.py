"""Run the Python blocks of a page, in order, as one module: `python run_page.py docs/how-to/engines.md`.

Blocks may await. A comment in the page may hold a block that readers need not see:

    <!-- invisible-code-block: python
    functions = {}
    -->
"""

from __future__ import annotations

import ast
import asyncio
import sys
from types import CodeType, ModuleType

from sybil import Document, Example
from sybil.parsers.markdown import CodeBlockParser

__all__ = ["python_blocks", "run"]


def python_blocks(path: str) -> list[Example]:
    """Return the page's Python blocks; evaluating one runs it."""
    document = Document.parse(path, CodeBlockParser("python", _evaluate))
    page = ModuleType("page")
    sys.modules["page"] = page  # where typing looks for the names in annotations
    document.namespace = vars(page)
    return list(document.examples())


def run(path: str) -> None:
    """Run a page; what a block raises is raised, with the line in the page."""
    with asyncio.Runner() as runner:
        for block in python_blocks(path):
            block.namespace["runner"] = runner
            block.evaluate()


def compiled(block: Example) -> CodeType:
    """Compile a block, so that its lines have the numbers that they have in the page."""
    source = "\n" * (block.line + block.parsed.line_offset) + block.parsed
    code: CodeType = compile(source, block.path, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    return code


def _evaluate(block: Example) -> None:
    awaitable = eval(compiled(block), block.namespace)
    if awaitable is not None:
        block.namespace["runner"].run(awaitable)


if __name__ == "__main__":
    run(sys.argv[1])
