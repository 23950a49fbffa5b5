"""Run the Python blocks of a page, in order, as one module: `python run_page.py docs/how-to/engines.md`.

Blocks may await. A comment in the page may hold a block that readers need not see:

    <!-- invisible-code-block: python
    functions = {}
    -->

A block that begins with a file's name (`# main.py`) is written to that file, in the folder where this runs, and not
run: a later block imports it, or gives it to a process.
"""

from __future__ import annotations

import ast
import asyncio
import re
import sys
from pathlib import Path
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
    sys.path.insert(0, str(Path.cwd()))
    blocks = python_blocks(path)
    with asyncio.Runner() as runner:
        for number, block in enumerate(blocks):
            block.namespace["runner"] = runner
            block.evaluate()
            unused = [name for name in file_named_by(block) if not is_used(name, blocks[number + 1 :])]
            assert not unused, f"{path}: no later block uses {unused[0]}"


def file_named_by(block: Example) -> list[str]:
    """Return the file that a block is, if it is one."""
    return re.findall(r"\A# (\w+\.py)\n", block.parsed)


def is_used(file: str, later: list[Example]) -> bool:
    """Tell whether a block imports a file, or names it."""
    stem = file.removesuffix(".py")
    pattern = rf"\b(import|from) {stem}\b|\b{stem}(\.py|:)"
    return any(re.search(pattern, block.parsed) and file_named_by(block) != [file] for block in later)


def compiled(block: Example) -> CodeType:
    """Compile a block, so that its lines have the numbers that they have in the page."""
    source = "\n" * (block.line + block.parsed.line_offset) + block.parsed
    code: CodeType = compile(source, block.path, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    return code


def _evaluate(block: Example) -> None:
    for name in file_named_by(block):
        Path(name).write_text(block.parsed, encoding="utf-8")
        return
    awaitable = eval(compiled(block), block.namespace)
    if awaitable is not None:
        block.namespace["runner"].run(awaitable)


if __name__ == "__main__":
    run(sys.argv[1])
