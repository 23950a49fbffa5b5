"""Pages between two keys: the same order in cursors and in SQL, and reads as narrow as the page."""

from __future__ import annotations

import base64
import enum
import json
import math
import random
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any, Final

import pytest
from sqlalchemy import (
    CHAR,
    JSON,
    Column,
    DateTime,
    Double,
    Engine,
    Enum,
    LargeBinary,
    MetaData,
    Numeric,
    String,
    create_engine,
    delete,
    func,
    insert,
    text,
)
from sqlalchemy import types as sqltypes
from sqlalchemy.dialects.postgresql import CITEXT
from sqlalchemy.orm import aliased
from sqlmodel import Field, Session, SQLModel, col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from app.models import UTCDateTime
from reactive_rpc import (
    Answered,
    BadRequestError,
    CallInfo,
    DefinitionError,
    Next,
    Page,
    PageCursor,
    PageLimit,
    ReactiveRPC,
    define_reactive_function,
    keyset,
)
from reactive_rpc.pages.key import key_of
from reactive_rpc.testing.postgresql import PostgreSQL
from tests.support.calls import by_path

pytestmark = pytest.mark.anyio


class Mood(enum.Enum):
    """Declared in another order than that of its names."""

    WARM = "w"
    COLD = "c"
    MILD = "m"


class Item(SQLModel, table=True):
    """A row with a column of every kind that orders pages."""

    __tablename__ = "keyset_item"
    model_config = {"ser_json_inf_nan": "strings"}

    id: int = Field(primary_key=True)
    number: int
    score: float = Field(sa_type=Double)
    price: Decimal = Field(sa_type=Numeric(20, 6))
    done: bool
    made: datetime = Field(sa_type=DateTime)
    at: datetime = Field(sa_column=Column(DateTime(timezone=True), nullable=False))
    utc: datetime = Field(sa_type=UTCDateTime)
    day: date
    token: uuid.UUID
    mood: Mood
    plain: Mood = Field(sa_column=Column(Enum(Mood, native_enum=False), nullable=False))
    name: str
    folded: str = Field(sa_column=Column(String().with_variant(String(collation="NOCASE"), "sqlite"), nullable=False))
    note: str | None = None
    secret: str = Field(default="", exclude=True)


class Card(SQLModel, table=True):
    """A row of one of many lists."""

    __tablename__ = "keyset_card"

    id: int = Field(primary_key=True)
    shelf: str = Field(index=True)
    number: int
    name: str = ""


class Pair(SQLModel, table=True):
    """A row that two columns tell apart."""

    __tablename__ = "keyset_pair"

    left: int = Field(primary_key=True)
    right: str = Field(primary_key=True)
    rank: int


class Odd(SQLModel, table=True):
    """Columns that cannot order pages; in no database."""

    metadata = MetaData()

    __tablename__ = "keyset_odd"

    id: int = Field(primary_key=True)
    single: float = Field(sa_column=Column(sqltypes.REAL, nullable=False))
    half: float = Field(sa_column=Column(sqltypes.Float(20), nullable=False))
    padded: str = Field(sa_column=Column(CHAR(5), nullable=False))
    blob: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    data: Any = Field(sa_column=Column(JSON, nullable=False))
    insensitive: str = Field(sa_column=Column(String().with_variant(CITEXT(), "postgresql"), nullable=False))


ORDERS: Final[dict[str, list[Any]]] = {
    "id": [],
    **{
        name: [col(getattr(Item, name))]
        for name in (
            "number", "score", "price", "done", "made", "at", "utc", "day", "token", "mood", "plain", "name", "folded",
        )
    },
    "descending": [col(Item.number).desc()],
    "both descending": [col(Item.at).desc(), col(Item.id).desc()],
    "mixed": [col(Item.number).desc(), col(Item.id)],
    "three": [col(Item.done), col(Item.number).desc(), col(Item.name)],
    "unlike": [col(Item.mood).desc(), col(Item.price).asc(), col(Item.made).desc()],
}  # fmt: skip

RUNS: Counter[str] = Counter()


async def counted(call: CallInfo, next: Next) -> Answered:
    RUNS[call.path] += 1
    return await next()


counting = define_reactive_function.wrap(counted, on="compute")


@counting
async def items(
    db: AsyncSession,
    order: str,
    after: PageCursor = None,
    until: PageCursor = None,
    limit: PageLimit = 3,
) -> Page[Item]:
    """A page of all items in one of the orders."""
    return await keyset(db, select(Item), order_by=ORDERS[order], after=after, until=until, limit=limit)


@counting
def items_sync(db: Session, after: PageCursor = None, limit: PageLimit = 3) -> Page[Item]:
    """The same from a sync handler."""
    return keyset(db, select(Item), order_by=[col(Item.number)], after=after, limit=limit)


@counting
async def on_shelf(
    db: AsyncSession, shelf: str, after: PageCursor = None, until: PageCursor = None, limit: PageLimit = 3
) -> Page[Card]:
    """A page of one shelf by number, its moment and id."""
    found = select(Card).where(Card.shelf == shelf)
    order = [col(Card.number).desc()]
    return await keyset(db, found, order_by=order, after=after, until=until, limit=limit)


@counting
async def on_shelf_mixed(
    db: AsyncSession, shelf: str, after: PageCursor = None, until: PageCursor = None, limit: PageLimit = 3
) -> Page[Card]:
    """The same in an order that no row value has."""
    found = select(Card).where(Card.shelf == shelf)
    order = [col(Card.number).desc(), col(Card.id)]
    return await keyset(db, found, order_by=order, after=after, until=until, limit=limit)


@counting
async def pairs(db: AsyncSession, after: PageCursor = None, limit: PageLimit = 2) -> Page[Pair]:
    return await keyset(db, select(Pair), order_by=[col(Pair.rank).desc()], after=after, limit=limit)


@counting
async def aliases(db: AsyncSession, after: PageCursor = None, limit: PageLimit = 2) -> Page[Pair]:
    other = aliased(Pair)
    return await keyset(db, select(other), order_by=[other.rank], after=after, limit=limit)


@counting
async def unlimited(db: AsyncSession, limit: int) -> Page[Pair]:
    return await keyset(db, select(Pair), order_by=[col(Pair.rank)], limit=limit)


FUNCTIONS: Final = {
    "pages": {each.name: each for each in (items, items_sync, on_shelf, on_shelf_mixed, pairs, aliases, unlimited)}
}


@pytest.fixture(params=["sqlite", "asyncpg", "psycopg"], scope="module")
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, postgresql: PostgreSQL) -> str:
    """Return the URL of an empty database."""
    if request.param == "sqlite":
        return f"sqlite+aiosqlite:///{tmp_path_factory.mktemp('keyset') / 'items.db'}"
    return postgresql.new_database(driver=f"postgresql+{request.param}")


@pytest.fixture(scope="module")
def writer(url: str) -> Iterator[Engine]:
    """Return an engine that knows nothing of us."""
    plain = url.replace("+aiosqlite", "").replace("+asyncpg", "+psycopg")
    engine = create_engine(plain)
    yield engine
    engine.dispose()


@pytest.fixture(scope="module")
async def opened(url: str, anyio_backend: str) -> AsyncIterator[ReactiveRPC]:
    rpc = ReactiveRPC(url, functions=FUNCTIONS, metadata=SQLModel.metadata)
    await rpc.admin.open()
    yield rpc
    await rpc.admin.aclose()


@pytest.fixture
def rpc(opened: ReactiveRPC, writer: Engine) -> ReactiveRPC:
    """Return a server whose tables are empty."""
    with writer.begin() as connection:
        for table in (Item, Card, Pair):
            connection.execute(delete(table))
    return opened


def item(id: int, **values: Any) -> dict[str, Any]:
    """Return the row of an item whose other columns hold something."""
    moment = datetime(2024, 1, 1, 12, tzinfo=UTC)
    return {
        "id": id, "number": id, "score": 0.5, "price": Decimal(1), "done": False,
        "made": moment.replace(tzinfo=None), "at": moment, "utc": moment, "day": moment.date(),
        "token": uuid.UUID(int=id), "mood": Mood.WARM, "plain": Mood.WARM, "name": "n", "folded": "n", **values,
    }  # fmt: skip


def card(id: int, number: int, shelf: str) -> dict[str, Any]:
    """Return the row of a card."""
    return {"id": id, "shelf": shelf, "number": number, "name": ""}


def drawn(seed: int, count: int) -> list[dict[str, Any]]:
    """Return rows with many ties, and with the values at which orders part."""
    draw = random.Random(seed)
    moments = [datetime(2024, 3, 31, 1, 30, tzinfo=UTC) + timedelta(microseconds=n) for n in (0, 1, 999_999, 10**10)]
    moments += [datetime(1, 1, 2, tzinfo=UTC), datetime(9999, 12, 30, tzinfo=UTC)]
    names = ["", "a", "A", "b", "B", "ä", "Z", "z", "10", "9", " a", "a ", "é", "🙂", "x" * 200, "'", '"', "%"]
    return [
        item(
            id,
            number=draw.choice([-(2**31), -1, 0, 1, 2, 2**31 - 1]),
            score=draw.choice([0.1, 0.2, 0.1 + 0.2, 0.3, -1e300, 1e-300, 5e-324, 1.0, -0.0, 0.0, math.inf, -math.inf]),
            price=Decimal(draw.choice(["0", "0.1", "0.100001", "-5", "123456789.123456", "99999999999999.999999"])),
            done=draw.random() < 0.5,
            made=draw.choice(moments).replace(tzinfo=None),
            at=draw.choice(moments).astimezone(timezone(timedelta(hours=draw.choice([0, 5])))),
            utc=draw.choice(moments),
            day=draw.choice([date(2024, 2, 29), date(2024, 3, 1), date(1, 1, 2), date(9999, 12, 30)]),
            token=uuid.UUID(int=draw.choice([0, 9, 10, 2**127, 2**128 - 1]) ^ draw.choice([0, 2**100])),
            mood=draw.choice(list(Mood)),
            plain=draw.choice(list(Mood)),
            name=draw.choice(names),
            folded=draw.choice(names),
        )
        for id in draw.sample(range(1000), count)
    ]


def put(writer: Engine, *rows: dict[str, Any], table: Any = Item) -> None:
    with writer.begin() as connection:
        connection.execute(insert(table), list(rows))


def run(writer: Engine, statement: str) -> None:
    with writer.begin() as connection:
        connection.execute(text(statement))


def ordered_ids(writer: Engine, order: Sequence[Any]) -> list[int]:
    """Return the ids of all items as the database orders them, ties in the last direction."""
    last = str(order[-1]) if order else ""
    tie = col(Item.id).desc() if last.endswith("DESC") else col(Item.id)
    with writer.connect() as connection:
        return list(connection.scalars(select(Item.id).order_by(*order, tie)))


async def walk(call: Callable[..., Any], path: str, **input: Any) -> list[Page[Any]]:
    """Return the pages of a list from its begin to its end."""
    pages = [await call(path, **input)]
    while pages[-1].next is not None:
        pages.append(await call(path, after=pages[-1].next, **input))
    return pages


def ids(page: Page[Any]) -> list[int]:
    return [row.id for row in page.items]


@contextmanager
def computes(path: str, times: int) -> Iterator[None]:
    """Hold that a query is computed so often in the block."""
    before = RUNS[path]
    yield
    assert RUNS[path] - before == times


@pytest.mark.parametrize("order", ORDERS)
async def test_pages_in_every_order(rpc: ReactiveRPC, writer: Engine, order: str) -> None:
    """Page after page shows each row once, as the database orders them; each interval holds what lies in it."""
    put(writer, *drawn(seed=len(order), count=40))
    expected = ordered_ids(writer, ORDERS[order])
    call = by_path(rpc)
    pages = await walk(call, "pages.items", order=order, limit=3)
    assert [id for page in pages for id in ids(page)] == expected
    cursors = [None, *(page.next for page in pages)]
    for after, page in zip(cursors, pages, strict=False):
        if page.next is not None:
            again = await call("pages.items", order=order, limit=3, after=after, until=page.next)
            assert again.model_dump_json() == page.model_dump_json()  # a watch that closes its page has its ETag
    wide = await call("pages.items", order=order, limit=10, after=cursors[1], until=cursors[5])
    assert (ids(wide), wide.next) == (expected[3:15], cursors[5])


async def test_a_deleted_anchor_is_a_place_still(rpc: ReactiveRPC, writer: Engine) -> None:
    """A cursor holds values, and no row: what followed the row goes on following."""
    put(writer, *(item(id) for id in range(10)))
    call = by_path(rpc)
    first = await call("pages.items", order="number", limit=3)
    run(writer, "DELETE FROM keyset_item WHERE id IN (1, 2)")
    assert ids(await call("pages.items", order="number", limit=3, after=first.next)) == [3, 4, 5]
    closed = await call("pages.items", order="number", limit=3, until=first.next)
    assert (ids(closed), closed.next) == ([0], first.next)


async def test_a_page_that_has_grown_is_whole_until_it_is_twice_its_limit(rpc: ReactiveRPC, writer: Engine) -> None:
    """Up to twice the limit lies between two cursors; beyond that the page is cut where its limit ends."""
    put(writer, *(item(id, number=id * 10) for id in range(6)))
    call = by_path(rpc)
    end = (await call("pages.items", order="number", limit=3)).next
    put(writer, *(item(100 + n, number=1 + n) for n in range(3)))
    assert ids(await call("pages.items", order="number", limit=3, until=end)) == [0, 100, 101, 102, 1, 2]
    put(writer, item(200, number=15))
    cut = await call("pages.items", order="number", limit=3, until=end)
    assert ids(cut) == [0, 100, 101]
    rest = await call("pages.items", order="number", limit=3, after=cut.next, until=end)
    assert (ids(rest), rest.next) == ([102, 1, 200, 2], end)


async def test_an_interval_may_be_empty_or_turned_round(rpc: ReactiveRPC, writer: Engine) -> None:
    """A page from a later place to an earlier one has no rows, and is no error."""
    put(writer, *(item(id) for id in range(9)))
    call = by_path(rpc)
    first, second, _ = await walk(call, "pages.items", order="number", limit=3)
    turned = await call("pages.items", order="number", after=second.next, until=first.next)
    assert (turned.items, turned.next) == ([], first.next)
    same = await call("pages.items", order="number", after=first.next, until=first.next)
    assert (same.items, same.next) == ([], first.next)


async def test_a_key_of_several_columns_and_an_alias(rpc: ReactiveRPC, writer: Engine) -> None:
    """The primary key decides ties, in the direction of the last column; an alias is a list of the same rows."""
    rows = [{"left": left, "right": right, "rank": (left + ord(right)) % 2} for left in range(3) for right in "abc"]
    put(writer, *rows, table=Pair)
    call = by_path(rpc)
    found = [(row.rank, row.left, row.right) for page in await walk(call, "pages.pairs") for row in page.items]
    expected = sorted(((row["rank"], row["left"], row["right"]) for row in rows), reverse=True)
    assert found == expected
    others = [(row.rank, row.left, row.right) for page in await walk(call, "pages.aliases") for row in page.items]
    assert others == expected[::-1]


async def test_a_sync_handler(rpc: ReactiveRPC, writer: Engine) -> None:
    """With a sync session the page is returned, and not awaited."""
    put(writer, *(item(id) for id in range(7)))
    pages = await walk(by_path(rpc), "pages.items_sync", limit=3)
    assert [ids(page) for page in pages] == [[0, 1, 2], [3, 4, 5], [6]]


@pytest.mark.parametrize("path", ["pages.on_shelf", "pages.on_shelf_mixed"])
async def test_a_write_beside_a_page_leaves_it_alone(rpc: ReactiveRPC, writer: Engine, path: str) -> None:
    """What lies in the interval counts, ties at its ends included; what lies beside it, and on other shelves, not."""
    put(writer, *(card(id, id // 2 * 10, shelf) for id, shelf in enumerate("a" * 12 + "b" * 4)), table=Card)
    call = by_path(rpc)
    first, second, *_ = await walk(call, path, shelf="a", limit=3)
    page = {"shelf": "a", "limit": 3, "after": first.next, "until": second.next}
    low, high = second.items[-1], first.items[-1]
    await call(path, **page)
    outside = [
        card(500, high.number + 1, "a"),
        card(501, low.number - 1, "a"),
        card(502, low.number, "b"),
    ]
    for row in outside:
        with computes(path, 0):
            put(writer, row, table=Card)
            await call(path, **page)
    for statement in ("UPDATE keyset_card SET name = 'x' WHERE id = {}", "DELETE FROM keyset_card WHERE id = {}"):
        with computes(path, 0):
            run(writer, statement.format(first.items[0].id))
            await call(path, **page)
    with computes(path, 1):  # into the interval
        put(writer, card(600, low.number + 5, "a"), table=Card)
        assert 600 in ids(await call(path, **page))
    with computes(path, 1):  # out of it
        run(writer, "UPDATE keyset_card SET number = 999 WHERE id = 600")
        assert 600 not in ids(await call(path, **page))
    with computes(path, 1):  # its last row
        run(writer, f"UPDATE keyset_card SET name = 'y' WHERE id = {low.id}")
        assert (await call(path, **page)).items[-1].name == "y"
    with computes(path, 0):  # the row just before its first
        run(writer, f"UPDATE keyset_card SET name = 'y' WHERE id = {high.id}")
        await call(path, **page)


async def test_ties_at_the_ends_are_narrow(rpc: ReactiveRPC, writer: Engine) -> None:
    """Rows that tie with an end of the page are told apart by their ids."""
    put(writer, *(card(id, 7, "a") for id in range(0, 100, 10)), table=Card)
    call = by_path(rpc)
    pages = await walk(call, "pages.on_shelf", shelf="a", limit=2)
    page = {"shelf": "a", "limit": 2, "after": pages[1].next, "until": pages[2].next}
    assert ids(await call("pages.on_shelf", **page)) == [50, 40]
    for id, again in ((65, 0), (61, 0), (39, 0), (55, 1), (41, 1)):
        with computes("pages.on_shelf", again):
            put(writer, card(id, 7, "a"), table=Card)
            await call("pages.on_shelf", **page)


async def test_an_index_serves_the_page(rpc: ReactiveRPC, writer: Engine) -> None:
    """Both databases look the interval up in an index on the key, in an order of row values and in a mixed one."""
    with writer.begin() as connection:
        connection.execute(text("CREATE INDEX IF NOT EXISTS by_number ON keyset_item (number DESC, id)"))
        connection.execute(text("CREATE INDEX IF NOT EXISTS by_both ON keyset_item (number, id)"))
    put(writer, *(item(id, number=id % 500) for id in range(3000)))
    on_sqlite = writer.dialect.name == "sqlite"
    if not on_sqlite:
        with writer.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("ANALYZE keyset_item"))
    for order in ([col(Item.number).desc()], [col(Item.number).desc(), col(Item.id)]):
        key = key_of(Item, order, writer.dialect)
        where = (key.beyond([250, 1250]), key.up_to([240, 240]))
        found = select(Item).where(*where).order_by(*(one.order for one in key.columns)).limit(7)
        spelled = found.compile(writer, compile_kwargs={"literal_binds": True})
        with writer.connect() as connection:
            plan = str(connection.exec_driver_sql(f"EXPLAIN {'QUERY PLAN' * on_sqlite} {spelled}").all())
        assert ("USING INDEX by_" if on_sqlite else "Index Scan") in plan
        assert (
            ("number>?" in plan or "(number,id)" in plan)
            if on_sqlite
            else "Index Cond: ((number <" in plan or "Index Cond: ((ROW(number" in plan
        )
        assert "TEMP B-TREE" not in plan


def made(*values: Any, name: str | None = None) -> str:
    """Return a cursor of whatever values, of the order `number` where none is named."""
    key = key_of(Item, ORDERS["number"], create_engine("sqlite://").dialect)
    spelled = json.dumps([key.name if name is None else name, *values]).encode()
    return base64.urlsafe_b64encode(spelled).rstrip(b"=").decode()


HOSTILE: Final[dict[str, str]] = {
    "empty": "",
    "garbage": "garbage",
    "no base64": "%%%%",
    "no ASCII": "ä" * 10,
    "half a character": "\ud800",
    "huge": "A" * 100_000,
    "no JSON": base64.urlsafe_b64encode(b"\xff\xfe").decode(),
    "deep": base64.urlsafe_b64encode(b"[" * 1_400).decode(),
    "NaN": base64.urlsafe_b64encode(b'["x",NaN,1]').decode(),
    "infinite": base64.urlsafe_b64encode(b'["x",1e999,1]').decode(),
    "an object": base64.urlsafe_b64encode(b'{"a":1}').decode(),
    "another list": made(1, 1, name="12345678"),
    "too few": made(1),
    "too many": made(1, 1, 1),
    "a text": made("1", 1),
    "null": made(None, 1),
    "a list": made([1], 1),
    "true": made(True, 1),
    "beyond 64 bits": made(2**63, 1),
    "beyond everything": made(10**1_000, 1),
}


@pytest.mark.parametrize("what", HOSTILE)
@pytest.mark.parametrize("end", ["after", "until"])
async def test_no_cursor_does_harm(rpc: ReactiveRPC, writer: Engine, what: str, end: str) -> None:
    """What is no cursor of the list is refused by the name of the input, and never an error of the server's."""
    put(writer, *(item(id) for id in range(3)))
    with pytest.raises(BadRequestError, match=end) as refused:
        await by_path(rpc)("pages.items", order="number", **{end: HOSTILE[what]})
    assert len(str(refused.value)) < 1_000


@pytest.mark.parametrize("order", list(ORDERS)[1:14])
@pytest.mark.parametrize("end", ["after", "until"])
async def test_values_of_wrong_types(rpc: ReactiveRPC, writer: Engine, order: str, end: str) -> None:
    """A cursor whose values the database could not compare is refused, and every other has the rows that it may."""
    put(writer, *drawn(seed=1, count=12))
    call = by_path(rpc)
    known = set(ordered_ids(writer, []))
    cursor = (await call("pages.items", order=order, limit=3)).next
    name, *values = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    odd: list[Any] = [
        None, True, 0, -1, 2**31, -(2**63), 2**63 - 1, 2**64, 1.5, 1e308, "", "x", "\0", "inf", "nan", "-Infinity",
        "sNaN", "1e999999999", "1e-999999999", "NaN5", "0001-01-01", "9999-12-31T23:59:59.999999-23:59",
        "0001-01-01T00:00:00+23:59", "infinity", "12:00", "2024-02-30", "🙂", [], {}, "{}", "00000000-0000-0000",
        "'; DROP TABLE keyset_item; --", "WARM", "w", "A" * 900,
    ]  # fmt: skip
    for place in range(len(values) if order == "number" else 1):
        for value in odd:
            forged = made(*values[:place], value, *values[place + 1 :], name=name)
            try:
                page = await call("pages.items", order=order, **{end: forged})
            except BadRequestError:
                continue
            assert set(ids(page)) <= known


async def test_another_shelfs_cursor_shows_no_row_of_it(rpc: ReactiveRPC, writer: Engine) -> None:
    """A cursor is a place, and no right: the statement decides which rows there are."""
    put(writer, *(card(id, id, "ab"[id % 2]) for id in range(20)), table=Card)
    call = by_path(rpc)
    theirs = await call("pages.on_shelf", shelf="b", limit=3)
    page = await call("pages.on_shelf", shelf="a", limit=10, after=theirs.next)
    assert {row.shelf for row in page.items} == {"a"}


@pytest.mark.parametrize("limit", [0, -1, 1_001, 2**63])
async def test_a_limit_out_of_bounds(rpc: ReactiveRPC, limit: int) -> None:
    """Whatever a procedure's own type says of its limit, no page has more than a thousand rows asked for."""
    with pytest.raises(BadRequestError, match="limit"):
        await by_path(rpc)("pages.unlimited", limit=limit)


async def test_what_another_program_has_stored(rpc: ReactiveRPC, writer: Engine) -> None:
    """SQLite orders texts as they are spelled, and so do the cursors: two spellings of one moment are two places."""
    put(writer, *(item(id) for id in range(12)))
    if writer.dialect.name == "sqlite":
        spellings = ["2024-01-01 12:00", "2024-01-01 12:00:00", "2024-01-01 12:00:00.000000", "2024-01-01T12:00:00"]
        for id in range(12):
            run(
                writer,
                f"UPDATE keyset_item SET made = '{spellings[id % 4]}', price = {id % 3}.1234567891234 WHERE id = {id}",
            )
    else:
        run(writer, "UPDATE keyset_item SET made = 'infinity' WHERE id < 3") if "+asyncpg" in str(writer.url) else None
    for order in ("made", "price"):
        pages = await walk(by_path(rpc), "pages.items", order=order, limit=2)
        assert [id for page in pages for id in ids(page)] == ordered_ids(writer, ORDERS[order])


REFUSED: Final[dict[str, tuple[Any, list[Any], str]]] = {
    "NULL": (select(Item), [col(Item.note)], "keyset_item.note may be NULL"),
    "hidden": (select(Item), [col(Item.secret)], "keyset_item.secret is hidden"),
    "twice": (select(Item), [col(Item.id), col(Item.id)], "names a column twice"),
    "too many": (select(Item), [getattr(Item, name) for name in list(ORDERS)[1:8]], "order by at most 6"),
    "an expression": (select(Item), [func.lower(Item.name)], r"lower\(keyset_item.name\) is no column of Item"),
    "collated": (select(Item), [col(Item.name).collate("NOCASE")], "is no column of Item"),
    "NULLS": (select(Item), [col(Item.number).desc().nulls_last()], "is no column of Item"),
    "another's": (select(Item), [col(Pair.rank)], "keyset_pair.rank is no column of Item"),
    "an alias's": (select(Item), [aliased(Item).number], "is no column of Item"),
    "single precision": (select(Odd), [col(Odd.single)], "single precision"),
    "20 bits": (select(Odd), [col(Odd.half)], "single precision"),
    "padded": (select(Odd), [col(Odd.padded)], "blanks"),
    "bytes": (select(Odd), [col(Odd.blob)], "LargeBinary"),
    "JSON": (select(Odd), [col(Odd.data)], "JSON"),
    "columns": (select(Item.id, Item.name), [col(Item.number)], "one entity"),
    "a column": (select(Item.id), [col(Item.number)], "one entity"),
    "ordered": (select(Item).order_by(col(Item.id)), [], "leave ORDER BY"),
    "limited": (select(Item).limit(1), [], "LIMIT"),
    "distinct": (select(Item).distinct(), [], "DISTINCT"),
    "grouped": (select(Item).group_by(col(Item.id)), [], "GROUP BY"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_read_in_pages(writer: Engine, what: str) -> None:
    """A column that is not compared as it is ordered, and a statement that is no list, are refused by name."""
    statement, order, message = REFUSED[what]
    with Session(writer) as session, pytest.raises(DefinitionError, match=message):
        keyset(session, statement, order_by=order, limit=3)


def test_a_type_of_postgresql_that_is_no_text(postgresql: PostgreSQL) -> None:
    """A citext meets a text without regard to its own order."""
    with pytest.raises(DefinitionError, match="CITEXT"):
        key_of(Odd, [col(Odd.insensitive)], create_engine("postgresql+psycopg://").dialect)


async def test_a_value_too_long_for_a_cursor(rpc: ReactiveRPC, writer: Engine) -> None:
    """The server says which column no client could send back."""
    put(writer, *(item(id, name="x" * 3_000) for id in range(3)))
    key = key_of(Item, [col(Item.name)], writer.dialect)
    with pytest.raises(DefinitionError, match=r"keyset_item.name holds a value of 3000 characters"):
        key.encode(["x" * 3_000, 1])
