"""TakenNames of generated things: identifiers that are valid, and meet nobody else's."""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterable

__all__ = ["TakenNames", "camel_case", "is_attribute", "snake_case"]

_CAMEL = re.compile(r"[a-z][A-Za-z0-9]*")
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_WORD = re.compile(r"[A-Za-z0-9]+")


def camel_case(text: str, *, fallback: str = "Client") -> str:
    """Return `text` as the name of a class.

    >>> camel_case("team hub"), camel_case("agents.get_all"), camel_case("3D"), camel_case("?")
    ('TeamHub', 'AgentsGetAll', 'Client3D', 'Client')
    """
    name = "".join(word[0].upper() + word[1:] for word in _WORD.findall(text))
    if not name or name[0].isdigit():
        name = fallback + name
    return f"{name}_" if keyword.iskeyword(name) else name


def snake_case(name: str) -> str:
    """Return a name in camel case as Python spells it; any other as it is.

    >>> snake_case("getAll"), snake_case("userID"), snake_case("line1"), snake_case("ID"), snake_case("get_all")
    ('get_all', 'user_id', 'line1', 'ID', 'get_all')
    """
    return _HUMP.sub("_", name).lower() if _CAMEL.fullmatch(name) else name


def is_attribute(name: str) -> bool:
    """Tell whether `name` can be typed after a dot, and is nobody's private matter.

    >>> is_attribute("get_all"), is_attribute("class"), is_attribute("get-all"), is_attribute("_x")
    (True, False, False, False)
    """
    return name.isidentifier() and not keyword.iskeyword(name) and not name.startswith("_")


class TakenNames:
    """The names that are taken in one scope.

    >>> names = TakenNames(["Query"])
    >>> names.take("Query"), names.take("Query"), names.take("Agent")
    ('Query2', 'Query3', 'Agent')
    """

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self.taken = set(taken)

    def take(self, wish: str) -> str:
        """Return `wish`, or `wish` with the first number that makes it new."""
        name, number = wish, 2
        while name in self.taken:
            name, number = f"{wish}{number}", number + 1
        self.taken.add(name)
        return name
