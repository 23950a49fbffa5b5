"""Write rules in Python, of the JSON that a document has of them (`records/rules/shipped.py`).

A rule becomes one expression of attributes and operators. Negation is at the leaves, so each leaf that would be unknown
to SQL is simply false. `unknown` is the value of a leaf that a client cannot know: a rule that it does not have, an
association that it has not loaded. No leaf is negated above, so a rule that is true with False for it is true, one that
is false with True for it is false, and of any other only the server knows.
"""

from __future__ import annotations

import keyword
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any, Final

__all__ = ["PythonRules", "row_name"]

_SYMBOLS: Final[Mapping[str, str]] = {"eq": "==", "ne": "!=", "lt": "<", "lte": "<=", "gt": ">", "gte": ">="}


@dataclass
class PythonRules:
    """The rules of a module.

    Attributes:
        constants: `{expression: name}` of those that are made once, when the module is imported.
    """

    constants: dict[str, str] = field(default_factory=dict)

    def head(self) -> str:
        """Return the imports and constants that the functions stand on; called when all of them are written."""
        lines = [f"{name} = {expression}" for expression, name in self.constants.items()]
        return "\n".join((*_IMPORTS, "", *lines, ""))

    def function(self, name: str, tree: Any) -> str:
        """Return a function that takes the record, the user, and the value of unknown leaves.

        Raises:
            ValueError: a name in it is no identifier, or a level no whole number: nothing of a document is source.
        """
        head = f"def {_identifier(name)}(r0: Any, user: Any, unknown: bool = False) -> bool:"
        return f"{head}\n    return {self._rule(tree, 0)}\n"

    def _rule(self, tree: Any, level: int) -> str:
        if isinstance(tree, bool):
            return str(tree)
        name, *parts = tree
        if name in ("and", "or"):
            return "(" + f" {name} ".join(self._rule(part, level) for part in parts) + ")"
        if name == "ask":
            return "unknown"
        if name in ("null", "not_null"):
            return f"{_place(*parts[0])} {'is' if name == 'null' else 'is not'} None"
        if name in ("some", "none"):
            return self._some(tree, level)
        kind, left, right = parts
        if name in ("in", "not_in"):
            return self._membership(tree)
        known = [f"{_place(*side)} is not None" for side in (left, right) if side[0] != "value"]
        is_value = "value" in (left[0], right[0])
        sides = [self._side(kind, side, by_value=is_value) for side in (left, right)]
        return "(" + " and ".join((*known, f"{sides[0]} {_SYMBOLS[name]} {sides[1]}")) + ")"

    def _some(self, some: Any, level: int) -> str:
        name, of, association, has_many, tree = some
        rows, row = _place("field", of, association), f"r{level + 1}"
        inner = self._rule(tree, level + 1)
        # An association that is not loaded is Ellipsis, so that None is what it says: there is no such row.
        if not has_many:
            rows = f"() if {rows} is None else ({rows},)"
        found = f"any({inner} for {row} in ({rows}))"
        return (
            f"(unknown if {_place('field', of, association)} is ... else {found if name == 'some' else f'not {found}'})"
        )

    def _membership(self, tree: Any) -> str:
        name, kind, left, right = tree
        is_in = name == "in"
        value = self._side(kind, left, by_value=right[0] == "value")
        known = f"{_place(*left)} is not None and " if left[0] != "value" else ""
        if right[0] == "value":
            if not right[1]:
                return str(not is_in)
            items = self._constant("(" + "".join(f"{self._value(kind, item)}, " for item in right[1]) + ")")
            return f"({known}{value} {'in' if is_in else 'not in'} {items})"
        rows = _place(*right)
        items = f"[{_key('decimal', 'item')} for item in {rows} if item is not None]" if kind == "decimal" else rows
        if kind == "enum" and left[0] == "value":
            items = f"[item.value for item in {rows} if item is not None]"
        if is_in:
            return f"({rows} is not None and {known}{value} in {items})"
        outside = f"({known}None not in {rows} and {value} not in {items})"
        return f"({rows} is not None and (not {rows} or {outside}))"

    def _side(self, kind: str, side: Any, *, by_value: bool) -> str:
        if side[0] == "value":
            return self._value(kind, side[1])
        place = _place(*side)
        return f"{place}.value" if kind == "enum" and by_value else _key(kind, place)

    def _value(self, kind: str, value: Any) -> str:
        if kind == "int":
            return str(int(value))  # beyond 2^53 it is text
        if kind in ("text", "bool", "enum"):
            return repr(value)
        return self._constant(_made(kind, value))

    def _constant(self, expression: str) -> str:
        return self.constants.setdefault(expression, f"_{len(self.constants)}")


_IMPORTS: Final = (
    "import datetime",
    "from decimal import Decimal",
    "from typing import Any",
    "from uuid import UUID",
    "",
    "from reactive_rpc.protocol.decimals import decimal_key",
)


def _place(kind: str, *where: Any) -> str:
    if kind == "field":
        return f"{row_name(where[0])}.{_identifier(where[1])}"
    return f"user.{_identifier(where[0])}"


def row_name(level: Any) -> str:
    """Return the name of the row at a level, in Python and TypeScript.

    Raises:
        ValueError: it is no level.
    """
    if type(level) is not int or level < 0:
        raise ValueError(f"{level!r} is no level of a rule")
    return f"r{level}"


def _identifier(name: Any) -> str:
    if type(name) is not str or not name.isidentifier() or keyword.iskeyword(name):
        raise ValueError(f"{name!r} cannot be a name in Python: rules are not written that ask for it")
    return name


def _key(kind: str, place: str) -> str:
    return f"decimal_key({place})" if kind == "decimal" else place


def _made(kind: str, value: str) -> str:
    """Return the expression that makes a constant."""
    if kind == "decimal":
        return f"decimal_key(Decimal({value!r}))"
    if kind == "uuid":
        return f"UUID({value!r})"
    if kind == "date":
        return f"datetime.date.fromisoformat({date.fromisoformat(value).isoformat()!r})"
    return f"datetime.datetime.fromisoformat({datetime.fromisoformat(value).isoformat()!r})"
