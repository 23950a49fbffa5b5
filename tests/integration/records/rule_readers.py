"""Every reader of rules over the same rows, and the reference: plain SQL text in sqlite3."""

from __future__ import annotations

import asyncio
import json
import random
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from sqlalchemy import URL, Engine, Select, create_engine, insert, select
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from reactive_rpc.codegen.rules import PythonRules
from reactive_rpc.codegen.typescript.rules import TypeScriptRules
from reactive_rpc.records.rules import Policy, bind
from tests.support.node import run_node
from tests.support.processes import ROOT

from .rule_drawing import USER_ATTRIBUTES, DrawnRule, draw_rule, draw_user
from .rule_models import COLUMNS, Base, Item
from .rule_values import as_json, as_sql, draw_value

__all__ = ["Case", "Databases", "Differences", "World", "all_readers", "differences", "draw_cases", "draw_world"]

RUNTIME = ROOT / "reactive_rpc/typescript/runtime"
TABLES = ("item_group", "item", "part", "tag")
ITEMS, OTHERS = 40, 25
Row = dict[str, Any]
Decided = list[frozenset[int]]
"""Of each case, the ids of the items of which its rule is true."""


@dataclass(frozen=True)
class Case:
    """A rule and a user."""

    drawn: DrawnRule
    policy: Policy
    user: Mapping[str, Any]


@dataclass(frozen=True)
class World:
    """Rows of all tables, by their tables; items and tags are joined by `links`."""

    rows: Mapping[str, Sequence[Row]]
    links: Sequence[tuple[int, int]]

    @cached_property
    def items(self) -> list[Row]:
        """The items with what they are associated with."""
        groups = {row["id"]: row for row in self.rows["item_group"]}
        tags = {row["id"]: row for row in self.rows["tag"]}
        return [
            {
                **item,
                "group": groups.get(item["group_id"]),
                "parts": [part for part in self.rows["part"] if part["item_id"] == item["id"]],
                "tags": [tags[tag] for owner, tag in self.links if owner == item["id"]],
            }
            for item in self.rows["item"]
        ]


def draw_world(rng: random.Random) -> World:
    """Draw rows."""
    counts = {"item_group": OTHERS, "item": ITEMS, "part": ITEMS * 2, "tag": OTHERS}
    rows = {table: [_draw_row(rng, at, null_share=0.25) for at in range(count)] for table, count in counts.items()}
    for item in rows["item"]:
        item["group_id"] = rng.choice([None, *range(OTHERS)])
    for part in rows["part"]:
        part["item_id"] = rng.choice([None, *range(ITEMS)])
    links = {(rng.randrange(ITEMS), rng.randrange(OTHERS)) for _ in range(ITEMS)}
    return World(rows, sorted(links))


def _draw_row(rng: random.Random, at: int, *, null_share: float) -> Row:
    drawn = {
        name: draw_value(rng, kind, stored=True, null_share=null_share, small=name == "int2")
        for name, kind in COLUMNS.items()
    }
    return {"id": at, **drawn}


def draw_cases(rng: random.Random, *, rules: int, users: int) -> list[Case]:
    """Draw rules, each for the same users."""
    whose = [draw_user(rng) for _ in range(users)]
    cases = []
    for _ in range(rules):
        drawn = draw_rule(rng)
        policy = bind(drawn.rule, Item, USER_ATTRIBUTES)
        cases += [Case(drawn, policy, who) for who in whose]
    return cases


def reference(world: World, cases: Sequence[Case]) -> Decided:
    """Return the decisions of plain SQL text."""
    with closing(sqlite3.connect(":memory:")) as connection:
        columns = ", ".join(
            f"{name} {'TEXT' if kind in ('text', 'uuid') else 'INTEGER'}" for name, kind in COLUMNS.items()
        )
        for table in TABLES:
            connection.execute(
                f"CREATE TABLE {table} (id INTEGER PRIMARY KEY, {columns}, group_id INTEGER, item_id INTEGER)"
            )
            for row in world.rows[table]:
                known = {name: as_sql(COLUMNS.get(name, "int"), value) for name, value in row.items()}
                connection.execute(f"INSERT INTO {table} ({', '.join(known)}) VALUES ({', '.join(known.values())})")
        connection.execute("CREATE TABLE item_tag (item_id INTEGER, tag_id INTEGER)")
        connection.executemany("INSERT INTO item_tag VALUES (?, ?)", world.links)
        return [frozenset(id_ for (id_,) in connection.execute(case.drawn.reference(case.user))) for case in cases]


# -- the readers


@dataclass(frozen=True)
class Databases:
    """Engines, by the names of their readers."""

    engines: Mapping[str, Engine]

    @classmethod
    def on(cls, postgresql_url: str | None = None) -> Databases:
        """Return SQLite, and PostgreSQL if there is one, with empty tables."""
        engines = {"SQLite": create_engine("sqlite://")}
        if postgresql_url is not None:
            engines["PostgreSQL"] = create_engine(postgresql_url)
        for engine in engines.values():
            Base.metadata.create_all(engine)
        return cls(engines)

    def fill(self, world: World) -> None:
        """Replace all rows."""
        for engine in self.engines.values():
            with engine.begin() as connection:
                for table in reversed(Base.metadata.sorted_tables):
                    connection.execute(table.delete())
                for table in Base.metadata.sorted_tables:
                    if table.name != "item_tag":
                        connection.execute(insert(table), list(world.rows[table.name]))
                links = [{"item_id": item, "tag_id": tag} for item, tag in world.links]
                connection.execute(insert(Base.metadata.tables["item_tag"]), links)

    def dispose(self) -> None:
        """Close all connections."""
        for engine in self.engines.values():
            engine.dispose()


def by_database(engine: Engine, _: World, cases: Sequence[Case]) -> Decided:
    """Return the decisions of a database, of the residual as its canonical text reads back."""
    with Session(engine) as session:
        return [frozenset(session.scalars(_statement(case))) for case in cases]


def _statement(case: Case) -> Select[Any]:
    return select(Item.id).where(case.policy.read(case.policy.fold(case.user).text).condition())


def by_python(world: World, cases: Sequence[Case]) -> Decided:
    """Return the decisions of residuals in Python."""
    residuals = [case.policy.fold(case.user) for case in cases]
    return [frozenset(item["id"] for item in world.items if residual.check(item)) for residual in residuals]


def by_python_source(world: World, cases: Sequence[Case]) -> Decided:
    """Return the decisions of the source that Python clients get."""
    functions = list(_python_functions(cases))
    items = [_object_of(item) for item in world.items]
    return [
        frozenset(item.id for item in items if function(item, SimpleNamespace(**case.user)))
        for function, case in zip(functions, cases, strict=True)
    ]


def _python_functions(cases: Sequence[Case]) -> Iterator[Callable[..., bool]]:
    rules = PythonRules()
    names = _names(cases)
    bodies = [rules.function(name, policy.shipped()) for policy, name in names.items()]
    module: dict[str, Any] = {}
    exec("\n".join((rules.head(), *bodies)), module)
    return (module[names[case.policy]] for case in cases)


def _names(cases: Sequence[Case]) -> dict[Policy, str]:
    policies = dict.fromkeys(case.policy for case in cases)
    return {policy: f"rule{at}" for at, policy in enumerate(policies)}


def _object_of(row: Row) -> SimpleNamespace:
    def made(value: Any) -> Any:
        if isinstance(value, dict):
            return _object_of(value)
        return [_object_of(each) for each in value] if isinstance(value, list) else value

    return SimpleNamespace(**{name: made(value) for name, value in row.items()})


PROGRAM = """
import { readFileSync } from 'node:fs';
const folder = process.argv.at(-1);
const rules = await import(`${folder}/rules.ts`);
const { rows, cases } = JSON.parse(readFileSync(`${folder}/data.json`, 'utf8'));
const decided = cases.map(([name, user]) => rows.filter((row) => rules[name](row, user)).map((row) => row.id));
console.log(JSON.stringify(decided));
"""


def by_typescript(world: World, cases: Sequence[Case], folder: Path) -> Decided:
    """Return the decisions of the source that TypeScript clients get, in Node."""
    rules, names = TypeScriptRules(), _names(cases)
    bodies = [rules.function(name, policy.shipped()) for policy, name in names.items()]
    (folder / "rules.ts").write_text(rules.head(str(RUNTIME)) + "".join(bodies), encoding="utf-8")
    data = {
        "rows": [_json_of(item) for item in world.items],
        "cases": [(names[case.policy], _json_of_user(case.user)) for case in cases],
    }
    (folder / "data.json").write_text(json.dumps(data), encoding="utf-8")
    return [frozenset(ids) for ids in json.loads(run_node(PROGRAM, str(folder)))]


def _json_of(row: Any) -> Any:
    if isinstance(row, list):
        return [_json_of(each) for each in row]
    if row is None:
        return None
    return {
        name: _json_of(value) if name in ("group", "parts", "tags") else as_json(COLUMNS.get(name, "int"), value)
        for name, value in row.items()
    }


def _json_of_user(who: Mapping[str, Any]) -> dict[str, Any]:
    def spelled(name: str, value: Any) -> Any:
        if not name.endswith("s") or value is None:
            return as_json(name.removesuffix("s"), value)
        return [as_json(name[:-1], item) for item in value]

    return {name: spelled(name, value) for name, value in who.items()}


# -- all of them


@dataclass
class Differences:
    """What the readers decided otherwise than the reference.

    Attributes:
        decisions: how many each reader made.
        true: how many of the reference's were true.
        found: `{reader: cases that it decided otherwise}`.
    """

    decisions: int = 0
    true: int = 0
    found: dict[str, list[Case]] = field(default_factory=dict)

    def __str__(self) -> str:
        lines = [f"{self.decisions} decisions of each reader, {self.true} true"]
        for reader, cases in self.found.items():
            lines += [f"{reader}: {len(cases)} cases", *(_said(case) for case in cases[:3])]
        return "\n".join(lines)


def _said(case: Case) -> str:
    residual = case.policy.fold(case.user).text
    return f"  {case.drawn.reference(case.user)}\n  {residual}\n  {case.policy.shipped()}\n  {dict(case.user)}"


def by_asyncpg(engine: Engine, _: World, cases: Sequence[Case]) -> Decided:
    """Return the decisions of PostgreSQL by the other driver, which casts each parameter to the type it is bound by."""
    return asyncio.run(_by_asyncpg(engine.url.set(drivername="postgresql+asyncpg"), cases))


async def _by_asyncpg(url: URL, cases: Sequence[Case]) -> Decided:
    engine = create_async_engine(url)
    try:
        async with AsyncSession(engine) as session:
            return [frozenset(await session.scalars(_statement(case))) for case in cases]
    finally:
        await engine.dispose()


Reader = Callable[[World, Sequence[Case]], Decided]


def all_readers(databases: Databases, folder: Path) -> dict[str, Reader]:
    """Return every reader, by its name."""
    on_postgresql = {
        f"{name} by asyncpg": partial(by_asyncpg, engine)
        for name, engine in databases.engines.items()
        if engine.dialect.name == "postgresql"
    }
    return {
        **{name: partial(by_database, engine) for name, engine in databases.engines.items()},
        **on_postgresql,
        "Python": by_python,
        "source in Python": by_python_source,
        "source in TypeScript": partial(by_typescript, folder=folder),
    }


def differences(world: World, cases: Sequence[Case], readers: Mapping[str, Reader]) -> Differences:
    """Hold readers against the reference; the databases are filled with the world's rows."""
    expected = reference(world, cases)
    result = Differences(len(cases) * len(world.items), sum(map(len, expected)))
    for name, reader in readers.items():
        decided = zip(cases, expected, reader(world, cases), strict=True)
        wrong = [case for case, one, other in decided if one != other]
        if wrong:
            result.found[name] = wrong
    return result
