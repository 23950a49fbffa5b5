"""What session capture tells, held against what truly changed: a diff of whole tables."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import (
    Computed,
    ForeignKey,
    String,
    TypeDecorator,
    bindparam,
    delete,
    func,
    insert,
    make_url,
    select,
    text,
    update,
)
from sqlalchemy.dialects import postgresql as on_postgresql
from sqlalchemy.dialects import sqlite as on_sqlite
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, aliased, make_transient_to_detached, mapped_column, relationship

from reactive_rpc import Capture
from reactive_rpc.backends.factory import make_backend
from reactive_rpc.backends.postgresql.capture.catalog_tables import catalog_tables_on_postgresql
from reactive_rpc.backends.session.capture import GUARANTEE, SessionCapture
from reactive_rpc.backends.session.database import GenericDatabase
from reactive_rpc.backends.session.log import LocalLog
from reactive_rpc.backends.session.write_notes import WriteNotes
from reactive_rpc.backends.sqlite.capture.catalog_tables import catalog_tables_on_sqlite
from reactive_rpc.changes.catalog_tables import ReadTables
from reactive_rpc.clock import RandomIds
from reactive_rpc.dependencies.change import Change
from reactive_rpc.dependencies.read_set import Constraint, Equals, IsNull
from reactive_rpc.errors import ConflictError, InternalServerError, RPCError
from reactive_rpc.protocol.cursors import Cursor
from reactive_rpc.settings import Settings
from reactive_rpc.statements.database import Handle
from reactive_rpc.statements.recorder import Recorder

# SQLModel would have us use `exec`; these writes are about what a user may do.
pytestmark = [pytest.mark.anyio, pytest.mark.filterwarnings(r"ignore:\s*.*You probably want:DeprecationWarning")]


def ending(use: Callable[[AsyncSession], Awaitable[object]]) -> Handle[None]:
    """Return `use` as a handler that leaves nothing to its end."""

    async def handle(db: AsyncSession) -> Callable[[], None]:
        await use(db)
        return lambda: None

    return handle


BACKENDS = ["sqlite+aiosqlite", "postgresql+asyncpg", "postgresql+psycopg"]


class Base(DeclarativeBase):
    """Tables of this module."""


class Team(Base):
    __tablename__ = "team"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    size: Mapped[int] = mapped_column(default=0)
    members: Mapped[list[Member]] = relationship(passive_deletes=True)


class Member(Base):
    __tablename__ = "member"
    id: Mapped[int] = mapped_column(primary_key=True)
    team_id: Mapped[int | None] = mapped_column(ForeignKey("team.id", ondelete="CASCADE"))
    name: Mapped[str]
    score: Mapped[float] = mapped_column(default=0.0)


class Badge(Base):
    __tablename__ = "badge"
    id: Mapped[int] = mapped_column(primary_key=True)
    member_id: Mapped[int | None] = mapped_column(ForeignKey("member.id", ondelete="SET NULL"))


class Watched(Base):
    """A trigger copies each of its rows to `copied`."""

    __tablename__ = "watched"
    id: Mapped[int] = mapped_column(primary_key=True)


class Copied(Base):
    __tablename__ = "copied"
    id: Mapped[int] = mapped_column(primary_key=True)


class Lowered(TypeDecorator[str]):
    """Text that the database stores in small letters."""

    impl = String
    cache_ok = True

    def bind_expression(self, bindparam: Any) -> Any:
        return func.lower(bindparam)


class Coded(Base):
    __tablename__ = "coded"
    id: Mapped[int] = mapped_column(primary_key=True)
    code: Mapped[str] = mapped_column(Lowered)
    size: Mapped[int] = mapped_column(default=0)
    doubled: Mapped[int] = mapped_column(Computed("size * 2", persisted=True))


TABLES = [table.name for table in Base.metadata.sorted_tables]
ROWS = (
    "INSERT INTO team (id, name, size) VALUES (1, 'red', 1), (2, 'blue', 2)",
    "INSERT INTO member (id, team_id, name, score) VALUES (1, 1, 'ann', 1.5), (2, 1, 'bob', 2), (3, 2, 'cy', 0)",
    "INSERT INTO badge (id, member_id) VALUES (1, 1), (2, 3)",
    "INSERT INTO coded (id, code, size) VALUES (1, 'abc', 2)",
)
TRIGGERS = {
    "sqlite": [
        "CREATE TRIGGER copy AFTER INSERT ON watched BEGIN INSERT INTO copied (id) VALUES (NEW.id); END",
    ],
    "postgresql": [
        "CREATE FUNCTION copy_row() RETURNS trigger LANGUAGE plpgsql"
        " AS 'BEGIN INSERT INTO copied (id) VALUES (NEW.id); RETURN NEW; END'",
        "CREATE TRIGGER copy AFTER INSERT ON watched FOR EACH ROW EXECUTE FUNCTION copy_row()",
        "CREATE FUNCTION sneak() RETURNS int LANGUAGE sql AS 'INSERT INTO badge (id) VALUES (77); SELECT 1'",
    ],
}
Row = Mapping[str, Any]
Snapshot = dict[str, dict[object, Row]]
Write = Callable[[AsyncSession], Awaitable[object]]


@dataclass
class FollowedDatabase:
    """A database whose mutations are followed, and what was told of them."""

    url: str
    capture: SessionCapture
    log: LocalLog
    database: Any
    received: list[Change] = field(default_factory=list)
    connection: psycopg.Connection[Any] | None = None

    @property
    def dialect(self) -> str:
        return make_url(self.url).get_backend_name()

    def execute(self, *statements: str) -> list[Any]:
        """Run statements by a connection of our own; return the rows of the last."""
        url = make_url(self.url)
        if self.dialect == "sqlite":
            with closing(sqlite3.connect(url.database or "")) as file, file:
                return [file.execute(statement).fetchall() for statement in statements][-1]
        if self.connection is None:
            plain = url.set(drivername="postgresql").render_as_string(hide_password=False)
            self.connection = psycopg.connect(plain, autocommit=True)
        results = [self.connection.execute(statement) for statement in statements]
        return results[-1].fetchall() if results[-1].description else []

    def snapshot(self) -> Snapshot:
        """Return `{table: {id: {column: value}}}`."""
        found: Snapshot = {}
        for table in Base.metadata.sorted_tables:
            names = [column.name for column in table.columns]
            rows = self.execute(f'SELECT {", ".join(names)} FROM "{table.name}"')
            found[table.name] = {row[0]: dict(zip(names, row, strict=True)) for row in rows}
        return found

    async def check(self, write: Write) -> list[Change]:
        """Run a mutation, check that every row it truly changed is told of, and return what was told."""
        self.received.clear()
        before = self.snapshot()
        await self.database.write(ending(write))
        await self.log.sync_to_head()
        after = self.snapshot()
        for constraint in self.constraints(before, after):
            if rows_of(before, constraint) != rows_of(after, constraint):
                assert any(constraint.touched_by(change) for change in self.received), (constraint, self.received)
        return list(self.received)

    def constraints(self, *snapshots: Snapshot) -> Iterator[Constraint]:
        """Yield what queries could read: any two columns, where one or two columns have a value of some row."""
        for table in TABLES:
            columns = [column.name for column in Base.metadata.tables[table].columns]
            exact = [column for column in columns if self.log.schema.kind(table, column) is not None]
            rows = [row for snapshot in snapshots for row in snapshot[table].values()]
            found = {
                frozenset((column, row[column]) for column in {a, b}) for row in rows for a in exact for b in exact
            }
            for items in found:
                conditions = {name: IsNull() if value is None else Equals(frozenset({value})) for name, value in items}
                for read in columns:
                    yield Constraint(table, frozenset({*conditions, read}), conditions)

    def reset(self) -> None:
        """Put the rows of the beginning back."""
        self.execute(*(f'DELETE FROM "{name}"' for name in reversed(TABLES)), *ROWS)
        if self.dialect == "postgresql":
            self.execute(*(f"ALTER SEQUENCE {name}_id_seq RESTART WITH 1000" for name in TABLES))


def rows_of(snapshot: Snapshot, constraint: Constraint) -> list[Any]:
    """Return what a query with this constraint would show."""
    rows = snapshot[constraint.table].values()
    kept = [row for row in rows if all(c.admits(row[name]) for name, c in constraint.conditions.items())]
    return sorted((tuple(sorted((name, row[name]) for name in constraint.columns or ())) for row in kept), key=repr)


READERS: dict[str, ReadTables] = {"sqlite": catalog_tables_on_sqlite, "postgresql": catalog_tables_on_postgresql}


@asynccontextmanager
async def opened(url: str, *, generic: bool = False) -> AsyncIterator[FollowedDatabase]:
    settings = Settings(busy_timeout_seconds=0.5)
    source = make_backend(url, settings=settings, ids=RandomIds(), capture=Capture(mode="session"))
    database, capture, log = source.database, source.capture, source.log
    if generic:
        database = GenericDatabase(make_url(url))
        capture = SessionCapture(database, ids=RandomIds(), read_tables=READERS[make_url(url).get_backend_name()])
        log = LocalLog(capture, ids=RandomIds())
    assert isinstance(capture, SessionCapture)
    assert isinstance(log, LocalLog)
    database.create_tables(Base.metadata)
    world = FollowedDatabase(url, capture, log, database)
    world.execute(*TRIGGERS[world.dialect])
    world.reset()
    await log.open()
    log.subscribe(lambda batch: world.received.extend(batch.changes))
    try:
        yield world
    finally:
        await log.aclose()
        await database.aclose()
        if world.connection is not None:
            world.connection.close()


@pytest.fixture(params=BACKENDS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the URL of an empty database, on each driver."""
    driver: str = request.param
    if driver.startswith("sqlite"):
        return f"{driver}:///{tmp_path / 'main.db'}"
    fresh: str = request.getfixturevalue("postgresql_url")
    return make_url(fresh).set(drivername=driver).render_as_string(hide_password=False)


@pytest.fixture
async def world(url: str) -> AsyncIterator[FollowedDatabase]:
    async with opened(url) as found:
        yield found


async def orm_insert(db: AsyncSession) -> None:
    db.add_all([Member(team_id=1, name="dee"), Member(team_id=2, name="eve")])


async def orm_update(db: AsyncSession) -> None:
    (await db.get_one(Member, 1)).name = "anna"


async def orm_move(db: AsyncSession) -> None:
    (await db.get_one(Member, 1)).team_id = 2


async def orm_twice(db: AsyncSession) -> None:
    member = await db.get_one(Member, 1)
    member.team_id = 2
    await db.flush()
    member.score = 9.0


async def orm_new_key(db: AsyncSession) -> None:
    (await db.get_one(Member, 2)).id = 20


async def orm_delete(db: AsyncSession) -> None:
    await db.delete(await db.get_one(Member, 3))


async def orm_delete_parent(db: AsyncSession) -> None:
    await db.delete(await db.get_one(Team, 1))


async def orm_insert_then_update(db: AsyncSession) -> None:
    member = Member(team_id=1, name="new")
    db.add(member)
    await db.flush()
    member.name = "newer"


async def orm_stale_detached(db: AsyncSession) -> None:
    stranger = Member(id=1, team_id=2, name="was never so", score=0.0)
    await db.merge(stranger)
    known = await db.get_one(Member, 2)
    db.expunge(known)
    await db.execute(text("UPDATE member SET team_id = 2 WHERE id = 2"))
    db.add(known)
    known.name = "bobby"


async def core_insert(db: AsyncSession) -> None:
    await db.execute(insert(Member), [{"team_id": 1, "name": "x"}, {"team_id": 2, "name": "y"}])


async def core_insert_one(db: AsyncSession) -> None:
    await db.execute(insert(Team).values(id=9, name="green", size=3))


async def core_insert_select(db: AsyncSession) -> None:
    await db.execute(insert(Team).from_select(["id", "name", "size"], select(Team.id + 50, Team.name, Team.size)))


async def core_update(db: AsyncSession) -> None:
    await db.execute(update(Member).where(Member.team_id == 1, Member.score > 1).values(name="same"))


async def core_update_expression(db: AsyncSession) -> None:
    await db.execute(update(Team).values(size=Team.size + 1))


async def core_update_of_the_condition(db: AsyncSession) -> None:
    await db.execute(update(Member).where(Member.team_id == 1).values(team_id=2))


async def core_update_many(db: AsyncSession) -> None:
    statement = update(Member.__table__).where(Member.id == bindparam("who")).values(name=bindparam("called"))  # type: ignore[arg-type]  # a table
    await (await db.connection()).execute(statement, [{"who": 1, "called": "p"}, {"who": 2, "called": "q"}])


async def core_then_orm(db: AsyncSession) -> None:
    member = await db.get_one(Member, 1)
    await (await db.connection()).execute(update(Member).where(Member.id == 1).values(team_id=2))
    member.name = "unaware"


async def core_delete(db: AsyncSession) -> None:
    await db.execute(delete(Member).where(Member.team_id == 1))


async def core_delete_all(db: AsyncSession) -> None:
    await db.execute(delete(Badge))


async def bulk_save(db: AsyncSession) -> None:
    await db.run_sync(lambda session: session.bulk_update_mappings(Member.__mapper__, [{"id": 1, "name": "bulk"}]))


async def upsert(db: AsyncSession) -> None:
    kind: Any = on_sqlite if db.get_bind().dialect.name == "sqlite" else on_postgresql
    statement = kind.insert(Team).values(id=1, name="again", size=7)
    await db.execute(statement.on_conflict_do_update(index_elements=["id"], set_={"name": statement.excluded.name}))


async def textual(db: AsyncSession) -> None:
    await db.execute(text("UPDATE member SET name = :name WHERE id = 2"), {"name": "text"})


async def textual_cte(db: AsyncSession) -> None:
    await db.execute(text("WITH x AS (SELECT 40 AS id) INSERT INTO team (id, name, size) SELECT id, 'cte', 0 FROM x"))


async def driver_sql(db: AsyncSession) -> None:
    await (await db.connection()).exec_driver_sql("DELETE FROM member WHERE id = 3")


async def unreadable(db: AsyncSession) -> None:
    found = await db.execute(text("SELECT 1 FROM team WHERE id IN (1, 2) /* odd */"))
    found.all()
    await db.execute(text("INSERT INTO team (id, name, size) VALUES (60, 'a', 0), (61, 'b', 0)"))


async def triggered(db: AsyncSession) -> None:
    db.add(Watched(id=5))


async def savepoint(db: AsyncSession) -> None:
    member = await db.get_one(Member, 1)
    nested = await db.begin_nested()
    member.team_id = 2
    await db.flush()
    await nested.rollback()
    await db.refresh(member)
    member.name = "after"


async def savepoint_below(db: AsyncSession) -> None:
    """Leave values in the session that were rolled back behind its back."""
    connection = await db.connection()
    member = await db.get_one(Member, 1)
    nested = await connection.begin_nested()
    member.team_id = 2
    await db.flush()
    await nested.rollback()
    member.name = "after"


async def orm_stranger(db: AsyncSession) -> None:
    """Update an instance that another session left behind; its row is of team 1 by now."""
    stranger = Member(id=1, team_id=2, name="ann", score=1.5)
    make_transient_to_detached(stranger)
    db.add(stranger)
    stranger.name = "anna"


async def handler_rollback(db: AsyncSession) -> None:
    db.add(Team(id=30, name="gone"))
    await db.flush()
    await db.rollback()
    db.add(Team(id=31, name="stays"))


async def below(db: AsyncSession) -> None:
    raw = (await (await db.connection()).get_raw_connection()).driver_connection
    assert raw is not None
    (await db.get_one(Member, 1)).name = "seen"
    await db.flush()
    await raw.execute("UPDATE member SET name = 'unseen' WHERE id = 3")
    if hasattr(raw, "fetchval"):
        await raw.execute("UPDATE badge SET member_id = 2")


async def calls_function(db: AsyncSession) -> None:
    if db.get_bind().dialect.name == "postgresql":
        (await db.execute(text("SELECT sneak()"))).all()
    else:
        await db.execute(text("REPLACE INTO team (id, name, size) VALUES (1, 'replaced', 0)"))


async def type_with_sql(db: AsyncSession) -> None:
    await db.execute(insert(Coded).values(id=2, code="ABCD", size=2))
    db.add(Coded(code="ABCDE", size=3))


async def condition_on_type_with_sql(db: AsyncSession) -> None:
    await db.execute(update(Coded).where(Coded.code == "ABC").values(size=8))


async def generated_by_database(db: AsyncSession) -> None:
    table: Any = Coded.__table__
    await (await db.connection()).execute(update(table).where(table.c.doubled == 4).values(size=9))


async def orm_from_statement(db: AsyncSession) -> None:
    """Load under a column's name what is not in the column."""
    shouted = text("SELECT id, upper(name) AS name, size FROM team WHERE id = 1")
    (await db.execute(select(Team).from_statement(shouted))).scalar_one().size = 99


async def orm_from_subquery(db: AsyncSession) -> None:
    shouted = select(Team.id, func.upper(Team.name).label("name"), Team.size).subquery()
    found = await db.execute(select(aliased(Team, shouted, adapt_on_names=True)).where(shouted.c.id == 1))
    found.scalar_one().size = 98


async def orm_merge_unloaded(db: AsyncSession) -> None:
    stranger = Member(id=1, team_id=2, name="ann", score=1.5)
    make_transient_to_detached(stranger)
    (await db.merge(stranger, load=False)).name = "anna"


WRITES: list[Write] = [
    orm_insert, orm_update, orm_move, orm_twice, orm_new_key, orm_delete, orm_delete_parent, orm_insert_then_update,
    orm_stale_detached, core_insert, core_insert_one, core_insert_select, core_update, core_update_expression,
    core_update_of_the_condition, core_update_many, core_then_orm, core_delete, core_delete_all, bulk_save, upsert,
    textual, textual_cte, driver_sql, unreadable, triggered, orm_stranger, savepoint, savepoint_below,
    handler_rollback, below, calls_function, type_with_sql, condition_on_type_with_sql, generated_by_database,
    orm_from_statement, orm_from_subquery, orm_merge_unloaded,
]  # fmt: skip


async def test_every_shape_of_write_is_told_of(url: str) -> None:
    """Whatever a mutation writes, each row that truly changed is led to, by its old values and by its new ones."""
    async with opened(url) as world:
        for write in WRITES:
            world.reset()
            changes = await world.check(write)
            assert changes, write


@pytest.mark.parametrize("url", BACKENDS[:2], indirect=True)
async def test_any_database_is_followed_the_generic_way(url: str) -> None:
    """The class for databases that have none of their own tells of every shape of write, too."""
    async with opened(url, generic=True) as world:
        for write in WRITES:
            world.reset()
            assert await world.check(write), write


@pytest.mark.seeded_bug
@pytest.mark.parametrize("url", BACKENDS[:1], indirect=True)
@pytest.mark.parametrize("bug", ["no cascades", "other rows", "other values", "no count below", "trusts strangers"])
async def test_a_bug_is_found(url: str, bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check above can fail: each of these bugs makes it."""
    if bug == "no cascades":
        monkeypatch.setattr(
            "reactive_rpc.backends.session.capture._with_actions", lambda notes, tables: set(notes.bulk)
        )
    elif bug == "other rows":
        monkeypatch.setattr(WriteNotes, "_matched", lambda *_: {"id": -1})
    elif bug == "no count below":
        monkeypatch.setattr("reactive_rpc.backends.session.capture._find_writes_below", lambda *_: None)
    elif bug == "other values":
        monkeypatch.setattr(WriteNotes, "_set_to", lambda *_: {"team_id": -1})
    else:
        monkeypatch.setattr("reactive_rpc.backends.session.write_notes._is_trusted", lambda *_: True)
    async with opened(url) as world:
        with pytest.raises(AssertionError):  # noqa: PT012  # any of the writes may find it
            for write in WRITES:
                world.reset()
                await world.check(write)


@pytest.mark.parametrize("url", BACKENDS[:2], indirect=True)
async def test_single_rows_are_told_of_where_they_are_known(world: FollowedDatabase) -> None:
    """An insert tells all its columns; an update on SQLite what is loaded as it is stored, elsewhere only its key."""
    world.reset()
    (inserted,) = await world.check(core_insert_one)
    assert (inserted.operation, inserted.before) == ("insert", None)
    assert inserted.after is not None
    assert inserted.after["id"] == 9
    (updated,) = await world.check(orm_update)
    assert updated.changed == frozenset({"name"})
    known = {"id": 1, "team_id": 1, "name": "ann"} if world.dialect == "sqlite" else {"id": 1}
    assert updated.before == known
    generated = await world.check(orm_insert)
    assert [change.operation for change in generated] == ["insert", "insert"]
    assert len({(change.after or {}).get("id") for change in generated} - {None}) == 2


@pytest.mark.parametrize("url", BACKENDS[1:], indirect=True)
async def test_another_search_path_writes_another_table(world: FollowedDatabase) -> None:
    """With SET search_path a name means another table: what PostgreSQL says was written counts, not the name."""
    world.execute("CREATE SCHEMA sales", "CREATE TABLE sales.badge (id int PRIMARY KEY, member_id int)")
    await asyncio.to_thread(world.capture.refresh)

    async def write(db: AsyncSession) -> None:
        await db.execute(text("SET LOCAL search_path TO sales"))
        await db.execute(insert(Badge).values(id=5))

    await world.database.write(ending(write))
    await world.log.sync_to_head()
    assert ("sales.badge", "bulk") in {(change.table, change.operation) for change in world.received}


async def test_what_is_rolled_back_is_not_told(world: FollowedDatabase) -> None:
    """A mutation that fails tells nothing; neither does one whose COMMIT the database refuses."""

    async def conflict(db: AsyncSession) -> None:
        db.add(Team(id=1, name="taken"))

    async def fail(db: AsyncSession) -> None:
        db.add(Team(id=5, name="lost"))
        await db.flush()
        _ = 1 / 0

    with pytest.raises(ConflictError):
        await world.database.write(ending(conflict))
    with pytest.raises(ZeroDivisionError):
        await world.database.write(ending(fail))
    version = world.log.version
    assert await world.log.sync_to_head() == version
    assert not world.received


async def test_a_cancelled_commit_is_told_once_it_has_happened(world: FollowedDatabase) -> None:
    """Whoever is cancelled while it commits leaves a change that is told, and only after it can be read."""

    async def write(db: AsyncSession) -> Callable[[], None]:
        db.add(Team(id=70, name="late"))
        await db.flush()
        await db.commit()

        def end() -> None:
            task.cancel()  # takes effect in the COMMIT, which is awaited next

        return end

    task = asyncio.create_task(world.database.write(write))
    with pytest.raises(asyncio.CancelledError):
        await task
    await world.log.sync_to_head()
    rows = world.execute("SELECT id FROM team WHERE id = 70")
    assert bool(rows) == bool(world.received)


@pytest.mark.parametrize("url", BACKENDS[1:2], indirect=True)
async def test_a_commit_without_an_answer_ends_caching(world: FollowedDatabase) -> None:
    """A connection lost in COMMIT leaves its outcome open: its tables count as not captured from then on."""
    world.execute(
        "CREATE FUNCTION hang_up() RETURNS trigger LANGUAGE plpgsql"
        " AS 'BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END'",
        "CREATE CONSTRAINT TRIGGER hang_up AFTER INSERT ON copied DEFERRABLE INITIALLY DEFERRED"
        " FOR EACH ROW EXECUTE FUNCTION hang_up()",
    )

    async def write(db: AsyncSession) -> None:
        db.add(Copied(id=1))

    with pytest.raises(RPCError):
        await world.database.write(ending(write))
    await world.log.sync_to_head()
    assert {change.table for change in world.received} >= {"copied"}
    assert not world.log.schema.captured("copied")


async def test_a_write_beside_the_transaction_is_refused(world: FollowedDatabase) -> None:
    """A connection of its own would write unseen; reading by one is nobody's harm."""
    if world.dialect == "sqlite":  # which has one connection to write with
        with pytest.raises(InternalServerError, match="use the db that is given"):
            world.database.examine(lambda connection: connection.execute(text("DELETE FROM team")))
        return
    async with world.database._async_writer.connect() as connection:
        await connection.execute(text("SELECT count(*) FROM team"))
        with pytest.raises(InternalServerError, match="use the db that is given"):
            await connection.execute(text("DELETE FROM team"))


async def test_threads_are_followed(world: FollowedDatabase) -> None:
    """A mutation that is no coroutine tells as well."""

    def mutate() -> None:
        with world.database.write_sync() as db:
            db.get_one(Member, 1).name = "sync"

    await asyncio.to_thread(mutate)
    await world.log.sync_to_head()
    assert [(change.table, change.operation) for change in world.received] == [("member", "update")]


async def test_nothing_is_put_into_the_database(url: str) -> None:
    """No table, no trigger, no schema: what stood before stands after, and nothing else."""
    async with opened(url) as world:
        await world.check(orm_insert)
        names = (
            "SELECT name FROM sqlite_schema WHERE name LIKE '%reactive%'"
            if world.dialect == "sqlite"
            else "SELECT nspname FROM pg_namespace WHERE nspname LIKE '%reactive%'"
        )
        assert not world.execute(names)


async def test_the_narrow_guarantee_is_said(url: str, caplog: pytest.LogCaptureFixture) -> None:
    """It stands in `guarantee`, which `doctor` prints, and in a warning at every start."""
    with caplog.at_level(logging.WARNING, logger="reactive_rpc.backends.session.capture"):
        async with opened(url) as world:
            assert world.capture.guarantee == GUARANTEE
    assert "NOT seen" in caplog.text


@pytest.mark.parametrize("url", BACKENDS[:1], indirect=True)
async def test_a_cursor_holds_within_one_start(world: FollowedDatabase) -> None:
    """What came after a version is told from memory; another epoch, or a version to come, is a gap."""
    start = world.log.cursor_at(await world.log.sync_to_head())
    changes = await world.check(core_insert_one)
    assert await world.log.read_after(start) == tuple(changes) == world.log.changes_since(start.version)
    assert await world.log.read_after(Cursor("another", start.version)) is None
    assert await world.log.read_after(Cursor(start.epoch, start.version + 99)) is None


@pytest.mark.parametrize("url", BACKENDS[:2], indirect=True)
async def test_a_generic_query_may_not_write(url: str) -> None:
    """READ ONLY where the database knows it, a guard where it does not: both refuse."""
    async with opened(url, generic=True) as world:

        async def write(db: AsyncSession) -> None:
            await db.execute(text("DELETE FROM team"))

        with pytest.raises(InternalServerError, match="may not write"):
            await world.database.read(Recorder(world.log.schema), ending(write), at_least=5)
        assert len(world.execute("SELECT id FROM team")) == 2


async def test_functions_that_shadow_pure_ones_are_known(postgresql_url: str) -> None:
    """A function of the database's users is not taken for the built-in one of its name."""
    async with opened(postgresql_url) as world:
        assert not world.log.schema.redefines("round")
        world.execute("CREATE FUNCTION round(float8, int) RETURNS int LANGUAGE sql AS 'SELECT 1'")
        assert world.capture.refresh().redefines("round")
