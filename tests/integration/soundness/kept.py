"""Writes that do not change a query's result, as users meet them: how many of them leave the read set untouched.

The queries are written as an application writes them, and know nothing of how they are analysed. Each is asked, a write
is done, it is asked again: only where it answers the same is the write a case, and the case is *kept* if the index does
not find the query by the write. Everything is drawn from a seed.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any, Final

from sqlalchemy import (
    Boolean,
    Column,
    Connection,
    Date,
    Engine,
    Integer,
    MetaData,
    Numeric,
    String,
    Table,
    and_,
    case,
    cast,
    func,
    not_,
    or_,
    select,
    tuple_,
)

from reactive_rpc.backends.postgresql.oracle import PostgreSQLOracle
from reactive_rpc.backends.sqlite.oracle import SQLiteOracle
from reactive_rpc.dependencies.change import Change
from reactive_rpc.dependencies.codec import decode_changes, decode_read_set, encode_changes, encode_read_set
from reactive_rpc.dependencies.index import Index
from reactive_rpc.dependencies.schema import Schema
from reactive_rpc.statements.recorder import RECORDER_OPTION, Recorder, install

from .differential import image_value

__all__ = ["SHAPES", "TICKETS_METADATA", "Tally", "tally"]

TICKETS_METADATA: Final = MetaData()
TICKETS: Final = Table(
    "tickets",
    TICKETS_METADATA,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("parent_id", Integer),
    Column("team", String(20), nullable=False),
    Column("status", String(20), nullable=False),
    Column("title", String(200), nullable=False),
    Column("note", String(200)),
    Column("priority", Integer, nullable=False),
    Column("points", Integer),
    Column("price", Numeric(10, 2)),
    Column("due", Date),
    Column("open", Boolean, nullable=False),
    Column("views", Integer, nullable=False),
)
T: Final = TICKETS.c
ROWS, QUERIES, WRITES = 14, 3, 16
TEAMS: Final = ("red", "blue", "gold")
STATUSES: Final = ("open", "done", "waiting", "closed")
TITLES: Final = ("Bug in login", "Login slow", "Add export", "export fails", "Typo", "Crash on save", "Big bug")
NOTES: Final = (None, "", "later", "See Login", "asap")
START: Final = date(2026, 1, 1)


def _row(rng: random.Random) -> dict[str, Any]:
    return {
        "parent_id": rng.choice([None, 1, 2, 3, 4]),
        "team": rng.choice(TEAMS),
        "status": rng.choice(STATUSES),
        "title": rng.choice(TITLES),
        "note": rng.choice(NOTES),
        "priority": rng.randint(1, 9),
        "points": rng.choice([None, 1, 2, 3, 5, 8]),
        "price": rng.choice([None, 5, 10, 99]),
        "due": rng.choice([None, *(START + timedelta(days=days) for days in (0, 10, 40, 90))]),
        "open": rng.random() < 0.6,
        "views": rng.randrange(100),
    }


def _shown(rng: random.Random, where: Any) -> Any:
    """Show what a page shows of the tickets of a condition."""
    shape = rng.randrange(4)
    if shape == 0:
        return select(func.count()).select_from(TICKETS).where(where)
    if shape == 1:
        return select(T.id, T.title).where(where).order_by(T.id)
    if shape == 2:
        return select(T.team, func.count()).where(where).group_by(T.team)
    return select(T.id, T.title, T.status, T.team).where(where)


def _columns(rng: random.Random) -> Any:
    return rng.choice([T.status == rng.choice(STATUSES), T.priority >= rng.randint(2, 8), T.team == rng.choice(TEAMS)])


def _among(rng: random.Random) -> Any:
    return rng.choice([T.status.in_(rng.sample(STATUSES, 2)), T.priority.in_(rng.sample(range(1, 10), 3))])


def _unequal(rng: random.Random) -> Any:
    return rng.choice([T.status != rng.choice(STATUSES), T.team != rng.choice(TEAMS), T.points != rng.choice([1, 5])])


def _not_in(rng: random.Random) -> Any:
    return rng.choice([T.status.not_in(rng.sample(STATUSES, 2)), ~T.priority.in_(rng.sample(range(1, 10), 4))])


def _between(rng: random.Random) -> Any:
    low = rng.randint(1, 6)
    found = T.priority.between(low, low + 2)
    return rng.choice([found, ~found, T.due.between(START, START + timedelta(days=rng.choice([15, 60])))])


def _distinct(rng: random.Random) -> Any:
    value = rng.choice(["later", "asap", None])
    return rng.choice([T.note.is_distinct_from(value), T.note.is_not_distinct_from(value)])


def _null(rng: random.Random) -> Any:
    return rng.choice([T.note.is_(None), T.due.is_not(None), T.points.is_(None), T.parent_id.is_not(None)])


def _like(rng: random.Random) -> Any:
    word = rng.choice(["Bug", "Login", "export", "Big%", "Typo"])
    shapes = [
        T.title.like(f"%{word}%"),
        T.title.not_like(f"{word}%"),
        T.title.startswith(word),
        T.title.contains(word),
        T.title.endswith(word),
        T.note.contains("Login", autoescape=True),
        ~T.title.contains(word),
    ]
    return rng.choice(shapes)


def _ilike(rng: random.Random) -> Any:
    word = rng.choice(["bug", "LOGIN", "exp", "save"])
    return rng.choice([T.title.ilike(f"%{word}%"), T.title.icontains(word), T.title.not_ilike(f"{word}%")])


def _or(rng: random.Random) -> Any:
    first, second = _columns(rng), rng.choice([_unequal, _null, _like, _between])(rng)
    return rng.choice([or_(first, second), not_(and_(first, second)), and_(not_(first), second), ~or_(first, second)])


def _either_null(rng: random.Random) -> Any:
    return rng.choice([or_(T.due.is_(None), T.due > START), or_(T.points.is_(None), T.points >= rng.choice([2, 5]))])


def _coalesce(rng: random.Random) -> Any:
    return rng.choice([func.coalesce(T.note, "") == "", func.coalesce(T.points, 0) > rng.choice([0, 3])])


def _folded(rng: random.Random) -> Any:
    word = rng.choice(["typo", "add export", "big bug"])
    return rng.choice(
        [func.lower(T.title) == word, func.upper(T.team) == "GOLD", func.lower(T.title).like(f"{word[:3]}%")]
    )


def _cast(rng: random.Random) -> Any:
    return rng.choice([cast(T.priority, String) == str(rng.randint(1, 9)), cast(T.priority, String).like("1%")])


def _case(rng: random.Random) -> Any:
    level = case((T.priority > 6, "high"), (T.priority > 3, "middle"), else_="low")
    return level == rng.choice(["high", "middle", "low"])


def _computed(rng: random.Random) -> Any:
    shapes = [
        T.priority + 1 > rng.randint(3, 8),
        T.priority * 2 == 8,
        T.priority % 2 == 0,
        T.views - T.priority > 40,
        func.length(T.title) > 8,
        T.title + "!" == "Typo!",
    ]
    return rng.choice(shapes)


def _compared(_rng: random.Random) -> Any:
    return _rng.choice([T.views > T.priority, T.points == T.priority, T.title != T.note])


def _rows(rng: random.Random) -> Any:
    after = (rng.randint(2, 7), rng.randrange(ROWS))
    return rng.choice([tuple_(T.priority, T.id) > after, tuple_(T.priority, T.id) <= after])


def _boolean(_rng: random.Random) -> Any:
    return _rng.choice([T.open, ~T.open, T.open.is_(True), func.coalesce(T.open, False)])


def _combined(rng: random.Random) -> Any:
    parts = rng.sample([_columns, _unequal, _null, _like, _among, _boolean, _coalesce, _between], 3)
    return and_(*(part(rng) for part in parts))


def _pairs(rng: random.Random) -> Any:
    """Join the table with itself: two occurrences, each with conditions of its own."""
    child, parent = TICKETS.alias("child"), TICKETS.alias("parent")
    joined = child.join(parent, child.c.parent_id == parent.c.id, isouter=rng.random() < 0.3)
    shown = rng.choice([select(child.c.id, parent.c.title), select(child.c.title, parent.c.id)])
    return shown.select_from(joined).where(child.c.status != "done", parent.c.priority > rng.randint(1, 7))


def _aggregated(rng: random.Random) -> Any:
    """Show figures, as a dashboard does: each of the rows of a condition of its own."""
    is_open, is_late = T.status == rng.choice(STATUSES), T.priority > rng.randint(4, 8)
    shapes = [
        func.count().filter(is_open),
        func.sum(T.points).filter(is_late),
        func.sum(case((is_open, T.points), else_=0)),
        func.count(case((is_late, 1))),
        func.count(T.due),
        func.count(T.note.distinct()),
        func.max(T.points),
        func.avg(case((is_late, T.views))),
        func.coalesce(func.sum(case((is_open, 1), (is_late, 2))), 0),
    ]
    shown = rng.sample(shapes, rng.choice([1, 2, 3]))
    where = rng.choice([[], [T.team == rng.choice(TEAMS)], [T.title.contains("Bug")]])
    if rng.random() < 0.3:
        return select(T.team, *shown).where(*where).group_by(T.team)
    return select(*shown).select_from(TICKETS).where(*where)


def _page(rng: random.Random) -> Any:
    limited = select(T.id, T.title).where(T.status == rng.choice(STATUSES), T.priority > 2)
    return limited.order_by(T.priority.desc(), T.id).limit(3)


def _newest(rng: random.Random) -> Any:
    """Show a page whose order can be seen, of all tickets or from a place on."""
    keys = rng.choice([(T.due.desc(),), (T.priority, T.points), (T.points.desc().nulls_last(),), ()])
    shown = select(T.id, T.title, T.due, T.priority, T.points).order_by(*keys, T.id.desc()).limit(rng.choice([3, 5]))
    place = rng.choice([None, tuple_(T.priority, T.id) > (3, 5), T.status != "done"])
    return shown.offset(rng.choice([None, 2])) if place is None else shown.where(place)


SHAPES: Final[dict[str, Callable[[random.Random], Any]]] = {
    "plain conditions": _columns,
    "IN": _among,
    "<>": _unequal,
    "NOT IN": _not_in,
    "BETWEEN": _between,
    "IS DISTINCT": _distinct,
    "IS NULL": _null,
    "LIKE": _like,
    "ILIKE": _ilike,
    "OR, NOT": _or,
    "NULL or more": _either_null,
    "coalesce": _coalesce,
    "lower, upper": _folded,
    "CAST": _cast,
    "CASE": _case,
    "computed": _computed,
    "two columns": _compared,
    "row values": _rows,
    "truth values": _boolean,
    "several": _combined,
    "aggregates": _aggregated,
    "self join": _pairs,
    "LIMIT": _page,
    "order shown": _newest,
}
WHOLE: Final = frozenset({"aggregates", "self join", "LIMIT", "order shown"})
"""Shapes that are statements by themselves."""


def _write(rng: random.Random) -> Any:
    shape = rng.randrange(10)
    identity = rng.randrange(ROWS)
    if shape == 0:
        return TICKETS.insert().values(id=ROWS + rng.randrange(100), **_row(rng))
    if shape == 1:
        return TICKETS.delete().where(T.id == identity)
    if shape == 2:
        return TICKETS.update().where(T.id == identity).values(priority=T.priority + 1)
    if shape == 3:
        return TICKETS.update().where(T.id == identity).values(views=T.views + 1)
    if shape == 4:
        changed = rng.sample(sorted(_row(rng)), rng.choice([1, 3]))
    else:
        changed = [rng.choice(["status", "title", "note", "priority", "points", "due", "open", "team", "parent_id"])]
    row = _row(rng)
    return TICKETS.update().where(T.id == identity).values({name: row[name] for name in changed})


@dataclass(frozen=True)
class _Tried:
    """A write: whether the query still answers the same, whether the write touches its read set, and how to see it."""

    is_same: bool
    is_touched: bool
    report: str


@dataclass
class Tally:
    """What was counted, by shape.

    Attributes:
        cases: writes that changed no result.
        kept: those of them that left the read set untouched.
        changed: writes that changed the result.
        stale: those of them that left the read set untouched.
    """

    cases: Counter[str] = field(default_factory=Counter)
    kept: Counter[str] = field(default_factory=Counter)
    changed: Counter[str] = field(default_factory=Counter)
    stale: list[str] = field(default_factory=list)

    def count(self, name: str, tried: Iterator[_Tried]) -> None:
        """Take in what writes did to a query of a shape."""
        for each in tried:
            (self.cases if each.is_same else self.changed)[name] += 1
            self.kept[name] += each.is_same and not each.is_touched
            if not (each.is_same or each.is_touched):
                self.stale.append(f"{name}: {each.report}")

    @property
    def share(self) -> float:
        """The share of cases that are kept."""
        return self.kept.total() / self.cases.total()

    def table(self) -> str:
        """Return the shapes in a table, the one that loses most first."""
        names = sorted(self.cases, key=lambda name: self.kept[name] - self.cases[name])
        return "\n".join(f"| {name} | {self.kept[name]} / {self.cases[name]} |" for name in names)


def tally(engine: Engine, schema: Schema, *, seed: int, rounds: int) -> Tally:
    """Draw so many tables of every shape, and count."""
    install(engine)
    found = Tally()
    for number in range(rounds):
        for name in SHAPES:
            rng = random.Random(f"{seed}:{number}:{name}")
            with engine.connect() as connection, connection.begin() as transaction:
                connection.execute(TICKETS.insert(), [{"id": identity, **_row(rng)} for identity in range(ROWS)])
                for _ in range(QUERIES):
                    query = SHAPES[name](rng) if name in WHOLE else _shown(rng, SHAPES[name](rng))
                    found.count(name, _tried(connection, query, schema, rng))
                transaction.rollback()
    return found


def _tried(connection: Connection, query: Any, schema: Schema, rng: random.Random) -> Iterator[_Tried]:
    """Ask a query, and try writes, each of which is undone."""
    recorder = Recorder(schema, SQLiteOracle() if connection.dialect.name == "sqlite" else PostgreSQLOracle())
    connection.execution_options(**{RECORDER_OPTION: recorder})
    before = _answer(connection, query)
    connection.execution_options(**{RECORDER_OPTION: None})
    read_set = recorder.read_set()
    assert read_set.opaque is None
    index: Index[str] = Index()
    # As they are when they have gone through Redis.
    index.add("query", decode_read_set(encode_read_set(read_set)))
    for _ in range(WRITES):
        write = _write(rng)
        with connection.begin_nested() as savepoint:
            rows = _rows_of(connection)
            connection.execute(write)
            changes = tuple(_changes(rows, _rows_of(connection), schema))
            is_same = _answer(connection, query) == before
            savepoint.rollback()
        if changes:
            is_touched = any(index.match(change) for change in decode_changes(encode_changes(changes)))
            yield _Tried(is_same, is_touched, f"{query} and then {write}: {changes}")


def _answer(connection: Connection, query: Any) -> list[Any]:
    rows = connection.execute(query).all()
    return list(rows) if query._limit_clause is not None else sorted(rows, key=repr)


def _rows_of(connection: Connection) -> dict[int, dict[str, Any]]:
    return {row.id: dict(row._mapping) for row in connection.execute(select(TICKETS))}


def _changes(before: dict[int, dict[str, Any]], after: dict[int, dict[str, Any]], schema: Schema) -> Iterator[Change]:
    for identity in before.keys() | after.keys():
        old, new = before.get(identity), after.get(identity)
        if old == new:
            continue
        images = [None if row is None else _image(row, schema) for row in (old, new)]
        operation: Any = "insert" if old is None else "delete" if new is None else "update"
        changed = frozenset(n for n in new if old[n] != new[n]) if old and new else None
        yield Change(table="tickets", operation=operation, before=images[0], after=images[1], changed=changed)


def _image(row: dict[str, Any], schema: Schema) -> dict[str, Any]:
    return {name: image_value(value) for name, value in row.items() if schema.kind("tickets", name) is not None}
