"""Topics: what changes and is no table is heard of like any write, by every process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from sqlalchemy.orm import registry
from sqlmodel import Field, Session, SQLModel, select
from sqlmodel.ext.asyncio.session import AsyncSession

from reactive_rpc import Capture, DefinitionError, ReactiveRPC, Settings, define_reactive_function, topic
from reactive_rpc.dependencies.relations import Relations
from reactive_rpc.errors import InternalServerError
from reactive_rpc.procedures.procedure import AnyProcedure
from reactive_rpc.procedures.topics import Topic
from tests.support.calls import by_path

pytestmark = pytest.mark.anyio

weather = topic("weather")
news = topic("news")
KINDS = ["sqlite triggers", "sqlite session", "postgresql triggers", "postgresql session"]


class Base(SQLModel, registry=registry()):
    """Tables of this module alone."""


class City(Base, table=True):
    name: str = Field(primary_key=True)
    visits: int = 0


class Report(Base, table=True):
    id: int | None = Field(default=None, primary_key=True)


class Place(BaseModel):
    city: str


class Service:
    """What is no database: it answers with how often it was asked."""

    def __init__(self) -> None:
        self.calls = 0
        self.asked = asyncio.Event()
        self.is_on = asyncio.Event()
        self.is_on.set()

    def ask(self) -> int:
        self.calls += 1
        return self.calls


def procedures(service: Service, rpc: Callable[[], ReactiveRPC]) -> dict[str, Any]:
    @define_reactive_function(dependencies=[weather.of(lambda input: input.city)])
    async def forecast(input: Place) -> int:
        return service.ask()

    @define_reactive_function(dependencies=[weather])
    async def outlook() -> int:
        return service.ask()

    @define_reactive_function(dependencies=[City, news], invalidate_when={news: lambda change, input: False})
    async def cities(db: AsyncSession) -> list[str]:
        return list((await db.exec(select(City.name).order_by(City.name))).all())

    async def advised(db: AsyncSession) -> int:
        asked = service.ask()
        service.asked.set()
        await service.is_on.wait()
        await db.exec(select(City.name))
        return asked

    @define_reactive_function.mutation
    async def report(db: AsyncSession) -> None:
        await rpc().invalidate(weather, db=db)
        db.add(Report())

    @define_reactive_function(dependencies=[weather.of(lambda input: 5)])  # type: ignore[arg-type, return-value]  # wrong on purpose
    async def wrong_key(input: Place) -> int:
        return service.ask()

    @define_reactive_function
    async def meddling(input: Place) -> None:
        await rpc().invalidate(weather)

    @define_reactive_function.mutation
    async def arrive(db: AsyncSession, input: Place) -> None:
        db.add(City(name=input.city))
        await rpc().invalidate(weather, keys=[input.city], db=db)
        if input.city == "atlantis":
            raise ValueError("there is no such place")

    @define_reactive_function.mutation
    def arrive_sync(db: Session, input: Place) -> None:
        rpc().invalidate(weather, keys=[input.city], db=db)

    @define_reactive_function.mutation
    async def beside(input: Place) -> None:
        await rpc().invalidate(weather)

    found: list[AnyProcedure] = [forecast, outlook, cities, report, wrong_key, meddling, arrive, arrive_sync, beside]
    asking = {
        "advised": define_reactive_function(dependencies=[weather, City])(advised),
        "declared": define_reactive_function(dependencies=[Report, City])(advised),
        "related": define_reactive_function(advised),
    }
    return {"weather": {procedure.name: procedure for procedure in found} | asking}


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Capture]:
    """Return `(URL of an empty database, capture)`."""
    database, mode = request.param.split()
    if database == "sqlite":
        return f"sqlite+aiosqlite:///{tmp_path / 'topics.db'}", Capture(mode=mode)
    return request.getfixturevalue("postgresql_url"), Capture(mode=mode)


@asynccontextmanager
async def opened(
    place: tuple[str, Capture], service: Service, *, relations: Relations | None = None
) -> AsyncIterator[ReactiveRPC]:
    rpc = ReactiveRPC(
        place[0],
        functions=procedures(service, lambda: rpc),
        metadata=Base.metadata,
        capture=place[1],
        relations=relations or {},
        settings=Settings(busy_timeout_seconds=60.0, pool_timeout_seconds=60.0),
    )
    await rpc.admin.open()
    try:
        yield rpc
    finally:
        await rpc.admin.aclose()


async def test_a_result_holds_until_its_topic_is_announced(place: tuple[str, Capture]) -> None:
    """A handler that reads no table is cached, by key; an announcement drops its keys, or all of them."""
    async with opened(place, Service()) as rpc:
        call = by_path(rpc)
        assert [await call("weather.forecast", city=city) for city in ("berlin", "oslo", "berlin")] == [1, 2, 1]
        assert await call("weather.outlook") == 3
        await rpc.invalidate(weather, keys=["berlin"])
        assert await call("weather.forecast", city="oslo") == 2
        assert await call("weather.forecast", city="berlin") == 4
        assert await call("weather.outlook") == 5
        await rpc.invalidate(weather, keys=[])
        assert await call("weather.outlook") == 5
        await rpc.invalidate(weather)
        assert await call("weather.forecast", city="oslo") == 6


@pytest.mark.parametrize("name", ["advised", "declared", "related"])
async def test_what_was_asked_before_the_first_statement_is_not_of_its_snapshot(
    place: tuple[str, Capture], name: str
) -> None:
    """A write between the two, of a topic, a table that is only declared, or one that a relation ties to what is read,
    is shown by the snapshot, and not by what the handler was told before."""
    service = Service()
    relations: Relations | None = {"report": ["city"]} if name == "related" else None
    async with opened(place, service, relations=relations) as rpc:
        call = by_path(rpc)
        service.is_on.clear()
        calling = asyncio.create_task(call(f"weather.{name}"))
        await service.asked.wait()
        await call("weather.report")
        service.is_on.set()
        assert await calling == 1
        assert await call(f"weather.{name}") == 2
        assert await call(f"weather.{name}") == 2


async def test_any_text_is_a_key(place: tuple[str, Capture]) -> None:
    """Long keys, NUL, quotes: what is announced is what was depended on, and nothing else."""
    service = Service()
    async with opened(place, service) as rpc:
        call = by_path(rpc)
        for city in ["x" * 500, "a\0b", "Zürich 🌧", "", "' OR 1=1 --", '"]']:
            for name in (city, city + "y"):
                await call("weather.forecast", city=name)
            await rpc.invalidate(weather, keys=[city])
            known = service.calls
            assert await call("weather.forecast", city=city + "y") <= known
            assert await call("weather.forecast", city=city) == known + 1


async def test_an_announcement_is_part_of_its_mutation(place: tuple[str, Capture]) -> None:
    """It comes with the commit, and not at all where the mutation fails."""
    async with opened(place, Service()) as rpc:
        call = by_path(rpc)
        assert await call("weather.forecast", city="atlantis") == 1
        assert await call("weather.forecast", city="rome") == 2
        with pytest.raises(ValueError, match="no such place"):
            await call("weather.arrive", city="atlantis")
        assert await call("weather.forecast", city="atlantis") == 1
        await call("weather.arrive", city="rome")
        assert await call("weather.forecast", city="rome") == 3
        await call("weather.arrive_sync", city="rome")
        assert await call("weather.forecast", city="rome") == 4


@pytest.mark.parametrize("place", KINDS[::2], indirect=True)
async def test_every_process_hears_it(place: tuple[str, Capture]) -> None:
    """Two servers on one database: what one announces, the other's next answer knows."""
    service = Service()
    async with opened(place, service) as here, opened(place, service) as there:
        assert await by_path(there)("weather.forecast", city="berlin") == 1
        await here.invalidate(weather, keys=["berlin"])
        assert await by_path(there)("weather.forecast", city="berlin") == 2


async def test_a_predicate_may_ignore_a_topic(place: tuple[str, Capture]) -> None:
    """`invalidate_when` takes a topic like a table; about all of it, it is not asked."""
    async with opened(place, Service()) as rpc:
        call = by_path(rpc)
        await call("weather.cities")
        await rpc.invalidate(news, keys=["sport"])
        misses = rpc.admin.stats()["misses"]
        assert await call("weather.cities") == []
        assert rpc.admin.stats()["misses"] == misses
        await rpc.invalidate(news)
        await call("weather.cities")
        assert rpc.admin.stats()["misses"] == misses + 1


@pytest.mark.parametrize("place", KINDS[:2], indirect=True)
@pytest.mark.parametrize(
    ("path", "fault"),
    [
        ("wrong_key", "makes no key of the input"),
        ("meddling", "may not write"),
        ("beside", "pass it the mutation's db"),
    ],
)
async def test_a_misuse_in_a_handler_is_refused(place: tuple[str, Capture], path: str, fault: str) -> None:
    """A key that is no text, an announcement by a query, and one beside the mutation's transaction."""
    async with opened(place, Service()) as rpc:
        with pytest.raises(InternalServerError, match=fault):
            await by_path(rpc)(f"weather.{path}", city="berlin")


@pytest.mark.parametrize("place", KINDS[:1], indirect=True)
async def test_a_misuse_outside_is_refused(place: tuple[str, Capture]) -> None:
    """What is no topic, and what are no keys; each message says the way out."""
    async with opened(place, Service()) as rpc:
        with pytest.raises(DefinitionError, match="is no topic"):
            await rpc.invalidate(City)  # type: ignore[call-overload]  # wrong on purpose
        with pytest.raises(DefinitionError, match="is no list"):
            await rpc.invalidate(weather, keys="berlin")
        with pytest.raises(DefinitionError, match="a key is a str"):
            await rpc.invalidate(weather, keys=[5])  # type: ignore[list-item]  # wrong on purpose
        with pytest.raises(DefinitionError, match="half a surrogate"):
            await rpc.invalidate(weather, keys=["\ud800"])


@pytest.mark.parametrize("name", ["", " ", "a b", "x" * 65, "wetter;", 5, "ü"])
def test_a_topic_has_a_plain_name(name: Any) -> None:
    """Letters, digits and a few signs."""
    with pytest.raises(DefinitionError, match="a topic's name is"):
        topic(name)


async def test_a_topic_called_like_a_table_is_refused(tmp_path: Path) -> None:
    """Whoever means the table should declare the table."""

    @define_reactive_function(dependencies=[Topic("city", "topic:city")])
    async def lost() -> int:
        return 1

    url = f"sqlite+aiosqlite:///{tmp_path / 'topics.db'}"
    rpc = ReactiveRPC(url, functions={"a": {"lost": lost}}, metadata=Base.metadata)
    with pytest.raises(DefinitionError, match="there is a table of that name"):
        await rpc.admin.open()


def test_an_unknown_capture_is_refused() -> None:
    """The message says which there are; a database without triggers of ours is sent to the session."""
    with pytest.raises(DefinitionError, match="'triggers', 'installed' or 'session'"):
        Capture(mode="nonsense")  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(DefinitionError, match=r"Capture\(mode='session'\)"):
        ReactiveRPC("sqlite:///x.db", functions={}, capture="session")  # type: ignore[call-overload]  # wrong on purpose
    with pytest.raises(DefinitionError, match=r"Capture\(mode='session'\)"):
        ReactiveRPC("mysql+aiomysql://u@h/d", functions={})


async def test_announcements_race_nothing(place: tuple[str, Capture]) -> None:
    """Many at once, with readers between: the last answer is younger than the last announcement."""
    service = Service()
    async with opened(place, service) as rpc:
        call = by_path(rpc)

        async def announce() -> None:
            known = service.calls
            await rpc.invalidate(weather)
            assert await call("weather.outlook") > known

        await asyncio.gather(*(announce() for _ in range(20)))
        known = service.calls
        await rpc.invalidate(weather)
        assert await call("weather.outlook") == known + 1
