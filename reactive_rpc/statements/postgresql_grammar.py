"""PostgreSQL's grammar as sqlglot has it, without the parts that sqlglot takes from other databases."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, Final

from sqlglot import TokenType, exp
from sqlglot.dialects import Postgres

__all__ = ["Grammar", "literal_texts", "numbered"]


class _ParserWithoutLambdas(Postgres.Parser):  # type: ignore[misc]  # sqlglot does not type its dialects
    """Of the arrows only `=>`, a named argument, means something of its own within a call."""

    LAMBDAS: ClassVar = {TokenType.FARROW: Postgres.Parser.LAMBDAS[TokenType.FARROW]}


class Grammar(Postgres):  # type: ignore[misc]  # the same
    """PostgreSQL without lambdas: there `f(data -> 'key')` asks for a key of `data`, as `data -> 'key'` does."""

    Parser = _ParserWithoutLambdas


_UNICODE: Final = re.compile(r"\\(?:([0-9A-Fa-f]{4})|\+([0-9A-Fa-f]{6})|(\\))")
_TEXTS: Final[dict[type, Callable[[Any], str]]] = {
    exp.Literal: lambda node: str(node.this) if node.is_string else "",
    exp.RawString: lambda node: str(node.this),
    exp.National: lambda node: str(node.this),
    exp.ByteString: lambda node: str(node.this),  # E'...', its escapes resolved
    exp.UnicodeString: lambda node: _UNICODE.sub(_character, str(node.this)),
}


def literal_texts(tree: Any) -> Iterator[str]:
    """Yield the text of every literal, however it is quoted."""
    for node in tree.find_all(*_TEXTS):
        yield _TEXTS[type(node)](node)


def _character(escape: re.Match[str]) -> str:
    four, six, backslash = escape.groups()
    return backslash or chr(min(int(four or six, 16), 0x10FFFF))


_PYFORMAT: Final = re.compile(r"%%|%\([^)]*\)s|%s")


def numbered(statement: str, paramstyle: str) -> str:
    """Return the text with parameters as PostgreSQL itself writes them.

    >>> numbered("SELECT a %%s FROM t WHERE b = %(b)s", "pyformat")
    'SELECT a %s FROM t WHERE b = $1'
    """
    if paramstyle not in ("pyformat", "format"):
        return statement
    return _PYFORMAT.sub(lambda found: "%" if found[0] == "%%" else "$1", statement)
