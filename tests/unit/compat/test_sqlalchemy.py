"""SQLAlchemy's private names still mean what `compat/sqlalchemy.py` says."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from typing import Any

import pytest
from sqlalchemy import (
    Column,
    Connection,
    Enum,
    Integer,
    MetaData,
    QueuePool,
    String,
    Table,
    Text,
    bindparam,
    create_engine,
    delete,
    func,
    insert,
    lambda_stmt,
    literal,
    select,
    type_coerce,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.dialects.sqlite import insert as upsert
from sqlalchemy.engine.default import DefaultExecutionContext
from sqlalchemy.event import listens_for
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import DeclarativeBase, Mapped, aliased, mapped_column
from sqlalchemy.sql import visitors
from sqlalchemy.sql.elements import ColumnElement
from sqlalchemy.sql.lambdas import LambdaElement
from sqlalchemy.types import TypeDecorator
from sqlalchemy.util import greenlet_spawn

from reactive_rpc.compat import sqlalchemy as compat

TEAM = Table("team", MetaData(), Column("id", Integer, primary_key=True), Column("name", String))


class Base(DeclarativeBase):
    """Of this module."""


class Agent(Base):
    """A mapped class with a column beside its attributes."""

    __tablename__ = "agent"
    id: Mapped[int] = mapped_column(primary_key=True)


class Shouted(TypeDecorator[str]):
    """Puts SQL around a value, in and out."""

    impl = String
    cache_ok = True

    def bind_expression(self, bindparam: Any) -> Any:
        return func.upper(bindparam)

    def column_expression(self, column: Any) -> Any:
        return func.lower(column)


class Own(ColumnElement[int]):
    """A construct that an application renders itself."""

    inherit_cache = True


@compiles(Own)
def _render(element: Own, compiler: Any, **kwargs: Any) -> str:
    return "1"


def test_criteria_are_found() -> None:
    """Of a SELECT, an UPDATE and a DELETE, in order."""
    for statement in (select(TEAM), update(TEAM), delete(TEAM)):
        one, two = TEAM.c.id == 1, TEAM.c.name == "a"
        assert compat.where_criteria(statement) == ()
        assert list(compat.where_criteria(statement.where(one).where(two))) == [one, two]


def test_locks_and_hints_are_seen() -> None:
    """FOR UPDATE, and both kinds of hints."""
    plain = select(TEAM)
    assert not compat.is_for_update(plain)
    assert compat.is_for_update(plain.with_for_update())
    assert not compat.has_hints(plain)
    assert compat.has_hints(plain.with_hint(TEAM, "x"))
    assert compat.has_hints(plain.with_statement_hint("x"))


@pytest.mark.parametrize(
    "statement",
    [
        select(TEAM).distinct(),
        select(TEAM).group_by(TEAM.c.id),
        select(TEAM).having(func.count() > 1),
        select(TEAM).limit(1),
        select(TEAM).offset(1),
    ],
)
def test_a_select_that_leaves_rows_out_is_not_plain(statement: Any) -> None:
    """Each clause alone is seen."""
    assert compat.is_plain_select(select(TEAM).where(TEAM.c.id == 1))
    assert not compat.is_plain_select(statement)


def test_an_order_and_a_limit_are_found() -> None:
    """Each thing ordered by, without the mark of a label; FETCH is no LIMIT, as it may count ties."""
    ordered = select(TEAM).order_by(TEAM.c.name.desc(), TEAM.c.id).limit(3)
    name, number = map(compat.unlabelled_order, compat.order_by_clauses(ordered))
    assert str(name) == "team.name DESC"
    assert compat.unlabelled_order(name.element) is TEAM.c.name
    assert number is TEAM.c.id
    assert compat.limit_of(ordered).value == 3
    assert compat.limit_of(select(TEAM)) is None
    assert compat.limit_of(select(TEAM).fetch(3, with_ties=True)) is None
    assert compat.yields_each_row(ordered)


@pytest.mark.parametrize("options", [{}, {"stream_results": True}, {"yield_per": 1}])
def test_rows_are_taken_and_handed_on(options: dict[str, Any]) -> None:
    """The result has what was taken, unless its rows come one after the other."""
    engine = create_engine("sqlite://")
    taken: list[Any] = []

    @listens_for(engine, "after_cursor_execute")
    def take(_connection: Any, _cursor: Any, _statement: Any, _parameters: Any, context: Any, _many: Any) -> None:
        taken.append(compat.take_rows(context))

    one_row = select(literal(1), literal("a"))
    with engine.connect() as connection:
        assert connection.execute(one_row, execution_options=options).all() == [(1, "a")]
    engine.dispose()
    assert taken == [None if options else [(1, "a")]]


NAMES = select(TEAM.c.name).where(TEAM.c.id == 1)


@pytest.mark.parametrize("statement", [NAMES, NAMES.limit(1), NAMES.group_by(TEAM.c.name).having(func.count() > 1)])
def test_rows_that_come_of_rows(statement: Any) -> None:
    """Columns of a row, also of a group or under a LIMIT, are those of a row that passes WHERE."""
    assert compat.rows_come_from_rows(statement)


@pytest.mark.parametrize(
    "statement",
    [
        select(func.count()).select_from(TEAM),
        select(TEAM.c.name, func.max(TEAM.c.id)),
        NAMES.having(func.count() > 1),
        NAMES.order_by(func.count()),
        NAMES.group_by(func.rollup(TEAM.c.name)),
        NAMES.group_by(func.grouping_sets(TEAM.c.name)),
    ],
)
def test_rows_that_come_of_none(statement: Any) -> None:
    """An aggregate of all rows, and the total of all groups, are there without any row."""
    assert not compat.rows_come_from_rows(statement)


def test_what_stands_beside_a_write_is_seen() -> None:
    """CTEs, prefixes, several rows of values, ON CONFLICT, INSERT FROM SELECT."""
    cte = select(TEAM.c.id).cte("x")
    assert compat.has_columns_only(insert(TEAM))
    assert not compat.has_columns_only(insert(TEAM).prefix_with("OR REPLACE"))
    assert not compat.has_columns_only(update(TEAM).add_cte(cte))
    assert compat.is_one_row_insert(insert(TEAM).values(id=1))
    assert not compat.is_one_row_insert(insert(TEAM).values([{"id": 1}, {"id": 2}]))
    assert not compat.is_one_row_insert(upsert(TEAM).values(id=1).on_conflict_do_nothing())
    assert not compat.is_one_row_insert(insert(TEAM).from_select(["id"], select(TEAM.c.id)))


def test_parameters_of_values_and_set_are_told_from_others() -> None:
    """SET makes parameters for columns; WHERE makes others."""
    compiled: Any = update(TEAM).values(name="b").where(TEAM.c.id == 1).compile()
    made = {name: compat.is_of_crud(bind) for name, bind in compiled.binds.items() if name in ("name", "id_1")}
    assert made == {"name": True, "id_1": False}


def test_lambdas_are_resolved() -> None:
    """A criterion that a lambda stands for is an expression again."""
    wanted = 5
    statement = lambda_stmt(lambda: select(TEAM)).add_criteria(lambda s: s.where(TEAM.c.id == wanted))
    assert str(compat.resolved_lambda(statement).whereclause) == "team.id = :wanted_1"
    criterion = select(TEAM).where(lambda: TEAM.c.id == wanted)
    (found,) = compat.where_criteria(criterion)
    assert isinstance(found, LambdaElement)
    assert str(compat.resolved_lambda(found)) == "team.id = :wanted_1"


def test_constructs_of_an_application_are_seen() -> None:
    """`@compiles` leaves a mark on the class."""
    assert compat.is_custom_construct(Own())
    assert not compat.is_custom_construct(TEAM.c.id)


def test_what_the_orm_notes_is_found() -> None:
    """Its entity on an element, what it adapts by name, which columns it maps."""
    other = aliased(Agent, select(Agent).subquery(), adapt_on_names=True)
    entities = [
        {compat.annotations_of(element).get("parententity") for element in visitors.iterate(select(entity))} - {None}
        for entity in (Agent, other)
    ]
    assert entities[0] == {Agent.__mapper__}
    assert [compat.adapts_by_name(entity) for entity in entities[1] if entity is not Agent.__mapper__] == [True]
    assert compat.maps_column(Agent.__mapper__, Agent.__mapper__.columns.id)
    assert not compat.maps_column(Agent.__mapper__, TEAM.c.id)


def test_expansions_and_processors_of_an_execution_are_found() -> None:
    """An IN list is expanded under other names; what `note_expansion` returns stands in its place."""

    class Noted(dict[str, list[str]]):
        literals: Any = None

    class Hooked(compat.CompilerHooks):
        bodies: list[Any] = []  # noqa: RUF012

        def note_select_body(self, select: Any, froms: Any) -> None:
            self.bodies.append((select, list(froms)))

        def note_expansion(self, expansion: Any, literals: Any) -> Any:
            noted = Noted(expansion)
            noted.literals = dict(literals)
            return noted

    engine = create_engine("sqlite://")
    compiler = engine.dialect.statement_compiler
    engine.dialect.statement_compiler = type("Both", (Hooked, compiler), {})
    seen: list[Any] = []

    @listens_for(engine, "before_cursor_execute")
    def execute(_c: Any, _k: Any, _s: Any, _p: Any, context: DefaultExecutionContext, _m: Any) -> None:
        seen.append(context)

    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE team (id INTEGER, name TEXT)")
        seen.clear()
        literal: Any = bindparam("few", [7], expanding=True, literal_execute=True)
        connection.execute(select(TEAM).where(TEAM.c.id.in_([1, 2]), TEAM.c.id.not_in(literal)))
    (context,) = seen
    expansion = compat.expanded_parameters(context)
    assert isinstance(expansion, Noted)
    assert expansion["id_1"] == ["id_1_1", "id_1_2"]
    assert expansion.literals == {"few": [7]}
    ((noted, froms),) = Hooked.bodies
    assert (noted.selected_columns.keys(), froms) == (["id", "name"], [TEAM])
    of_type = select(TEAM).where(TEAM.c.name == type_coerce("a", Enum("a", "b")))
    compiled: Any = of_type.compile(engine)
    assert list(compat.bind_processors(compiled)) == ["param_1"]


def test_types_say_what_they_put_around_values() -> None:
    """Bind and column expressions, the generic kind, and the dialect's own type without its decorator."""
    dialect: Any = postgresql.dialect()  # type: ignore[no-untyped-call]
    assert compat.has_bind_expression(Shouted(), dialect)
    assert compat.has_column_expression(Shouted(), dialect)
    assert not compat.has_bind_expression(String(), dialect)
    assert not compat.has_column_expression(String(), dialect)
    assert compat.affinity_of(postgresql.VARCHAR()) is String
    assert isinstance(compat.unwrapped_type(Shouted(), dialect), String)
    assert not isinstance(compat.unwrapped_type(Shouted(), dialect), TypeDecorator)
    assert type(compat.declared_type(Shouted(), dialect)) is String
    variant = String().with_variant(Shouted(), "sqlite").with_variant(postgresql.CITEXT(), "postgresql")
    assert type(compat.declared_type(variant, dialect)) is postgresql.CITEXT


def test_a_variant_is_known_by_its_database() -> None:
    """The type of other databases comes without variants, so that it can be a variant itself."""
    text, dialect = Text(), sqlite.dialect()
    type_ = String(7).with_variant(text, "sqlite")
    assert compat.variant_of(type_, dialect) is text
    assert compat.variant_of(text, dialect) is text
    other_dialect = postgresql.dialect()  # type: ignore[no-untyped-call]  # of SQLAlchemy
    joined = Integer().with_variant(compat.variant_of(type_, other_dialect), "postgresql")
    assert joined.compile(dialect=other_dialect) == "VARCHAR(7)"


def test_an_order_and_bounds_are_found() -> None:
    """Of a SELECT that is to be read in pages, which have their own."""
    plain = select(TEAM).where(TEAM.c.id > 1)
    bounded = [plain.order_by(TEAM.c.id), plain.limit(1), plain.offset(1), plain.distinct(), plain.group_by(TEAM.c.id)]
    assert [compat.has_order_or_bounds(each) for each in (plain, *bounded)] == [False] + [True] * 5


def test_an_engine_is_copied_with_its_listeners() -> None:
    """The copy connects and listens as the first does; what is set on it leaves the first alone."""

    class Reading(Connection):
        """Of one engine only."""

    engine = create_engine("sqlite://", poolclass=QueuePool)
    heard: list[str] = []

    @listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        heard.append(type(connection).__name__)

    twin = compat.copy_engine(engine)
    compat.use_connection_class(twin, Reading)
    with twin.connect() as one, twin.connect() as other:
        one.begin()
        other.begin()
    with engine.begin():
        pass
    assert heard == ["Reading", "Reading", "Connection"]
    assert isinstance(twin.pool, QueuePool)
    with ExitStack() as stack:  # more than the pool's size and overflow: nobody waits
        for _ in range(20):
            stack.enter_context(twin.connect())
        assert twin.pool.checkedout() == 20
    twin.dispose()
    engine.dispose()


def test_an_isolation_level_of_the_engine_is_seen() -> None:
    """Given to `create_engine`."""
    assert not compat.has_default_isolation_level(create_engine("sqlite://"))
    assert compat.has_default_isolation_level(create_engine("sqlite://", isolation_level="SERIALIZABLE"))


def test_a_transaction_on_asyncpg_begins_when_it_is_told_to(postgresql_url: str) -> None:
    """Before a statement, once, and as of a statement if it cannot."""

    async def main() -> None:
        engine = create_async_engine(postgresql_url)
        async with engine.connect() as connection:
            sync = connection.sync_connection
            assert sync is not None
            transaction = await connection.begin()
            assert not compat.has_begun(sync)
            await greenlet_spawn(compat.begin_now, sync)
            assert compat.has_begun(sync)
            driver = (await connection.get_raw_connection()).driver_connection
            assert driver is not None
            assert driver.is_in_transaction()
            await transaction.rollback()
            driver.terminate()
            with pytest.raises(DBAPIError) as found:
                await greenlet_spawn(compat.begin_now, sync)
            assert found.value.connection_invalidated
        await engine.dispose()

    asyncio.run(main())
