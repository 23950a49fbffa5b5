"""The messages of the package, read from its source: those of its errors, and those that it logs.

A message is a template: `…` stands for what is only known when it is made. A text is followed through constants, local
names, parameters, `+`, `... if ... else ...` and functions of the package that return it.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

__all__ = ["FOLLOWED", "LOGGED", "NOT_CACHED", "PRINTED", "Message", "Package"]

LOGGED: Final = "log"
PRINTED: Final = "command"
NOT_CACHED: Final = "not cached"
PLACE: Final = "…"

_ROOT_ERROR: Final = "ReactiveRPCError"
_PLAIN_ERRORS: Final = {"RuntimeError", "ImportError"}
_LOGGING: Final = {"warning", "error", "exception", "critical"}
_MAKERS: Final = {"Fault": "DefinitionError", "UnsupportedTypeError": "DefinitionError", "failure": PRINTED}
_OPAQUE: Final = {"Parsed", "Template", "TextRead"}
_REFUSALS: Final = {"refuse", "fault"}
_DEFINING: Final = ".procedures."
"""Where a function of these names, which is handed from one to another, makes a `DefinitionError`."""
_FAULTS: Final = "faults"
"""What such a method yields is the message of a `DefinitionError`."""
FOLLOWED: Final = (*_MAKERS, *sorted(_OPAQUE), _FAULTS)
"""The names of the package that this module knows."""

_DEPTH: Final = 6
"""How many functions a text is followed through, and how deep the classes of errors are."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, order=True)
class Message:
    """A message that the package can make.

    Attributes:
        kind: the error's class as users meet it, `LOGGED`, `PRINTED` (by a command), or `NOT_CACHED` (why a result is
            not).
        text: the template.
    """

    kind: str
    text: str


@dataclass(frozen=True)
class _Site:
    """Where an expression stands: its module, and the functions around it, the innermost last."""

    module: _Module
    functions: tuple[Function, ...]


class _Module:
    """A parsed module."""

    def __init__(self, name: str, path: Path) -> None:
        self.name = name
        self.tree = ast.parse(path.read_text(encoding="utf-8"))

    @cached_property
    def calls(self) -> list[tuple[ast.Call, tuple[Function, ...]]]:
        """Each call, with the functions around it."""
        return list(_calls(self.tree))

    @cached_property
    def constants(self) -> dict[str, ast.expr]:
        """The values of the names that the module assigns."""
        found: dict[str, ast.expr] = {}
        for statement in self.tree.body:
            if isinstance(statement, ast.Assign):
                found.update({to.id: statement.value for to in statement.targets if isinstance(to, ast.Name)})
            elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name) and statement.value:
                found[statement.target.id] = statement.value
        return found

    @cached_property
    def functions(self) -> dict[str, Function]:
        """The functions and methods by their names."""
        return {node.name: node for node in ast.walk(self.tree) if isinstance(node, Function)}

    @cached_property
    def imported(self) -> dict[str, str]:
        """The modules that names are imported from."""
        imports = [node for node in ast.walk(self.tree) if isinstance(node, ast.ImportFrom)]
        return {name.asname or name.name: node.module or "" for node in imports for name in node.names}


class Package:
    """The source of a package.

    Args:
        folder: of the package.
        leave_out: subpackages that are not read.
    """

    def __init__(self, folder: Path, *, leave_out: Iterable[str] = ()) -> None:
        left = {folder / name for name in leave_out}
        self._modules = {
            module.name: module
            for path in sorted(folder.rglob("*.py"))
            if not left & {path, *path.parents}
            for module in [_Module(_dotted(path.relative_to(folder.parent)), path)]
        }
        self.unread: list[str] = []
        """Messages that could not be read, as source; filled by `messages`."""

    def messages(self) -> list[Message]:
        """Return every message, sorted, each once."""
        self.unread.clear()
        found = {
            Message(kind, text)
            for module in self._modules.values()
            for node, functions in module.calls
            for kind in self._kinds(node, module)
            for text in self._said(kind, node, _Site(module, functions))
        }
        found |= {
            Message("DefinitionError", text)
            for module in self._modules.values()
            for function in module.functions.values()
            if function.name.endswith(_FAULTS)
            for node in ast.walk(function)
            if isinstance(node, ast.Yield) and node.value is not None
            for text in self._texts(node.value, _Site(module, (function,)), _DEPTH)
        }
        return sorted(message for message in found if message.text.strip(PLACE + " :;.%"))

    @cached_property
    def _errors(self) -> dict[str, str]:
        """Our errors, each with the class of `errors.py` that users meet it as."""
        classes = [
            (module, node)
            for module in self._modules.values()
            for node in ast.walk(module.tree)
            if isinstance(node, ast.ClassDef)
        ]
        found = {_ROOT_ERROR: _ROOT_ERROR}
        for _ in range(_DEPTH):
            for module, node in classes:
                for base in node.bases:
                    if isinstance(base, ast.Name) and base.id in found:
                        found[node.name] = node.name if module.name.endswith(".errors") else found[base.id]
        return found

    def _kinds(self, call: ast.Call, module: _Module) -> Iterator[str]:
        function = call.func
        name = function.id if isinstance(function, ast.Name) else ""
        method = function.attr if isinstance(function, ast.Attribute) else ""
        if name in self._errors:
            yield self._errors[name]
        elif name in _PLAIN_ERRORS:
            yield name
        elif name in _MAKERS:
            yield _MAKERS[name]
        elif method == "fault" or (name in _REFUSALS and _DEFINING in module.name):
            yield "DefinitionError"
        elif method in _LOGGING and ast.unparse(function).startswith("logger."):
            yield LOGGED
        elif "refuse" in (name.removesuffix("d"), method) or name in _OPAQUE:
            yield NOT_CACHED

    def _said(self, kind: str, call: ast.Call, site: _Site) -> list[str]:
        positional = [] if isinstance(call.func, ast.Name) and call.func.id in _OPAQUE else call.args[-1:]
        named = [keyword.value for keyword in call.keywords if keyword.arg in ("message", "summary", "opaque")]
        if kind == LOGGED:
            return [_of_format(text) for text in self._texts(call.args[0], site, _DEPTH)]
        if not (said := [*named, *positional]):
            return []
        texts = self._texts(said[0], site, _DEPTH)
        if kind == NOT_CACHED:
            return [text for text in texts if not text.startswith("a ")]  # such a reason is a predicate
        if not texts:
            self.unread.append(ast.unparse(call))
        return texts

    def _texts(self, node: ast.expr, site: _Site, depth: int) -> list[str]:
        """Return the templates that an expression may be; none where that cannot be read."""
        if depth == 0:
            return []
        match node:
            case ast.Constant(value=str(text)):
                return [text]
            case ast.JoinedStr(values=parts):
                return self._joined(parts, site, depth)
            case ast.BinOp(left=left, op=ast.Add(), right=right):
                return [
                    one + other
                    for one in self._texts(left, site, depth) or [PLACE]
                    for other in self._texts(right, site, depth) or [PLACE]
                ]
            case ast.IfExp(body=one, orelse=other):
                return self._either([one, other], site, depth)
            case ast.BoolOp(values=values):
                return self._either(values, site, depth)
            case ast.Name(id=name):
                return self._named(name, site, depth)
            case ast.Subscript(value=ast.Name(id=name)):
                return self._values(name, site, depth)
            case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr="get")):
                return self._values(name, site, depth)
            case ast.Call(func=ast.Attribute(value=text, attr="replace" | "format")):
                return [found.replace("{}", PLACE) for found in self._texts(text, site, depth)]
            case ast.Call(func=ast.Name(id=name) | ast.Attribute(value=ast.Name(id="self"), attr=name)):
                return self._returned(name, site, depth)
        return []

    def _either(self, values: list[ast.expr], site: _Site, depth: int) -> list[str]:
        """Return what one of the values may be; anything, if one of them cannot be read, but none if no one can."""
        choices = [self._texts(value, site, depth) for value in values]
        return [text for texts in choices for text in texts or [PLACE]] if any(choices) else []

    def _joined(self, parts: list[ast.expr], site: _Site, depth: int) -> list[str]:
        texts = [""]
        for part in parts:
            value = part.value if isinstance(part, ast.FormattedValue) else part
            is_given = isinstance(value, ast.Name) and any(value.id in _parameters(one) for one in site.functions)
            known = [] if is_given else self._texts(value, site, depth)
            # A part that may be empty is often put together of more than can be read here.
            choices = known if known and all(known) else [*filter(None, known), PLACE]
            texts = [text + choice for text in texts for choice in choices]
        return texts

    def _named(self, name: str, site: _Site, depth: int) -> list[str]:
        for function in reversed(site.functions):
            values = list(_assigned(function, name))
            values += _passed(function, name, site.module)
            if values:
                return [text for value in values for text in self._texts(value, site, depth - 1)]
        defined = self._defined(name, site.module)
        return [] if defined is None else self._texts(defined[1], _Site(defined[0], ()), depth - 1)

    def _values(self, name: str, site: _Site, depth: int) -> list[str]:
        defined = self._defined(name, site.module)
        if defined is None or not isinstance(defined[1], ast.Dict):
            return []
        return [text for value in defined[1].values for text in self._texts(value, _Site(defined[0], ()), depth - 1)]

    def _defined(self, name: str, module: _Module) -> tuple[_Module, ast.expr] | None:
        """Return the value of a module's constant, and the module that defines it."""
        if name in module.constants:
            return module, module.constants[name]
        source = self._modules.get(module.imported.get(name, ""))
        return None if source is None else self._defined(name, source)

    def _returned(self, name: str, site: _Site, depth: int) -> list[str]:
        module: _Module | None = site.module
        if name not in site.module.functions:
            module = self._modules.get(site.module.imported.get(name, ""))
        if module is None or name not in module.functions:
            return []
        function = module.functions[name]
        returned = [node.value for node in ast.walk(function) if isinstance(node, ast.Return) and node.value]
        return [text for value in returned for text in self._texts(value, _Site(module, (function,)), depth - 1)]


def _dotted(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _calls(node: ast.AST, functions: tuple[Function, ...] = ()) -> Iterator[tuple[ast.Call, tuple[Function, ...]]]:
    """Yield each call below a node with the functions around it."""
    if isinstance(node, ast.Call):
        yield node, functions
    inside = (*functions, node) if isinstance(node, Function) else functions
    for child in ast.iter_child_nodes(node):
        yield from _calls(child, inside)


def _assigned(function: Function, name: str) -> Iterator[ast.expr]:
    for node in ast.walk(function):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Name) and target.id == name:
                    yield node.value


def _parameters(function: Function) -> list[str]:
    parameters = [*function.args.posonlyargs, *function.args.args]
    return [parameter.arg for parameter in parameters if parameter.arg != "self"]


def _passed(function: Function, name: str, module: _Module) -> list[ast.expr]:
    """Return what a parameter is given, by default and by the calls in its module."""
    names = _parameters(function)
    if name not in names:
        return []
    place = names.index(name)
    defaults = function.args.defaults
    given = defaults[place - len(names) :][:1] if len(defaults) >= len(names) - place else []
    for call, _ in module.calls:
        called = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
        if called == function.name:
            given += call.args[place : place + 1]
            given += [keyword.value for keyword in call.keywords if keyword.arg == name]
    return given


def _of_format(text: str) -> str:
    """Return a template of one for `%`.

    >>> _of_format("%s failed, request %s, %d %% of all")
    '… failed, request …, … % of all'
    """
    for field in ("%s", "%r", "%d", "%g"):
        text = text.replace(field, PLACE)
    return text.replace("%%", "%")
