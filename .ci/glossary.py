#!/usr/bin/env python3
"""Hold the code and the docs to `docs/glossary.md`: part of `make check`.

.ci/glossary.py                 how often each word that we do not use is still found
.ci/glossary.py --where told    the same, and every place of one word

A class has a name of its own in the whole package. The words that we do not use stand in the glossary's own table; the
numbers in `ALLOWED` and `TWICE` are those that are left, and may only go down, to nothing.
"""

from __future__ import annotations

import argparse
import ast
import io
import re
import sys
import tokenize
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
GLOSSARY = Path("docs/glossary.md")
PACKAGE = "reactive_rpc"
SOURCES = (PACKAGE, "app", "benchmarks", "tests", ".ci", "docs")
PAGES = ("docs", "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")

ALLOWED: dict[str, tuple[int, int, int]] = {
    # word: how many names may have it in the package, and how many elsewhere; how often prose may say it
    "tell": (2, 1, 0),
}

TWICE: dict[str, int] = {
    # class or alias: how many modules of the package may define it
    # the same idea for who defines it and for who calls it
    "Mutation": 2,
    "Procedure": 2,
    "Query": 2,
    "StreamedQuery": 2,
    "Subscription": 2,
    "SyncMutation": 2,
    "SyncQuery": 2,
}

ENDINGS = "(s|es|d|ed|ing|er|ers)?"
PARTS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
"""`HTTPServer` and `http_server` are the same two words."""

FIELD_TERMS = re.compile(r"(?<![a-z])(in|single)[ _-]flights?(?![a-z])", re.IGNORECASE)
"""What the field says is no old word: `in_flight`, "single flight"."""


@dataclass(frozen=True, slots=True)
class Word:
    """A row of the glossary's table of words that we do not use.

    Attributes:
        text: a part of names (`told`), several (`came_by_connection`), or, with a capital, a whole name (`KnownKeys`).
        say: the word of the field.
        in_prose: whether docstrings, comments and pages are held too.
        folder: of the only modules that are held; "" for all.
    """

    text: str
    say: str
    in_prose: bool
    folder: str

    def is_in(self, name: str) -> bool:
        """Tell whether a name has it."""
        if self.text != self.text.lower():
            return name == self.text
        parts = "_".join(PARTS.findall(name)).lower()
        return re.search(rf"(?<![a-z]){self.text}{ENDINGS}(?![a-z])", FIELD_TERMS.sub("", parts)) is not None

    def count(self, prose: str) -> int:
        """Return how often a text says it."""
        text = prose.lower()
        if self.text.lower() not in text:
            return 0
        text = FIELD_TERMS.sub("", text)
        return len(re.findall(rf"(?<![a-z]){self.text.lower()}{ENDINGS}(?![a-z])", text))


@dataclass(frozen=True, slots=True)
class Found:
    """Where a word was found: in a name of the package, in a name elsewhere, or in prose."""

    kind: int
    where: str
    text: str


SHOWN_ON_FAILURE = 20
KINDS = ("in names of the package", "in names elsewhere", "in prose")


def read_words(page: str) -> list[Word]:
    """Return the rows of the table that has the columns old word, say, held in.

    Raises:
        ValueError: there is no such table, or a row of it cannot be understood.
    """
    _, begun, rest = page.partition("\n| old word | say | held in |\n")
    if not begun:
        raise ValueError(f"{GLOSSARY} has no table with the columns: old word, say, held in")
    words = []
    for row in rest.split("\n\n")[0].splitlines()[1:]:
        text, say, held = (cell.strip() for cell in row.strip("|").split("|"))
        found = re.fullmatch(r"names(?P<prose>, prose)?( of `(?P<folder>\w+)/`)?", held)
        if found is None:
            raise ValueError(f'{GLOSSARY}: "{held}" is neither "names" nor "names, prose" nor "names of `folder/`"')
        words.append(Word(text.strip("`"), say, found["prose"] is not None, found["folder"] or ""))
    return words


def names_in(nodes: Iterable[ast.AST]) -> Iterator[tuple[int, str]]:
    """Yield each name that a module says, with its line."""
    for node in nodes:
        line = getattr(node, "lineno", 1)
        for field in ("id", "attr", "name", "asname", "arg"):
            name = getattr(node, field, None)
            if isinstance(name, str):
                yield line, name


def prose_in(source: str, nodes: Iterable[ast.AST]) -> Iterator[tuple[int, str]]:
    """Yield each line of docstrings (also of attributes) and comments, with its number."""
    for node in nodes:
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            first, last = node.lineno, node.end_lineno or node.lineno
            yield from enumerate(source.splitlines()[first - 1 : last], first)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


class Project:
    """What a project's files say: names, prose, and the types that the package defines.

    Attributes:
        names: `{(kind, name): [(file, line)]}`, kind 0 in the package and 1 elsewhere.
        prose: `[(place, line of text)]` of docstrings, comments and pages; a test's name is a sentence, too.
        types: `{public class, or alias at the top of a module: [place]}` of the package.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self.names: dict[tuple[int, str], list[tuple[Path, int]]] = defaultdict(list)
        self.prose: list[tuple[str, str]] = []
        self.types: dict[str, list[str]] = defaultdict(list)
        for path in self._files(SOURCES, "*.py"):
            self._read_source(path.relative_to(root), path.read_text())
        for path in self._files(PAGES, "*.md"):
            where = path.relative_to(root)
            if where != GLOSSARY:
                self.prose += [(f"{where}:{n}", line) for n, line in enumerate(path.read_text().splitlines(), 1)]

    def find(self, word: Word) -> list[Found]:
        """Return where a word is: in a name once, however often the name is used, in prose each time."""
        found = []
        for (kind, name), places in self.names.items():
            path, line = next(
                (place for place in places if not word.folder or word.folder in place[0].parts), (None, 0)
            )
            if path is not None and word.is_in(name):
                found.append(Found(kind, f"{path}:{line}", name))
        if word.in_prose:
            found += [Found(2, where, line.strip()) for where, line in self.prose for _ in range(word.count(line))]
        return found

    def _files(self, places: Iterable[str], pattern: str) -> Iterator[Path]:
        for place in places:
            path = self._root / place
            yield from sorted(path.rglob(pattern)) if path.is_dir() else [path] if path.exists() else []

    def _read_source(self, where: Path, source: str) -> None:
        tree = ast.parse(source)
        nodes = list(ast.walk(tree))
        kind = 0 if where.parts[0] == PACKAGE else 1
        for line, name in [(1, part) for part in where.with_suffix("").parts] + list(names_in(nodes)):
            if name.startswith("test_"):  # a sentence
                self.prose.append((f"{where}:{line}", name))
            else:
                self.names[kind, name].append((where, line))
        self.prose += [(f"{where}:{line}", text) for line, text in prose_in(source, nodes)]
        if kind == 0:
            for line, name in types_in(tree.body, nodes):
                self.types[name].append(f"{where}:{line}")


def types_in(body: Iterable[ast.stmt], nodes: Iterable[ast.AST]) -> Iterator[tuple[int, str]]:
    """Yield the public classes of a module, and the aliases that stand at its top, each once."""
    names = {node.name: node.lineno for node in nodes if isinstance(node, ast.ClassDef)}
    for node in body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        names |= {target.id: node.lineno for target in targets if isinstance(target, ast.Name)}
    yield from ((line, name) for name, line in names.items() if re.fullmatch(r"[A-Z]\w*[a-z]\w*", name))


def check_words(project: Project, words: Iterable[Word], *, shown: str | None = None) -> list[str]:
    """Print how often each word is found beside how often it may be; return a message for each that is more often."""
    failures = []
    print(f"  {'':20} {'names in the package':>22} {'names elsewhere':>18} {'prose':>12}")
    for word in words:
        found = project.find(word)
        counts = [sum(one.kind == kind for one in found) for kind in range(3)]
        allowed = ALLOWED.get(word.text, (0, 0, 0))
        cells = [f"{count} of {most}" if count or most else "" for count, most in zip(counts, allowed, strict=True)]
        print(f"  {word.text:20} {cells[0]:>22} {cells[1]:>18} {cells[2]:>12}")
        if shown == word.text:
            print(*(f"    {one.where}  {one.text}" for one in found), sep="\n")
        for kind, (count, most) in enumerate(zip(counts, allowed, strict=True)):
            if count > most:
                places = [f"\n    {one.where}  {one.text}" for one in found if one.kind == kind]
                rest = f"\n    and so on: .ci/glossary.py --where {word.text}" if count > SHOWN_ON_FAILURE else ""
                failures.append(
                    f'"{word.text}": {count} {KINDS[kind]}, {most} allowed; say "{word.say}"'
                    f"{''.join(places[:SHOWN_ON_FAILURE])}{rest}"
                )
    return failures


def check_types(project: Project) -> list[str]:
    """Return a message for each type that more modules define than may."""
    failures = []
    for name, places in sorted(project.types.items()):
        allowed = TWICE.get(name, 1)
        if len(places) > allowed:
            failures.append(f"{name} is defined in {len(places)} modules, {allowed} allowed: {', '.join(places)}")
    return failures


def check_exceptions(project: Project, words: Iterable[Word]) -> list[str]:
    """Return a message for each exception of which nothing is left to except."""
    unknown = [
        f'ALLOWED has "{text}", which is not in the glossary' for text in ALLOWED.keys() - {w.text for w in words}
    ]
    single = [f"TWICE has {name}, which one module at most defines" for name in TWICE if len(project.types[name]) < 2]
    return sorted(unknown + single)


def main() -> int:
    """Print, and return 1 if the glossary is not kept."""
    words = read_words((ROOT / GLOSSARY).read_text())
    parser = argparse.ArgumentParser(description="Hold the code and the docs to the glossary.")
    parser.add_argument("--where", choices=[word.text for word in words], help="list every place of this word")
    asked = parser.parse_args().where
    project = Project(ROOT)
    print("Words that we do not use: how often they are found, of how often they still may be")
    failures = check_words(project, words, shown=asked) + check_types(project) + check_exceptions(project, words)
    for failure in failures:
        print(f"\n{failure}", file=sys.stderr)
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main())
