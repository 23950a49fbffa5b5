#!/usr/bin/env python3
"""Print figures of the whole package, and fail if one is worse than its bound: part of `make check`.

.ci/figures.py                      every figure beside its bound
.ci/figures.py --where duplicates   the same, and every place that counts for one figure

A bound may only get tighter: who lowers a figure lowers its bound in `FIGURES`, in the same commit.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import io
import math
import re
import statistics
import sys
import tokenize
import tomllib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Literal, TypeAlias

ROOT = Path(__file__).resolve().parent.parent

Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef
Documented: TypeAlias = ast.Module | ast.ClassDef | Function

DIRECTIVES = re.compile(r"#\s*(noqa|type:|pyright:|fmt:|ruff:|pragma|!)")
"""A comment for a tool says nothing to a reader."""

DOCUMENTED = frozenset({"_asdict", "_fields", "_field_defaults", "_make", "_replace", "_from_iterable"})
"""The standard library documents these, of `namedtuple` and `collections.abc.Set`, in spite of the underscore."""

NOT_CODE = {tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER, tokenize.COMMENT}
SHOWN_ON_FAILURE = 10


@dataclass(frozen=True, order=True, slots=True)
class Place:
    """One of those that make up a figure: how much it counts, and where it stands."""

    amount: float
    where: str
    name: str

    def __str__(self) -> str:
        return f"{self.amount:>8g}  {self.where}  {self.name}"


@dataclass(frozen=True, slots=True)
class Measured:
    """A figure's value, and the places that it is made of."""

    value: float
    places: list[Place]


class Module:
    """One file of the package."""

    def __init__(self, root: Path, path: Path) -> None:
        self.path = path.relative_to(root)
        parts = self.path.with_suffix("").parts
        self.is_package = parts[-1] == "__init__"
        self.name = ".".join(parts[:-1] if self.is_package else parts)
        self.source = path.read_text()
        self.nodes = list(ast.walk(ast.parse(self.source)))

    def at(self, node: ast.stmt | ast.expr) -> str:
        """Return `path:line`."""
        return f"{self.path}:{node.lineno}"

    @cached_property
    def docstrings(self) -> list[tuple[Documented, ast.Expr]]:
        """Each docstring with its owner."""
        owners = [node for node in self.nodes if isinstance(node, Documented)]
        return [(node, node.body[0]) for node in owners if _is_docstring(node.body)]  # type: ignore[misc]  # an Expr

    @cached_property
    def functions(self) -> list[Function]:
        """Every function and method, those inside of others too."""
        return [node for node in self.nodes if isinstance(node, Function)]

    @cached_property
    def classes(self) -> list[ast.ClassDef]:
        """Every class."""
        return [node for node in self.nodes if isinstance(node, ast.ClassDef)]

    @cached_property
    def code_lines(self) -> frozenset[int]:
        """The numbers of the lines that hold code: no blank ones, no comments, no docstrings."""
        lines: set[int] = set()
        for token in self._tokens:
            if token.type not in NOT_CODE:
                lines.update(range(token.start[0], token.end[0] + 1))
        for _, docstring in self.docstrings:
            lines.difference_update(_lines_of(docstring))
        return frozenset(lines)

    @cached_property
    def comments(self) -> int:
        """How many lines hold a comment for a reader and nothing else."""
        comments = [token for token in self._tokens if token.type == tokenize.COMMENT]
        return sum(token.line.lstrip().startswith("#") and not DIRECTIVES.match(token.string) for token in comments)

    @cached_property
    def imports(self) -> list[tuple[ast.Import | ast.ImportFrom, str, str | None]]:
        """Each imported name: `(statement, module, name in it)`, the name None where the module itself is imported."""
        found: list[tuple[ast.Import | ast.ImportFrom, str, str | None]] = []
        for node in self.nodes:
            if isinstance(node, ast.Import):
                found += [(node, alias.name, None) for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                found += [(node, self._absolute(node), alias.name) for alias in node.names]
        return found

    @cached_property
    def own_names(self) -> frozenset[str]:
        """What this file defines: functions, classes, variables, and attributes assigned to `self` or `cls`."""
        return frozenset(name for node in self.nodes for name in _defined_by(node))

    def bound_by_import(self, name: str) -> list[tuple[str, str | None]]:
        """Return what an import gives `name` to in this file: `(module, name in it)`."""
        return [
            (source, imported)
            for statement, source, imported in self.imports
            for alias in statement.names
            if alias.name == (imported or source) and (alias.asname or alias.name) == name
        ]

    def code_lines_of(self, node: ast.stmt) -> int:
        """Return how many lines of code `node` has."""
        return sum(line in self.code_lines for line in _lines_of(node))

    def _absolute(self, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        parts = self.name.split(".")
        base = parts[: len(parts) - node.level + self.is_package]
        return ".".join([*base, *filter(None, [node.module])])

    @cached_property
    def _tokens(self) -> list[tokenize.TokenInfo]:
        return list(tokenize.generate_tokens(io.StringIO(self.source).readline))


class Package:
    """A package's files, and who imports whom among them.

    Args:
        folder: of the package; the folder above it is the one that it is imported from.
        layers: the floors of the import contract, from the top down.
    """

    def __init__(self, folder: Path, *, layers: Iterable[str] = ()) -> None:
        self.name = folder.name
        self.layers = list(layers)
        self.modules = [Module(folder.parent, path) for path in sorted(folder.rglob("*.py"))]
        self._by_name = {module.name: module for module in self.modules}

    @cached_property
    def edges(self) -> dict[str, set[str]]:
        """`{module: modules of the package that it imports}`."""
        return {module.name: set(self._imported_by(module)) - {module.name} for module in self.modules}

    @cached_property
    def own_names(self) -> frozenset[str]:
        """What any file of the package defines."""
        return frozenset().union(*(module.own_names for module in self.modules))

    def __getitem__(self, name: str) -> Module:
        return self._by_name[name]

    def __contains__(self, name: str) -> bool:
        return name in self._by_name

    def _imported_by(self, module: Module) -> Iterator[str]:
        for _, source, name in module.imports:
            if f"{source}.{name}" in self._by_name:
                yield f"{source}.{name}"
            elif source in self._by_name:
                yield source


def _is_docstring(body: list[ast.stmt]) -> bool:
    first = body[0] if body else None
    return isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)


def _lines_of(node: ast.stmt) -> range:
    return range(node.lineno, (node.end_lineno or node.lineno) + 1)


def _defined_by(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.ClassDef | Function):
        yield node.name
    elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        yield node.id
    elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and _is_own(node.value):
        yield node.attr


def _is_own(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id in {"self", "cls"}


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name != "_" and name not in DOCUMENTED


# Size


def modules(package: Package) -> Measured:
    """Count the files."""
    return Measured(len(package.modules), [])


def lines(package: Package) -> Measured:
    """Count all lines, blank ones and comments too."""
    places = [Place(module.source.count("\n"), str(module.path), module.name) for module in package.modules]
    return Measured(sum(place.amount for place in places), places)


def code_lines(package: Package) -> Measured:
    """Count the lines that hold code."""
    places = [Place(len(module.code_lines), str(module.path), module.name) for module in package.modules]
    return Measured(sum(place.amount for place in places), places)


def functions(package: Package) -> Measured:
    """Count functions and methods."""
    return Measured(sum(len(module.functions) for module in package.modules), [])


def _function_places(package: Package) -> list[Place]:
    return [
        Place(module.code_lines_of(node), module.at(node), node.name)
        for module in package.modules
        for node in module.functions
    ]


def median_function(package: Package) -> Measured:
    """Return the median of the functions' lines of code."""
    places = _function_places(package)
    return Measured(statistics.median(place.amount for place in places), places)


def p90_function(package: Package) -> Measured:
    """Return how many lines of code nine functions of ten have at most."""
    places = sorted(_function_places(package))
    return Measured(places[math.ceil(0.9 * len(places)) - 1].amount, places)


def longest_function(package: Package) -> Measured:
    """Return the largest number of lines of code of a function."""
    places = _function_places(package)
    return Measured(max(place.amount for place in places), places)


def largest_class(package: Package) -> Measured:
    """Return the largest number of lines of code of a class."""
    places = [
        Place(module.code_lines_of(node), module.at(node), node.name)
        for module in package.modules
        for node in module.classes
    ]
    return Measured(max(place.amount for place in places), places)


# Imports


def import_cycles(package: Package) -> Measured:
    """Count the groups of modules that import each other, however indirectly."""
    groups = [group for group in _strongly_connected(package.edges) if len(group) > 1]
    places = [Place(len(group), str(package[group[0]].path), " <-> ".join(sorted(group))) for group in groups]
    return Measured(len(groups), places)


def largest_fan_out(package: Package) -> Measured:
    """Return the largest number of the package's modules that one module imports."""
    places = [Place(len(found), str(package[name].path), name) for name, found in package.edges.items()]
    return Measured(max(place.amount for place in places), places)


def layers(package: Package) -> Measured:
    """Count the floors of the import contract."""
    return Measured(len(package.layers), [Place(1, "pyproject.toml", floor) for floor in package.layers])


def _strongly_connected(edges: dict[str, set[str]]) -> list[list[str]]:
    """Return the strongly connected components (Tarjan 1972)."""
    number: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        number[node] = low[node] = len(number)
        stack.append(node)
        for target in edges[node]:
            if target not in number:
                visit(target)
            if target in stack:
                low[node] = min(low[node], low[target])
        if low[node] == number[node]:
            start = stack.index(node)
            found.append(stack[start:])
            del stack[start:]

    for node in edges:
        if node not in number:
            visit(node)
    return found


# Words


def comment_share(package: Package) -> Measured:
    """Return the comment lines, in percent of the lines of code."""
    silent = [module for module in package.modules if not module.comments]
    places = [Place(len(module.code_lines), str(module.path), "has no comment") for module in silent]
    comments = sum(module.comments for module in package.modules)
    return Measured(round(100 * comments / code_lines(package).value, 1), places)


def what_in_docstrings(package: Package) -> Measured:
    """Return how often docstrings say "what", in a thousand of their words."""
    return _share_of_word(package, "what")


def where_in_docstrings(package: Package) -> Measured:
    """Return how often docstrings say "where", in a thousand of their words."""
    return _share_of_word(package, "where")


def _share_of_word(package: Package, wanted: str) -> Measured:
    total, places = 0, []
    for module in package.modules:
        words = Counter(
            word
            for node, _ in module.docstrings
            for word in re.findall(r"[\w']+", (ast.get_docstring(node) or "").lower())
        )
        total += words.total()
        places.append(Place(words[wanted], str(module.path), f'"{wanted}"'))
    return Measured(round(1000 * sum(place.amount for place in places) / total, 1) if total else 0, places)


def long_heads(package: Package) -> Measured:
    """Count the modules whose docstring is longer than 15 lines."""
    heads = [
        Place(len(_lines_of(docstring)), str(module.path), module.name)
        for module in package.modules
        for node, docstring in module.docstrings
        if isinstance(node, ast.Module)
    ]
    places = [head for head in heads if head.amount > 15]
    return Measured(len(places), places)


# Habits


def duplicates(package: Package) -> Measured:
    """Count the pairs of places in two modules with six or more equal lines of code, one after another.

    Indentation counts for nothing; imports, blank lines, comments and docstrings are left out.
    """
    stretches: dict[tuple[str, ...], list[tuple[Module, int]]] = defaultdict(list)
    texts = {module: _comparable_lines(module) for module in package.modules}
    for module, text in texts.items():
        for start in range(len(text) - 5):
            stretches[tuple(line for _, line in text[start : start + 6])].append((module, start))
    places = []
    for first, second in _pairs(stretches.values()):
        (module, start), (other, other_start) = first, second
        length = _equal_length(texts[module][start:], texts[other][other_start:])
        is_begin = not (start and other_start) or texts[module][start - 1][1] != texts[other][other_start - 1][1]
        if is_begin:
            name = f"and {other.path}:{texts[other][other_start][0]}"
            places.append(Place(length, f"{module.path}:{texts[module][start][0]}", name))
    return Measured(len(places), places)


def _comparable_lines(module: Module) -> list[tuple[int, str]]:
    imported = {line for statement, _, _ in module.imports for line in _lines_of(statement)}
    text = module.source.splitlines()
    return [(line, " ".join(text[line - 1].split())) for line in sorted(module.code_lines - imported)]


def _pairs(groups: Iterable[list[tuple[Module, int]]]) -> Iterator[tuple[tuple[Module, int], tuple[Module, int]]]:
    for group in groups:
        yield from (pair for pair in pairwise(group) if pair[0][0] is not pair[1][0])


def _equal_length(one: list[tuple[int, str]], other: list[tuple[int, str]]) -> int:
    same = 0
    for (_, line), (_, other_line) in zip(one, other, strict=False):
        if line != other_line:
            break
        same += 1
    return same


def many_positional(package: Package) -> Measured:
    """Count the functions that take more than three positional parameters, `self` and `cls` left out."""
    places = []
    for module in package.modules:
        for node in module.functions:
            names = [argument.arg for argument in [*node.args.posonlyargs, *node.args.args]]
            amount = len(names) - (names[:1] in (["self"], ["cls"]))
            if amount > 3:
                places.append(Place(amount, module.at(node), node.name))
    return Measured(len(places), places)


def foreign_private_names(package: Package) -> Measured:
    """Count the uses of other libraries' private names outside of `compat/`.

    A use is an import of a private module or name; an attribute `x._name`, or its name in `getattr` and `hasattr`, that
    this module does not define (nor any of the package, where `x` is `self` or `cls`); a keyword `f(_name=...)` that
    the package does not define; a private method that overrides one of a base class of another library.
    """
    places = [
        Place(1, f"{module.path}:{line}", name)
        for module in package.modules
        if module.path.parts[1] != "compat"
        for line, name in _foreign_names(package, module)
    ]
    return Measured(len(places), places)


def _foreign_names(package: Package, module: Module) -> Iterator[tuple[int, str]]:
    for statement, source, name in module.imports:
        is_ours = source.split(".")[0] in {package.name, "__future__"}
        if not is_ours and any(map(_is_private, [*source.split("."), name or ""])):
            yield statement.lineno, f"{source}.{name}" if name else source
    for node in module.nodes:
        if isinstance(node, ast.Attribute) and _is_private(node.attr):
            if node.attr not in (package if _is_own(node.value) else module).own_names:
                yield node.lineno, ast.unparse(node)
        elif isinstance(node, ast.Call):
            name = _asked_attribute(node)
            if name is not None and _is_private(name) and name not in module.own_names:
                yield node.lineno, ast.unparse(node)
            yield from (
                (node.lineno, f"{each.arg}=")
                for each in node.keywords
                if each.arg is not None and _is_private(each.arg) and each.arg not in package.own_names
            )
        elif isinstance(node, ast.ClassDef):
            yield from _foreign_overrides(package, module, node)


def _asked_attribute(call: ast.Call) -> str | None:
    """Return "_name" of `getattr(x, "_name")` and the like."""
    if isinstance(call.func, ast.Name) and call.func.id in {"getattr", "hasattr", "setattr"} and len(call.args) > 1:
        name = call.args[1]
        if isinstance(name, ast.Constant) and isinstance(name.value, str):
            return name.value
    return None


def _foreign_overrides(package: Package, module: Module, node: ast.ClassDef) -> Iterator[tuple[int, str]]:
    methods = [method for method in node.body if isinstance(method, Function) and _is_private(method.name)]
    bases = list(_foreign_bases(package, module, node)) if methods else []
    for method in methods:
        if any(hasattr(base, method.name) for base in bases):
            yield method.lineno, f"{node.name}.{method.name}"


def _foreign_bases(package: Package, module: Module, node: ast.ClassDef) -> Iterator[object]:
    """Yield the classes of other libraries that `node` derives from, also by way of the package's own."""
    for base in node.bases:
        head, *rest = ast.unparse(base).partition("[")[0].split(".")
        own = next((found for found in module.classes if found.name == head and found is not node), None)
        if own is not None:
            yield from _foreign_bases(package, module, own)
        for source, name in module.bound_by_import(head):
            if source in package and name is not None:
                defining = package[source]
                yield from (
                    found
                    for parent in defining.classes
                    if parent.name == name
                    for found in _foreign_bases(package, defining, parent)
                )
            else:
                yield _resolve(source, [*filter(None, [name]), *rest])


def _resolve(source: str, steps: Iterable[str]) -> object:
    found: object = importlib.import_module(source)
    for step in steps:
        found = getattr(found, step)
    return found


@dataclass(frozen=True, slots=True)
class Figure:
    """A row of the table: how a figure is measured, and the worst value that it may have."""

    measure: Callable[[Package], Measured]
    sense: Literal["at most", "at least", "shown"]
    bound: float = 0

    @property
    def name(self) -> str:
        """As it is printed, and given to `--where`."""
        return self.measure.__name__.replace("_", " ")

    def allows(self, value: float) -> bool:
        """Tell whether `value` is within the bound."""
        return {"at most": value <= self.bound, "at least": value >= self.bound, "shown": True}[self.sense]


FIGURES = [
    # what is measured, and the worst value that it may have
    Figure(modules, "shown"),
    Figure(lines, "shown"),
    Figure(code_lines, "shown"),
    Figure(functions, "shown"),
    Figure(median_function, "at most", 5),
    Figure(p90_function, "at most", 14),
    Figure(longest_function, "at most", 55),
    Figure(largest_class, "at most", 286),
    Figure(import_cycles, "at most", 0),
    Figure(largest_fan_out, "at most", 40),
    Figure(layers, "at most", 10),
    Figure(comment_share, "at least", 1.1),
    Figure(what_in_docstrings, "at most", 5.9),
    Figure(where_in_docstrings, "at most", 3.7),
    Figure(long_heads, "at most", 0),
    Figure(duplicates, "at most", 6),
    Figure(foreign_private_names, "at most", 0),
    Figure(many_positional, "at most", 86),
]


def check(package: Package, figures: Iterable[Figure], *, shown: str | None = None) -> list[str]:
    """Print every figure, and return a message for each that is outside its bound."""
    failures = []
    for figure in figures:
        measured = figure.measure(package)
        places = sorted(measured.places, reverse=True)
        bound = "" if figure.sense == "shown" else f"{figure.sense} {figure.bound:g}"
        print(f"  {figure.name:24} {measured.value:>8g}  {bound}")
        if shown == figure.name:
            print(*(f"    {place}" for place in places), sep="\n")
        if not figure.allows(measured.value):
            named = "".join(f"\n    {place}" for place in places[:SHOWN_ON_FAILURE])
            failures.append(f"{figure.name}: {measured.value:g}, and the bound is {bound}:{named}")
    return failures


def read_package(root: Path) -> Package:
    """Read the package that the project at `root` holds, with the layers of its import contract."""
    config = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["importlinter"]
    floors = next(contract["layers"] for contract in config["contracts"] if contract["type"] == "layers")
    return Package(root / config["root_package"], layers=floors)


def main() -> int:
    """Print, and return 1 if a bound is exceeded."""
    parser = argparse.ArgumentParser(description="Print figures of the whole package and hold them to their bounds.")
    names = [figure.name.replace(" ", "-") for figure in FIGURES]
    parser.add_argument("--where", choices=names, help="list every place that counts for this figure")
    asked = parser.parse_args().where
    package = read_package(ROOT)
    print(f"Figures of {package.name}/")
    failures = check(package, FIGURES, shown=asked and asked.replace("-", " "))
    for failure in failures:
        print(f"\n{failure}", file=sys.stderr)
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main())
