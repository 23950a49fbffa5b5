"""Write rules in TypeScript, of the JSON that a document has of them (`records/rules/shipped.py`).

A function takes the record and the user as JSON carries them, before codecs: a `Date` has no microseconds. It is made
of functions of `typescript/runtime/records/rules.ts`; `codegen/rules.py` explains `unknown`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from reactive_rpc.codegen.rules import row_name

__all__ = ["TypeScriptRules"]

_IDENTIFIER: Final = re.compile(r"[A-Za-z_$][A-Za-z0-9_$]*")
_FUNCTIONS: Final[Mapping[str, str]] = {
    "eq": "eq",
    "ne": "ne",
    "lt": "lt",
    "lte": "lte",
    "gt": "gt",
    "gte": "gte",
    "in": "isIn",
    "not_in": "notIn",
    "null": "isNull",
    "not_null": "notNull",
    "some": "some",
    "none": "none",
}


def _as_it_is(name: str) -> str:
    return name


@dataclass
class TypeScriptRules:
    """The rules of a module.

    Args:
        spell: how a field of a record or an attribute of a user is called on the wire.

    Attributes:
        imported: names of the runtime that the functions need.
    """

    spell: Callable[[str], str] = _as_it_is
    imported: set[str] = field(default_factory=set)
    _used: set[str] = field(default_factory=set, init=False)

    def head(self, runtime: str) -> str:
        """Return the import that the functions stand on; called when all of them are written."""
        names = ", ".join(("type Decide", *sorted(self.imported)))
        return f"import {{ {names} }} from '{runtime}/records/rules.ts';\n"

    def function(self, name: str, tree: Any) -> str:
        """Return a function that takes the record, the user, and the value of unknown leaves.

        Raises:
            ValueError: its name is no identifier, or a level no whole number. Other names are quoted.
        """
        if not _IDENTIFIER.fullmatch(name):
            raise ValueError(f"{name!r} cannot be a name in TypeScript")
        self._used.clear()
        rule = self._rule(tree, 0)
        return f"export const {name}: Decide = ({self._parameters()}) => {rule};\n"

    def _parameters(self) -> str:
        """Return the parameters that the rule needs: compilers may refuse those that are not used."""
        names = ["r0", "user", "unknown"]
        while names and names[-1] not in self._used:
            names.pop()
        return ", ".join(_DEFAULTS.get(name, name) if name in self._used else f"_{name}" for name in names)

    def _rule(self, tree: Any, level: int) -> str:
        if isinstance(tree, bool):
            return str(tree).lower()
        name, *parts = tree
        if name in ("and", "or"):
            return "(" + (" && " if name == "and" else " || ").join(self._rule(part, level) for part in parts) + ")"
        if name == "ask":
            return self._use("unknown")
        function = self._import(_FUNCTIONS[name])
        if name in ("some", "none"):
            of, association, _, inner = parts
            row = f"r{level + 1}"
            rows, rule = self._place("field", of, association), self._rule(inner, level + 1)
            parameter = row if row in self._used else ""
            self._used.discard(row)
            return f"{function}({rows}, ({parameter}) => {rule}, {self._use('unknown')})"
        if name in ("null", "not_null"):
            return f"{function}({self._place(*parts[0])})"
        kind, *sides = parts
        return f"{function}({self._import(_KINDS[kind])}, {', '.join(self._place(*side) for side in sides)})"

    def _place(self, kind: str, *where: Any) -> str:
        if kind == "value":
            return json.dumps(where[0])
        row, name = (row_name(where[0]), where[1]) if kind == "field" else ("user", where[0])
        return f"{self._use(row)}[{json.dumps(self.spell(name))}]"

    def _use(self, name: str) -> str:
        self._used.add(name)
        return name

    def _import(self, name: str) -> str:
        self.imported.add(name)
        return name


_DEFAULTS: Final[Mapping[str, str]] = {"unknown": "unknown = false"}

_KINDS: Final[Mapping[str, str]] = {
    "text": "text",
    "int": "integer",
    "decimal": "decimal",
    "moment": "moment",
    "local": "local",
    "bool": "plain",
    "date": "plain",
    "uuid": "plain",
    "enum": "plain",
}
"""How the values of each kind are ordered; plain ones as JavaScript does."""
