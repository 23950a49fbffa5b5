"""How many cached results one write invalidates, and how many it truly changed: on SQLite, through the real parts.

Each result is computed through SQLAlchemy's ORM under a recorder; each write goes through a session of its own and
comes back from the triggers' outbox through the log. What the index finds is computed again, and so is a sample of the
rest: one that has changed without having been found is an error.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, ForeignKey, create_engine, func, insert, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship, selectinload

from reactive_rpc.backends.sqlite.capture.backend import SQLiteCapture
from reactive_rpc.backends.sqlite.log import SQLiteLog
from reactive_rpc.changes.log import Batch
from reactive_rpc.clock import RandomIds
from reactive_rpc.dependencies.change import Change
from reactive_rpc.dependencies.index import Index
from reactive_rpc.dependencies.read_set import Constraint, Equals, ReadSet
from reactive_rpc.statements.recorder import RECORDER_OPTION, Recorder, install

TEAMS, USERS, POSTS = 40, 800, 4_000
WRITES = 30
SAMPLE = 0.05


class Base(DeclarativeBase):
    """Tables of this benchmark alone."""


class Team(Base):
    """A team."""

    __tablename__ = "team"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


class User(Base):
    """A member of a team."""

    __tablename__ = "users"
    id: Mapped[int] = mapped_column(primary_key=True)
    team_id: Mapped[int] = mapped_column(ForeignKey("team.id"), index=True)
    email: Mapped[str] = mapped_column(unique=True)
    score: Mapped[int]
    active: Mapped[bool]
    posts: Mapped[list[Post]] = relationship()


class Post(Base):
    """What a member wrote."""

    __tablename__ = "post"
    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"), index=True)
    title: Mapped[str]
    body: Mapped[str] = mapped_column(default="")
    likes: Mapped[int] = mapped_column(default=0)


Handler = Callable[[Session, int], Any]
Write = Callable[[Session, random.Random], None]


def _user(session: Session, n: int) -> Any:
    user = session.get_one(User, n + 1)
    return user.id, user.email, user.score, user.team_id


def _posts(session: Session, n: int) -> Any:
    found = session.scalars(select(Post).where(Post.user_id == n + 1).order_by(Post.id))
    return [(post.id, post.title, post.likes) for post in found]


def _profile(session: Session, n: int) -> Any:
    user = session.scalars(select(User).where(User.id == n + 1).options(selectinload(User.posts))).one()
    return user.email, sorted((post.id, post.title) for post in user.posts)


def _count(session: Session, n: int) -> Any:
    return session.scalar(select(func.count()).select_from(Post).where(Post.user_id == n + 1))


def _team(session: Session, n: int) -> Any:
    return _rows(session, select(User.id, User.email).where(User.team_id == n + 1, User.active).order_by(User.email))


def _feed(session: Session, n: int) -> Any:
    feed = select(Post.id, Post.title, Post.likes, User.email).join(User, Post.user_id == User.id)
    return _rows(session, feed.where(User.team_id == n + 1).order_by(Post.id.desc()).limit(10))


def _top(session: Session, n: int) -> Any:
    return _rows(session, select(User.id, User.score).where(User.score > 90 + n).order_by(User.score.desc(), User.id))


def _search(session: Session, n: int) -> Any:
    return _rows(session, select(User.id, User.email).where(User.email.like(f"u{n}%")).order_by(User.id).limit(5))


def _rows(session: Session, statement: Any) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in session.execute(statement)]


HANDLERS: tuple[tuple[Handler, int], ...] = (
    (_user, USERS),
    (_posts, 600),
    (_profile, 400),
    (_count, 400),
    (_team, TEAMS),
    (_feed, TEAMS),
    (_top, 6),
    (_search, 20),
)
"""Each query, and for how many inputs its result is cached."""


def _like(session: Session, rng: random.Random) -> None:
    session.get_one(Post, rng.randrange(POSTS) + 1).likes += 1


def _edit_body(session: Session, rng: random.Random) -> None:
    session.get_one(Post, rng.randrange(POSTS) + 1).body = f"n{rng.random()}"


def _new_post(session: Session, rng: random.Random) -> None:
    session.add(Post(user_id=rng.randrange(USERS) + 1, title="new"))


def _delete_post(session: Session, rng: random.Random) -> None:
    last = select(Post).order_by(Post.id.desc()).offset(rng.randrange(20)).limit(1)
    session.delete(session.scalars(last).one())


def _score(session: Session, rng: random.Random) -> None:
    session.get_one(User, rng.randrange(USERS) + 1).score += 1


def _change_team(session: Session, rng: random.Random) -> None:
    session.get_one(User, rng.randrange(USERS) + 1).team_id = rng.randrange(TEAMS) + 1


def _toggle(session: Session, rng: random.Random) -> None:
    user = session.get_one(User, rng.randrange(USERS) + 1)
    user.active = not user.active


WRITE_KINDS: dict[str, Write] = {
    "like a post": _like,
    "edit a column that no query counts on": _edit_body,
    "new post": _new_post,
    "delete a recent post": _delete_post,
    "a user's score + 1": _score,
    "a user changes team": _change_team,
    "toggle active": _toggle,
}


@dataclass
class Cached:
    """A result, and how it came about."""

    handler: Handler
    argument: int
    result: Any = None
    read_set: ReadSet = field(default_factory=ReadSet)


@dataclass
class Bench:
    """Cached results over one database."""

    engine: Engine
    log: SQLiteLog
    rng: random.Random = field(default_factory=lambda: random.Random(1))
    index: Index[int] = field(default_factory=Index)
    cached: list[Cached] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)

    def compute(self, cached: Cached) -> tuple[Any, ReadSet]:
        """Run the handler in a fresh session."""
        recorder = Recorder(self.log.schema)
        with self.engine.connect() as connection, Session(connection) as session:
            connection.execution_options(**{RECORDER_OPTION: recorder})
            result = cached.handler(session, cached.argument)
        read_set = recorder.read_set()
        if read_set.opaque:
            raise RuntimeError(f"{cached.handler.__name__} cannot be cached: {read_set.opaque}")
        return result, read_set

    def fill(self) -> None:
        """Cache every result."""
        for handler, arguments in HANDLERS:
            for argument in range(arguments):
                cached = Cached(handler, argument)
                cached.result, cached.read_set = self.compute(cached)
                self.index.add(len(self.cached), cached.read_set)
                self.cached.append(cached)

    def write(self, write: Write) -> Counter[str]:
        """Write once; return how many results each way of invalidating would drop, and how many have changed."""
        self.changes.clear()
        with Session(self.engine) as session:
            write(session, self.rng)
            session.commit()
        self.log.sync_to_head_blocking()
        found = {entry for change in self.changes for entry in self.index.match(change)}
        counts = Counter(exact=len(found))
        for entry, cached in enumerate(self.cached):
            counts["equality"] += any(_by_equality(c).touched_by(w) for w in self.changes for c in _of(cached))
            counts["table"] += any(change.table in cached.read_set.tables for change in self.changes)
            if entry in found or self.rng.random() < SAMPLE:
                counts["changed"] += self._renew(entry, is_found=entry in found)
        return counts

    def _renew(self, entry: int, *, is_found: bool) -> bool:
        cached = self.cached[entry]
        result, read_set = self.compute(cached)
        has_changed = bool(result != cached.result)
        if has_changed and not is_found:
            raise RuntimeError(f"{cached.handler.__name__}({cached.argument}) is stale after {self.changes}")
        if is_found:
            self.index.remove(entry)
            self.index.add(entry, read_set)
            cached.result, cached.read_set = result, read_set
        return has_changed


def _of(cached: Cached) -> tuple[Constraint, ...]:
    return cached.read_set.constraints


def _by_equality(constraint: Constraint) -> Constraint:
    """Keep what a cache with tags such as `post.user_id = 7` could tell: any column counts, no ranges, no joins."""
    virtual = {lookup.name for lookup in constraint.lookups}
    conditions = {
        column: condition
        for column, condition in constraint.conditions.items()
        if isinstance(condition, Equals) and column not in virtual
    }
    return Constraint(constraint.table, None, conditions)


def _seed(engine: Engine, rng: random.Random) -> None:
    Base.metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(insert(Team), [{"id": i + 1, "name": f"t{i}"} for i in range(TEAMS)])
        users = [(i, f"u{i}", i % 97, i % 5 != 0) for i in range(USERS)]
        connection.execute(
            insert(User),
            [
                {"id": i + 1, "team_id": i % TEAMS + 1, "email": email, "score": score, "active": active}
                for i, email, score, active in users
            ],
        )
        connection.execute(
            insert(Post),
            [
                {"id": i + 1, "user_id": rng.randrange(USERS) + 1, "title": f"p{i}", "likes": rng.randrange(50)}
                for i in range(POSTS)
            ],
        )


async def measure(folder: Path) -> tuple[int, dict[str, dict[str, float]]]:
    """Return how many results are cached, and `{kind of write: {way: mean results a write}}`."""
    path = folder / "precision.db"
    engine = create_engine(f"sqlite:///{path}")
    _seed(engine, random.Random(2))
    install(engine)
    log = SQLiteLog(SQLiteCapture(path, ids=RandomIds()))
    await log.open()
    bench = Bench(engine, log)

    def apply(batch: Batch) -> None:
        bench.changes.extend(batch.changes)

    log.subscribe(apply)
    log.enrich_with(bench.index.lookups)
    bench.fill()
    means = {}
    for name, write in WRITE_KINDS.items():
        total: Counter[str] = Counter()
        for _ in range(WRITES):
            total.update(bench.write(write))
        means[name] = {way: total[way] / WRITES for way in ("changed", "exact", "equality", "table")}
    await log.aclose()
    engine.dispose()
    return len(bench.cached), means


def run(folder: Path) -> None:
    """Measure and print."""
    entries, means = asyncio.run(measure(folder))
    print(f"Precision: of {entries:,} cached results, how many one write invalidates (mean of {WRITES}):\n")
    print("| write | truly changed | **invalidated** | by equality alone | by table |")
    print("|---|---|---|---|---|")
    for name, found in means.items():
        cells = (
            f"{found['changed']:.1f}",
            f"**{found['exact']:.1f}**",
            f"{found['equality']:.1f}",
            f"{found['table']:,.0f}",
        )
        print(f"| {name} | {' | '.join(cells)} |")
    print()
