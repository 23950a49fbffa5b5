"""Rights: whoever loses one is answered and notified of nothing more under it, and who gets it back has lost nothing.

A game makes up commits (roles, clearances, people and dossiers, one or several in a commit, by a connection that knows
nothing of the application), calls and streams at two workers, from a seed. A right at a commit is computed beside it.
"""

from __future__ import annotations

import asyncio
import json
import random
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final

import psycopg
import pytest
from fastapi import Header
from sqlmodel import Field
from sqlmodel.ext.asyncio.session import AsyncSession

from reactive_rpc import Cache, CallInfo, ForbiddenError, Login, NotFoundError, UnauthorizedError, current_caller
from reactive_rpc import define_reactive_function as define
from reactive_rpc.cache.matcher import ChangeMatcher
from reactive_rpc.cache.result import CachedResult
from reactive_rpc.changes.log import Batch
from reactive_rpc.dependencies.index import Index
from reactive_rpc.procedures.guarded_query import GuardedQuery
from reactive_rpc.subscriptions.reauthorization import StreamView
from reactive_rpc.subscriptions.registrar import Registrar
from reactive_rpc.subscriptions.stream import Stream
from reactive_rpc.subscriptions.watched_query import RequestedQuery
from tests.support.waiting import became

from . import postgresql_rooms, rooms
from .in_process import InProcessStream
from .rooms import Base, Opened

pytestmark = pytest.mark.anyio

PEOPLE: Final = ("ann", "bob", "cyd")
DOSSIERS: Final = ("x", "y")
TURNS: Final = 40
SETTINGS: Final = {
    "recheck_seconds": 0.0,
    "ack_retry_seconds": (0.5, 0.5, 0.5),
    "stream_opens_per_second": 1000.0,
    "poll_wait_seconds": 600.0,
}
"""Nothing but rows has a stream asked again; nobody waits for a turn; and a poll that nobody answers is found."""


class Employee(Base, table=True):
    id: str = Field(primary_key=True)
    role: str


class Clearance(Base, table=True):
    id: str = Field(primary_key=True)


class Dossier(Base, table=True):
    id: str = Field(primary_key=True)
    text: int


@dataclass(frozen=True, kw_only=True)
class Employed(Login):
    role: str


async def who(caller: str = Header()) -> Login:
    return Login(identity=caller)


async def employed(ctx: Login, db: AsyncSession) -> Employed:
    found = await db.get(Employee, ctx.identity)
    if found is None:
        raise UnauthorizedError("no longer one of us")
    return Employed(identity=found.id, role=found.role)


async def badge(caller: Annotated[str, Header()], db: AsyncSession) -> Employed:
    return await employed(Login(identity=caller), db)


async def cleared(ctx: Employed, db: AsyncSession, call: CallInfo) -> None:
    if await db.get(Clearance, f"{ctx.identity}:{call.input.id}") is None:
        raise ForbiddenError("not cleared")


def chiefs_only(ctx: Employed) -> None:
    if ctx.role != "chief":
        raise ForbiddenError("for chiefs")


async def text_of(db: AsyncSession, id: str) -> int:
    found = await db.get(Dossier, id)
    if found is None:
        raise NotFoundError("no such dossier")
    return found.text


async def text_for(db: AsyncSession, ctx: Employed, id: str) -> str:
    return f"{ctx.role}:{await text_of(db, id)}"


PUSH = Cache(push="result")
staff = define.use(employed)
shared = staff.use(cleared).query(text_of)
QUERIES: Final = {
    "shared": shared,
    "pushed": staff.use(cleared).query(cache=PUSH)(text_of),
    "chief": staff.use(chiefs_only).query(cache=PUSH)(text_of),
    "own": staff.query(cache=PUSH)(text_for),
    "badge": define.context(badge).query(text_for),
}


@staff.use(cleared).subscription
async def follow(id: str) -> AsyncIterator[int]:
    async for text in current_caller().live(shared, id=id):
        yield text


FUNCTIONS: Final = {"d": {**QUERIES, "follow": follow}}

Wanted = tuple[str, str]
"""A query: its path, and which dossier."""


@dataclass(frozen=True)
class State:
    """The rows after a commit."""

    roles: dict[str, str]
    clearances: frozenset[str]
    texts: dict[str, int]

    def allows(self, person: str, wanted: Wanted) -> bool:
        """Whether a person may see the result of a query."""
        path, dossier = wanted
        if person not in self.roles:
            return False
        if path in ("d.shared", "d.pushed"):
            return f"{person}:{dossier}" in self.clearances
        return path != "d.chief" or self.roles[person] == "chief"

    def shows(self, person: str, wanted: Wanted, *, texts: dict[str, int] | None = None) -> object:
        """What that is, for whoever may; by the texts of another state if they are given."""
        path, dossier = wanted
        shown = (texts or self.texts)[dossier]
        return f"{self.roles[person]}:{shown}" if path in ("d.own", "d.badge") else shown


Commit = Callable[[list[tuple[str, tuple[object, ...]]]], None]


@dataclass
class Game:
    """Two workers on one database, and somebody else who writes to it.

    Attributes:
        observer: a worker without clients, which says the version of each commit.
        states: after each commit.
        versions: of the log, at each.
        events_sent: of each event of a stream, the version that its worker had applied, who heard it, and of what.
    """

    seed: int
    workers: list[Opened]
    observer: Opened
    write: Commit
    states: list[State] = field(default_factory=lambda: [State({}, frozenset(), dict.fromkeys(DOSSIERS, 0))])
    versions: list[int] = field(default_factory=list)
    events_sent: list[tuple[int, str, Wanted, str]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    patience_seconds: float = 60.0
    is_over: bool = False

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)

    async def commit(self, *changes: Callable[[State], tuple[State, str, tuple[object, ...]]]) -> None:
        """Commit changes together."""
        state = self.states[-1]
        statements = []
        for change in changes:
            state, statement, values = change(state)
            statements.append((statement, values))
        self.write(statements)
        self.states.append(state)
        self.versions.append(await self.observer.rpc._freshness.sync_to_head())

    def draw(self) -> Callable[[State], tuple[State, str, tuple[object, ...]]]:
        """Return a change."""
        rng = self.rng
        person, dossier = rng.choice(PEOPLE), rng.choice(DOSSIERS)
        kind = rng.choice(("role", "role", "dismiss", "clear", "clear", "write", "write", "write"))

        def change(state: State) -> tuple[State, str, tuple[object, ...]]:
            if kind == "write":
                text = max(state.texts.values()) + 1
                return written(state, dossier, text)
            if kind == "clear":
                return cleared_or_not(state, f"{person}:{dossier}")
            if person not in state.roles:
                return employed_as(state, person, "chief")
            if kind == "dismiss":
                roles = {name: role for name, role in state.roles.items() if name != person}
                gone = State(roles, state.clearances, state.texts)
                return gone, "DELETE FROM employee WHERE id = ?", (person,)
            return employed_as(state, person, "clerk" if state.roles[person] == "chief" else "chief")

        return change

    async def call(self, worker: Opened, person: str, wanted: Wanted) -> object:
        """Call a query and hold the answer against what was right meanwhile; return the value, None if refused."""
        began = len(self.states) - 1
        answer = await worker.client.get(f"/rpc/{wanted[0]}", params={"id": wanted[1]}, headers={"caller": person})
        meanwhile = self.states[began:]
        value = answer.json() if answer.status_code == 200 else None
        if value is None:
            assert answer.status_code in (401, 403), answer.text
            is_right = any(not state.allows(person, wanted) for state in meanwhile)
        else:
            is_right = any(
                value == state.shows(person, wanted, texts=then.texts)
                for at, state in enumerate(meanwhile)
                if state.allows(person, wanted)
                for then in meanwhile[: at + 1]
            )
        if not is_right:
            self.faults.append(f"call of {wanted} by {person} was answered {value}, since {began}: {meanwhile}")
        return value

    def at(self, version: int) -> State:
        """Return the rows as a log shows them that has applied a version."""
        before = [state for state, at in zip(self.states[1:], self.versions, strict=True) if at <= version]
        return before[-1] if before else self.states[0]

    @property
    def has_pushed(self) -> bool:
        """Whether a stream was sent a result."""
        return any(name == "result" for *_, name in self.events_sent)

    async def write_until_pushed(self) -> None:
        """Write until a stream was sent a result: in the place of one that is late, it is sent an invalidation."""
        for _ in range(30):
            if self.has_pushed:
                return
            await self.commit(lambda state: written(state, "y", max(state.texts.values()) + 1))
            await became(lambda: self.has_pushed, within_seconds=1)

    def check(self) -> None:
        """Hold everything that streams said against the rights of those who heard it."""
        for version, person, wanted, name in self.events_sent:
            if not self.at(version).allows(person, wanted):
                self.faults.append(f"{name} of {wanted} was sent to {person} at {version}")


def written(state: State, dossier: str, text: int) -> tuple[State, str, tuple[object, ...]]:
    texts = {**state.texts, dossier: text}
    return State(state.roles, state.clearances, texts), "UPDATE dossier SET text = ? WHERE id = ?", (text, dossier)


def cleared_or_not(state: State, id: str) -> tuple[State, str, tuple[object, ...]]:
    statement = "DELETE FROM clearance WHERE id = ?" if id in state.clearances else "INSERT INTO clearance VALUES (?)"
    return State(state.roles, state.clearances ^ {id}, state.texts), statement, (id,)


def employed_as(state: State, person: str, role: str) -> tuple[State, str, tuple[object, ...]]:
    after = State({**state.roles, person: role}, state.clearances, state.texts)
    if person in state.roles:
        return after, "UPDATE employee SET role = ? WHERE id = ?", (role, person)
    return after, "INSERT INTO employee (role, id) VALUES (?, ?)", (role, person)


class Client:
    """Somebody who shows queries: by streams or long polls, at one worker after the other."""

    def __init__(self, game: Game, person: str, wanted: list[Wanted], *, polls: bool, acks: bool) -> None:
        self.game = game
        self.person = person
        self.wanted = wanted
        self.polls = polls
        self.acks = acks
        self.rng = random.Random(game.rng.random())
        self.cursor: str | None = None
        self.held: dict[Wanted, object] = {}
        self.stale = set(wanted)
        self.events: set[str] = set()
        self.is_shut_out = False
        self.known_states = 0
        self.heard: list[object] = []

    @property
    def shows_the_truth(self) -> bool:
        """Whether it shows all, and everything as it is."""
        state = self.game.states[-1]
        return not self.stale and all(
            self.held.get(wanted) == state.shows(self.person, wanted) for wanted in self.wanted
        )

    def report(self) -> str:
        """Say what it shows, and how it came to that."""
        state = self.game.states[-1]
        wrong = {
            wanted: (self.held.get(wanted), state.shows(self.person, wanted))
            for wanted in self.wanted
            if wanted in self.stale or self.held.get(wanted) != state.shows(self.person, wanted)
        }
        heard = "".join(f"\n  {str(one)[:2000]}" for one in self.heard[-8:])
        return (
            f"{self.person} never showed the truth (polls: {self.polls}, acks: {self.acks}): shown and true {wrong}, "
            f"stale {self.stale}, after {heard}"
        )

    async def run(self) -> None:
        """Connect, listen, and connect again."""
        while not self.game.is_over:
            worker = self.rng.choice(self.game.workers)
            path = "/rpc/events/poll" if self.polls else "/rpc/events"
            request: dict[str, Any] = {"wait": 0.2} if self.polls else {"acks": self.acks}
            if self.cursor is not None:
                request["cursor"] = self.cursor
            queries = [{"path": path, "input": {"id": dossier}} for path, dossier in self.wanted]
            self.known_states = len(self.game.states)
            stream = InProcessStream(
                worker.app, queries, {"caller": self.person}, note=partial(applied, worker), path=path, **request
            )
            async with stream:
                await (self._polled(worker, stream) if self.polls else self._streamed(worker, stream))

    async def _streamed(self, worker: Opened, stream: InProcessStream[int]) -> None:
        leaves_after = self.rng.choice((3, 10, 1000))
        while not self.game.is_over and leaves_after:
            await became(lambda: self._has_ended(stream), within_seconds=30)
            if not stream.sent:
                return
            version, event = stream.sent.pop(0)
            leaves_after -= 1
            data = json.loads(event.data)
            for wanted in named(event.event, data):
                self.game.events_sent.append((version, self.person, wanted, event.event))
            await self._heard(worker, event.event, data, event.id)

    def _has_ended(self, stream: InProcessStream[int]) -> bool:
        """Tell whether to wait no longer: an event has come, or none will."""
        # A context that refuses is kept for nobody, so no stream is told when it would let its caller in.
        asks_again = self.is_shut_out and len(self.game.states) > self.known_states
        return bool(stream.sent) or stream.task.done() or self.game.is_over or asks_again

    async def _polled(self, worker: Opened, stream: InProcessStream[int]) -> None:
        self.heard.append("polls")
        await stream.task
        self.heard.append((stream.status, stream.body[:300]))
        if stream.status == 200:
            for event in json.loads(stream.body)["events"]:
                await self._heard(worker, event["event"], event["data"], event["id"])

    async def _heard(self, worker: Opened, name: str, data: dict[str, Any], cursor: str | None) -> None:
        self.heard.append((name, cursor, data, self.game.states[-1].texts))
        if data.get("event_id") in self.events:
            return  # sent again, as nobody acknowledges
        self.events.add(data.get("event_id", ""))
        if name == "connected":
            refused = [query for query, key in zip(self.wanted, data["queries"], strict=True) if key is None]
            self.is_shut_out = any(path == "d.badge" for path, _ in refused)
            for wanted in refused:
                self.held.pop(wanted, None)
            self.stale |= set(self.wanted) - self.held.keys()
        if name == "gap":
            self.stale |= set(self.wanted)
        if name == "result":
            [wanted] = named(name, data)
            self.held[wanted] = data["data"]
            self.stale.discard(wanted)
        else:
            self.stale |= set(named(name, data))
        self.cursor = cursor or self.cursor
        for wanted in sorted(self.stale):
            value = await self.game.call(worker, self.person, wanted)
            self.heard.append(("called", wanted, value, len(self.game.states)))
            if value is None:
                self.held.pop(wanted, None)
            else:
                self.held[wanted] = value
                self.stale.discard(wanted)


class Follower:
    """Somebody who subscribes to the text of a dossier, at one worker after the other."""

    def __init__(self, game: Game, person: str, dossier: str) -> None:
        self.game = game
        self.person = person
        self.dossier = dossier
        self.rng = random.Random(game.rng.random())
        self.shown: object = None

    @property
    def shows_the_truth(self) -> bool:
        """Whether it was sent the text as it is."""
        return self.shown == self.game.states[-1].texts[self.dossier]

    def report(self) -> str:
        """Say what it shows."""
        return f"{self.person} was never sent {self.game.states[-1].texts}, of {self.dossier} {self.shown} alone"

    async def run(self) -> None:
        """Subscribe, listen, and subscribe again."""
        while not self.game.is_over:
            known = len(self.game.states)
            worker = self.rng.choice(self.game.workers)
            stream = InProcessStream(
                worker.app, None, {"caller": self.person}, note=partial(applied, worker), path="/rpc/d.follow",
                id=self.dossier,
            )  # fmt: skip
            async with stream:
                leaves_after = self.rng.choice((1, 3, 1000))
                while leaves_after and stream.status == 200 and await self._listened(stream):
                    leaves_after -= 1
            if stream.status != 200:
                await became(lambda: self.game.is_over or len(self.game.states) > known, within_seconds=30)  # noqa: B023

    async def _listened(self, stream: InProcessStream[int]) -> bool:
        """Take the next event; tell whether more may come."""
        await became(lambda: stream.sent or stream.task.done() or self.game.is_over, within_seconds=30)
        if not stream.sent:
            return False
        version, event = stream.sent.pop(0)
        if event.event == "message":
            self.game.events_sent.append((version, self.person, ("d.shared", self.dossier), "value"))
            self.shown = json.loads(event.data)
        return event.event == "message"


def applied(worker: Opened) -> int:
    """Return the version that a worker has applied."""
    return worker.rpc._log.version


def named(name: str, data: dict[str, Any]) -> list[Wanted]:
    """Return the queries of which an event says that they have changed."""
    affected = data["stale"] if name == "connected" else data["affected"] if name == "invalidation" else []
    return [(one["path"], one["input"]["id"]) for one in ([data] if name == "result" else affected)]


async def play(game: Game) -> list[str]:
    """Play a game to its end and return what was wrong."""
    rng = game.rng
    await game.commit(*(change_to(employed_as, person, "chief") for person in PEOPLE))
    wanted = [(f"d.{name}", dossier) for name in QUERIES for dossier in DOSSIERS]
    clients: list[Client | Follower] = [
        Client(game, rng.choice(PEOPLE), rng.sample(wanted, rng.randint(1, 5)), polls=not n % 3, acks=n % 2 == 0)
        for n in range(6)
    ]
    clients.append(Client(game, rng.choice(PEOPLE), [("d.shared", "x"), ("d.pushed", "y")], polls=False, acks=False))
    clients += [Follower(game, rng.choice(PEOPLE), rng.choice(DOSSIERS)) for _ in range(2)]
    async with asyncio.TaskGroup() as group:
        for client in clients:
            group.create_task(client.run())
        for _ in range(TURNS):
            for _ in range(rng.choice((1, 1, 2))):
                await game.commit(*(game.draw() for _ in range(rng.choice((1, 1, 2, 3)))))
            for _ in range(rng.choice((0, 0, 5, 30))):
                await asyncio.sleep(0)
            calls = [(rng.choice(game.workers), rng.choice(PEOPLE), rng.choice(wanted)) for _ in range(3)]
            answered = asyncio.gather(*(game.call(*call) for call in calls))
            for _ in range(rng.choice((1, 5, 20))):
                await asyncio.sleep(0)
            await game.commit(*(game.draw() for _ in range(3)))  # while the calls are under way
            await answered
        for person in PEOPLE:
            await game.commit(change_to(employed_as, person, "chief"))
            for id in (f"{person}:{dossier}" for dossier in DOSSIERS):
                if id not in game.states[-1].clearances:
                    await game.commit(change_to(cleared_or_not, id))
        await game.write_until_pushed()
        game.check()
        if not game.faults and not await became(
            lambda: all(client.shows_the_truth for client in clients), within_seconds=game.patience_seconds
        ):
            game.faults += [c.report() for c in clients if not c.shows_the_truth]
        game.is_over = True
    return game.faults


async def play_right(game: Game) -> None:
    """Play a game in which nothing may be wrong, and something must be told."""
    assert await play(game) == [], f"seed {game.seed}"
    assert {name for *_, name in game.events_sent} >= {"invalidation", "result", "value"}


def change_to(make: Callable[..., Any], *arguments: object) -> Callable[[State], Any]:
    return lambda state: make(state, *arguments)


def started(seed: int, opened: list[Opened], write: Commit) -> Game:
    write([("INSERT INTO dossier (id, text) VALUES (?, 0)", (dossier,)) for dossier in DOSSIERS])
    return Game(seed, opened[1:], opened[0], write)


@asynccontextmanager
async def on_sqlite(seed: int, file: Path) -> AsyncIterator[Game]:
    """A game on a file."""

    def write(statements: list[tuple[str, tuple[object, ...]]]) -> None:
        with closing(sqlite3.connect(file)) as connection, connection:
            for statement, values in statements:
                connection.execute(statement, values)

    async with AsyncExitStack() as stack:
        settings = {**SETTINGS, "busy_timeout_seconds": 5.0}
        opened: list[Opened] = [
            await stack.enter_async_context(rooms.serving(file, FUNCTIONS, context=who, settings=settings))
            for _ in range(3)
        ]
        yield started(seed, opened, write)


@asynccontextmanager
async def on_postgresql(seed: int, url: str, **settings: Any) -> AsyncIterator[Game]:
    """A game on an empty database."""
    async with AsyncExitStack() as stack:
        settings = {**SETTINGS, "pool_timeout_seconds": 20.0, **settings}
        opened: list[Opened] = [
            await stack.enter_async_context(postgresql_rooms.serving(url, FUNCTIONS, context=who, settings=settings))
            for _ in range(3)
        ]
        address = postgresql_rooms.with_driver(url, "postgresql")
        connection = stack.enter_context(psycopg.connect(address, autocommit=True))

        def write(statements: list[tuple[str, tuple[object, ...]]]) -> None:
            with connection.transaction():
                for statement, values in statements:
                    connection.execute(statement.replace("?", "%s").encode(), values)

        yield started(seed, opened, write)


@pytest.mark.parametrize("seed", range(5))
async def test_no_right_outlives_its_commit(file: Path, seed: int) -> None:
    """On SQLite, whatever the order: no answer and no event under a right that is gone, and all is shown in the end."""
    async with on_sqlite(seed, file) as game:
        await play_right(game)


@pytest.mark.parametrize("seed", range(2))
async def test_no_right_outlives_its_commit_on_postgresql(postgresql_url: str, seed: int) -> None:
    """The same, with workers that hear of each other's database by its notifications."""
    async with on_postgresql(seed, postgresql_url) as game:
        await play_right(game)


async def test_no_right_outlives_its_commit_with_redis(
    postgresql_url: str, redis_server_url: str, redis_namespace: str
) -> None:
    """The same where workers take the outcomes of steps from each other."""
    shared = {"redis_url": redis_server_url, "redis_namespace": redis_namespace, "build": "b1"}
    async with on_postgresql(0, postgresql_url, **shared) as game:
        await play_right(game)
        assert sum(worker.rpc.admin.stats()["shared_hits"] for worker in game.workers) > 0


def streams_are_never_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a batch pushes leaves before the right to it is found again."""
    monkeypatch.setattr(Stream, "hold", lambda self: None)


def rechecks_find_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream goes on under the rights with which it was opened."""
    monkeypatch.setattr(StreamView, "differs_from", lambda self, before: False)


def steps_are_not_invalidated(monkeypatch: pytest.MonkeyPatch) -> None:
    """The outcome of a step stays in the cache when its rows change."""
    match = ChangeMatcher.match

    def without_steps(self: ChangeMatcher, batch: Batch, index: Index[CachedResult]) -> dict[CachedResult, set[str]]:
        found = match(self, batch, index)
        return {result: tables for result, tables in found.items() if not result.query.key[0].startswith("step:")}

    monkeypatch.setattr(ChangeMatcher, "match", without_steps)


def steps_do_not_count_for_who_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that resumes is events_sent of the rows that the handler reads alone."""
    register = Registrar.register

    def of_handlers(self: Registrar, stream: Stream, subscriptions: Sequence[RequestedQuery], cursor: Any) -> Any:
        return register(self, stream, [replace(one, passed=()) for one in subscriptions], cursor)

    monkeypatch.setattr(Registrar, "register", of_handlers)


def answers_rest_on_what_steps_had_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call is answered with rows of whenever its handler ran, however long after its steps."""
    monkeypatch.setattr(GuardedQuery, "_holds", lambda self: True)


@pytest.mark.seeded_bug
@pytest.mark.parametrize(
    ("bug", "fault"),
    [
        (streams_are_never_held, "was sent to"),
        (rechecks_find_no_difference, "was sent to"),
        (steps_are_not_invalidated, "was answered"),
        (steps_do_not_count_for_who_comes_back, "never showed the truth"),
        (answers_rest_on_what_steps_had_found, "was answered"),
    ],
)
async def test_the_game_finds_a_seeded_bug(
    tmp_path: Path, bug: Callable[[pytest.MonkeyPatch], None], fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of them within a few games, by the fault that it makes."""
    bug(monkeypatch)
    for seed in range(20):
        async with on_sqlite(seed, tmp_path / f"{seed}.db") as game:
            game.patience_seconds = 1.0
            if any(fault in found for found in await play(game)):
                return
    pytest.fail("no game found it")
