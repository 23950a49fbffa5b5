"""Text of a document as TypeScript source, out of which nothing in it can break.

A document is written by whoever runs the server: a description may end a comment, a property may be `__proto__`, a
text may turn the reading direction around. So names are quoted unless they are plain, and invisible characters are
spelled by their numbers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

__all__ = ["comment", "indented", "key", "literal", "texts"]

_PLAIN: Final = re.compile(r"[A-Za-z_$][A-Za-z0-9_$]*")
_INVISIBLE: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]"
)
_TAG: Final = re.compile(r"(^|\s)@")


def literal(value: Any) -> str:
    """Return a value of JSON as a literal type, `unknown` if it has none.

    >>> literal("it's"), literal(1), literal(True), literal(None), literal([1])
    ("'it\\\\'s'", '1', 'true', 'null', 'unknown')
    """
    if isinstance(value, str):
        return _quoted(value)
    return json.dumps(value) if value is None or isinstance(value, bool | int | float) else "unknown"


def texts(values: Iterable[str]) -> str:
    """Return texts as an array literal."""
    return f"[{', '.join(map(_quoted, values))}]"


def key(name: str) -> str:
    """Return a property's name as it stands in a type.

    >>> key("name"), key("a-b"), key("class"), key("1a")
    ('name', "'a-b'", 'class', "'1a'")
    """
    return name if _PLAIN.fullmatch(name) else _quoted(name)


def comment(text: str, tags: Mapping[str, str] | None = None) -> list[str]:
    """Return a JSDoc comment as lines; none if there is nothing to say.

    Args:
        text: of the document, which comes first.
        tags: `{name: text}`; an empty text leaves the tag alone.

    >>> comment("Ends */ here.", {"deprecated": ""})
    ['/**', ' * Ends *\\\\/ here.', ' *', ' * @deprecated', ' */']
    """
    lines = [_safe(line) for line in text.strip().splitlines()]
    tagged = [" ".join(["@" + name, *_safe(said).split()]) for name, said in (tags or {}).items()]
    if not lines and not tagged:
        return []
    whole = [*lines, *([""] if lines and tagged else []), *tagged]
    if len(whole) == 1:
        return [f"/** {whole[0]} */"]
    return ["/**", *(f" * {line}".rstrip() for line in whole), " */"]


def indented(lines: Iterable[str], depth: int = 1) -> list[str]:
    """Return lines two spaces further to the right for each level; empty ones stay empty."""
    return [f"{'  ' * depth}{line}" if line else "" for line in lines]


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return "'" + _INVISIBLE.sub(lambda found: f"\\u{ord(found.group()):04x}", escaped) + "'"


def _safe(text: str) -> str:
    """Return text of which nothing ends a comment, begins a tag, or is invisible."""
    # `@ts-ignore` would hide an error of the next line, and `@deprecated` strike out a name: both begin a tag.
    visible = _INVISIBLE.sub(lambda found: " " if found.group() == "\t" else "\N{REPLACEMENT CHARACTER}", text)
    return _TAG.sub(r"\1\\@", visible.replace("*/", "*\\/")).rstrip()
