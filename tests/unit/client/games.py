"""Games: one query, a server, a stream and own mutations, played in any order against the reducer.

Every frame must be `fold(truth(v), own mutations not in truth(v))` for some version not below the last frame's; what is
confirmed must be the truth, or its event be on the way; and at rest, what shows is the truth. A `fault` breaks the
reducer, or the world's use of it, on purpose.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Final

from reactive_rpc.client.state import (
    Action,
    Advanced,
    Base,
    Confirmed,
    Covered,
    Fetched,
    FetchFailed,
    FetchStarted,
    FetchUnchanged,
    HoldExpired,
    Invalidated,
    OpAnswered,
    OpLost,
    OpMade,
    OpRejected,
    OpSent,
    Pushed,
    QuerySnapshot,
    Uncovered,
    reduce,
)
from reactive_rpc.client.versions import Version, passes

__all__ = ["FAULTS", "WrongError", "play"]

Data = tuple[str, ...]
State = QuerySnapshot[Data]

STEPS: Final = 60
NO_ANSWER: Final = RuntimeError("no answer")


class WrongError(AssertionError):
    """Something showed that was never true."""


@dataclass
class Mutation:
    """An own mutation: it appends its id, does nothing, or is refused."""

    id: str
    kind: str
    phase: str = "queued"
    commit: int | None = None

    @property
    def is_free(self) -> bool:
        """Whether no truth will ever tell that it was done: it may show or not."""
        return self.kind == "noop" or (self.phase == "lost" and self.commit is None)


@dataclass
class Fetch:
    """A request: sent with an ETag, and at some moment read from the database."""

    etag: str | None
    read_at: int | None = None


@dataclass
class Stream:
    """What a stream has said, and has not been heard of yet."""

    etag: str | None
    events: deque[tuple[str, int]] = field(default_factory=deque)
    is_open: bool = False
    is_connected: bool = False


class ClientGame:
    """One game."""

    def __init__(self, seed: int, fault: str) -> None:
        self.dice = random.Random(seed)
        self.fault = fault
        self.truths: list[Data] = [()]
        self.state: State = QuerySnapshot()
        self.mutations: list[Mutation] = []
        self.fetch: Fetch | None = None
        self.stream: Stream | None = None
        self.notified_up_to: Version | None = None
        self.shown_version = 0
        self.is_waiting = False
        self.pushes = self.dice.random() < 0.5
        self.log: list[str] = []
        self._run()

    # -- the client

    def dispatch(self, action: Action) -> None:
        """Change the state, and look at what shows."""
        self.log.append(f"{action}")
        before, action = FAULTS[self.fault](self.state, action)
        after = reduce(before, action)
        if self.fault == "nothing held":
            after = reduce(after, HoldExpired())
        if self.fault == "no fetch for an answered mutation" and isinstance(action, OpAnswered | Fetched):
            after = replace(after, wanted=after.wanted and not after.current)
        self.state = after
        self._check_frame()

    def _run(self) -> None:
        if self.state.wanted and not self.state.loading and not self.is_waiting:
            self.dispatch(FetchStarted())
            self.fetch = Fetch(self.state.asked.etag)

    def _check_frame(self) -> None:
        shown = self.state.shown
        if shown is None:
            return
        own = [one for one in self.mutations if one.kind != "refused" or one.phase != "over"]
        for version in range(self.shown_version, len(self.truths)):
            if self._shows(shown, version, own):
                self.shown_version = version
                return
        raise WrongError(f"{shown} is no frame: {self.truths} {own}\n" + "\n".join(self.log))

    def _shows(self, shown: Data, version: int, own: list[Mutation]) -> bool:
        rest: list[Data] = [self.truths[version]]
        for one in own:
            if one.commit is not None and one.commit <= version:
                continue
            with_it = [(*data, one.id) for data in rest]
            rest = rest + with_it if one.is_free else with_it
        return shown in rest

    def check_confirmed(self) -> None:
        if self.state.is_stale or self.state.base.data == self.truths[-1]:
            return
        if self.stream is None or not self.stream.events:
            raise WrongError(f"confirmed: {self.state.base} of {self.truths}\n" + "\n".join(self.log))

    # -- the server

    @property
    def now(self) -> int:
        return len(self.truths) - 1

    def version(self, number: int) -> Version:
        return Version("e", number)

    def etag(self, number: int) -> str:
        return ",".join(self.truths[number])

    def commit(self, data: Data) -> None:
        is_change = data != self.truths[-1]
        self.truths.append(data)
        if is_change and self.stream is not None and self.stream.is_open:
            self.stream.events.append(("pushed" if self.pushes else "invalidated", self.now))

    # -- moves

    def write(self) -> None:
        """Let somebody else write: to the query, or to something else."""
        data = self.truths[-1]
        roll = self.dice.random()
        self.commit(data if roll < 0.3 else () if roll < 0.4 else (*data, f"w{self.now}"))

    def mutate(self) -> None:
        one = Mutation(f"m{len(self.log)}", self.dice.choice(["append", "append", "noop", "refused"]))
        self.mutations.append(one)
        self.dispatch(OpMade(one.id, lambda data: (*(data or ()), one.id)))

    def _one(self, phase: str) -> Mutation | None:
        return next((one for one in self.mutations if one.phase == phase), None)

    def send(self) -> None:
        if one := self._one("queued"):
            one.phase = "sent"
            self.dispatch(OpSent(one.id))

    def arrive(self) -> None:
        if one := self._one("sent"):
            one.phase = "arrived"
            if one.kind == "append":
                one.commit = self.now + 1
                self.commit((*self.truths[-1], one.id))
            elif one.kind == "noop":
                one.commit = None

    def answer_mutation(self) -> None:
        one = self._one("arrived")
        if one is None:
            return
        one.phase = "over"
        if one.kind == "refused":
            self.dispatch(OpRejected(one.id))
            return
        at = self.dice.choice([None, self.version(self.now), self.version(one.commit or self.now)])
        self.dispatch(OpAnswered(one.id, at))

    def lose(self) -> None:
        if one := self._one("arrived") or self._one("sent"):
            one.phase = "lost"
            self.dispatch(OpLost(one.id))

    def read(self) -> None:
        if self.fetch is not None and self.fetch.read_at is None:
            self.fetch.read_at = self.now

    def answer(self) -> None:
        if self.fetch is None or self.fetch.read_at is None:
            return
        asked, at = self.fetch, self.fetch.read_at
        self.fetch = None
        is_still = all(truth == self.truths[at] for truth in self.truths[at:])
        number = self.now if is_still or self.fault == "a cursor for a version" else at
        version = None if self.dice.random() < 0.1 else self.version(number)
        if asked.etag == self.etag(at):
            self.dispatch(FetchUnchanged(version))
        else:
            self.dispatch(Fetched(self.truths[at], self.etag(at), version))

    def fail(self) -> None:
        if self.fetch is not None:
            self.fetch, self.is_waiting = None, True
            self.dispatch(FetchFailed(NO_ANSWER))

    def outage(self) -> None:
        """Answer with what some worker has stored, as stale."""
        if self.fetch is not None:
            self.fetch, self.is_waiting = None, True
            at = self.dice.randint(self.shown_version, self.now) if self.state.newest.is_empty else 0
            self.dispatch(Fetched(self.truths[at], self.etag(at), None, is_stale=True))

    def retry(self) -> None:
        if self.is_waiting:
            self.is_waiting = False
            if not self.state.current:
                self.dispatch(Invalidated())

    def open(self) -> None:
        if self.stream is None:
            self.stream = Stream(self.state.newest.etag)

    def accept(self) -> None:
        if self.stream is not None and not self.stream.is_open:
            self.stream.is_open = True
            self.stream.events.append(("connected", self.now))

    def hear(self) -> None:
        if self.stream is None or not self.stream.events:
            return
        kind, at = self.stream.events.popleft()
        version = self.version(at)
        match kind:
            case "connected":
                self._connected(self.stream, at)
            case "invalidated":
                self.dispatch(Invalidated(version))
            case "pushed":
                self.dispatch(Pushed(self.truths[at], self.etag(at), version))
            case _:
                self.dispatch(Invalidated())
        self.notified_up_to = version
        if kind != "gap":
            self.dispatch(Advanced(version))

    def _connected(self, stream: Stream, at: int) -> None:
        newest, version = self.state.newest, self.version(at)
        is_compared = stream.etag is not None and newest.etag == stream.etag
        is_same = stream.etag == self.etag(at)
        is_good = is_compared and is_same and self.state.current and not self.state.loading
        if is_good or passes(newest.version, version) or self.fault == "connected confirms all":
            self.dispatch(Confirmed(version))
        else:
            self.dispatch(Invalidated(None if is_compared and not is_same else version))
            self.dispatch(Covered())
        stream.is_connected = True

    def cut(self) -> None:
        if self.stream is not None:
            self.stream = None
            self.dispatch(Uncovered())

    def gap(self) -> None:
        if self.stream is not None and self.stream.is_connected and self.stream.events:
            self.stream.events = deque([("gap", self.now)])

    def step(self, move: str) -> None:
        getattr(self, move)()
        self._run()
        self.check_confirmed()

    def come_to_rest(self) -> None:
        """Let all that is under way end well."""
        for _ in range(200):
            for move in CLOSING_MOVES:
                self.step(move)
        state = self.state
        if state.shown != self.truths[-1] or state.is_stale or state.ops or state.loading:
            raise WrongError(f"not at rest: {state} of {self.truths}\n" + "\n".join(self.log))


MOVES: Final = [
    "write",
    "mutate",
    "send",
    "arrive",
    "answer_mutation",
    "open",
    "accept",
    "hear",
    "read",
    "answer",
] * 3 + ["hear", "read", "answer", "lose", "fail", "outage", "retry", "cut", "gap"]
CLOSING_MOVES: Final = ("send", "arrive", "answer_mutation", "open", "accept", "hear", "retry", "read", "answer")


def _right(state: State, action: Action) -> tuple[State, Action]:
    return state, action


def _drop_at_answer(state: State, action: Action) -> tuple[State, Action]:
    return state, OpRejected(action.id) if isinstance(action, OpAnswered) else action


def _deaf_while_loading(state: State, action: Action) -> tuple[State, Action]:
    is_late = state.loading and isinstance(action, Invalidated)
    return state, Advanced(None) if is_late else action


def _deaf(state: State, action: Action) -> tuple[State, Action]:
    return state, Advanced(None) if isinstance(action, Uncovered) else action


def _backwards(state: State, action: Action) -> tuple[State, Action]:
    if isinstance(action, Pushed | Fetched) and action.version is not None:
        base: Base[Any] = replace(state.newest, version=_first(state.newest.version))
        return (replace(state, base=base) if state.held is None else replace(state, held=base)), action
    return state, action


def _first(version: Version | None) -> Version | None:
    return None if version is None else version._replace(number=0)


def _outage_counts(state: State, action: Action) -> tuple[State, Action]:
    return state, replace(action, is_stale=False) if isinstance(action, Fetched) else action


FAULTS: Final[dict[str, Callable[[State, Action], tuple[State, Action]]]] = {
    "": _right,
    "dropped at its answer": _drop_at_answer,
    "nothing held": _right,
    "no fetch for an answered mutation": _right,
    "an invalidation while loading ignored": _deaf_while_loading,
    "a cursor for a version": _right,
    "the end of a stream ignored": _deaf,
    "connected confirms all": _right,
    "lower versions taken": _backwards,
    "an outage's answer counts": _outage_counts,
}


def play(seed: int, fault: str = "") -> None:
    """Play one game.

    Raises:
        WrongError: something showed that was never true, with all that was dispatched.
    """
    world = ClientGame(seed, fault)
    for _ in range(world.dice.randint(5, STEPS)):
        world.step(world.dice.choice(MOVES))
    world.come_to_rest()
