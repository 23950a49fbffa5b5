"""The blocks of code in a page of the documents."""

from __future__ import annotations

import re

__all__ = ["blocks_of", "named_files", "unnamed_blocks"]

_NAME = re.compile(r"\A(?:// ([\w./\[\]+-]+\.\w+)|# (\w+\.py)|<!-- ([\w./\[\]+-]+\.\w+) -->)\n")
"""The first line of a block that is a file: its path, in a comment."""


def blocks_of(page: str, *languages: str) -> list[str]:
    """Return the blocks of some languages, those included that readers do not see."""
    names = "|".join(languages)
    pattern = rf"^```(?:{names})\n(.*?)^```$|^<!-- invisible-code-block: (?:{names})\n(.*?)^-->$"
    return [seen or unseen for seen, unseen in re.findall(pattern, page, re.MULTILINE | re.DOTALL)]


def named_files(page: str, *languages: str) -> dict[str, str]:
    """Return the files that a page shows, `{path: text}`: the blocks that begin with a path, without that line."""
    found = {}
    for block in blocks_of(page, *languages):
        if (match := _NAME.match(block)) is not None:
            name = next(group for group in match.groups() if group is not None)
            found[name] = block[match.end() :]
    return found


def unnamed_blocks(page: str) -> list[str]:
    """Return the blocks of TypeScript that are no files, in order."""
    return [block for block in blocks_of(page, "ts", "tsx") if _NAME.match(block) is None]
