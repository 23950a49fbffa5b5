"""The running call: a call made inside it adds to its read set.

A handler may call another procedure through a caller. What the inner query read is then part of what the outer one
depends on. The inner result was right at some moment after the outer call began, so the outer reader's check of
everything since then covers it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import Context, ContextVar
from dataclasses import dataclass, field
from typing import Literal

from reactive_rpc.cache.result import ResultKey
from reactive_rpc.clock import Clock
from reactive_rpc.dependencies.period import Period
from reactive_rpc.dependencies.read_set import NOTHING, ReadSet
from reactive_rpc.errors import InternalServerError

__all__ = [
    "AfterCommit",
    "RunningCall",
    "call_depth",
    "current_call",
    "enter_current_call",
    "refuse_announcement",
    "refuse_nested_mutation",
    "refuse_recursion",
    "running",
]


AfterCommit = Callable[[], object]
"""Work for after a commit; what it returns is awaited where it can be."""


@dataclass(slots=True)
class RunningCall:
    """A call under way: what is read inside it, what it was told of the time, what it leaves for after its commit."""

    path: str
    kind: Literal["query", "mutation"]
    key: ResultKey | None = None
    inner: list[ReadSet] | deque[ReadSet] = field(default_factory=list)
    outer: RunningCall | None = None
    ended: bool = False
    clock: Clock = field(kw_only=True)
    after_commit: list[AfterCommit] = field(default_factory=list)

    def note_time(self, tick: Period) -> None:
        """Count it as read that it is this tick."""
        self.inner.append(ReadSet(period=tick))

    @property
    def read_set(self) -> ReadSet:
        """Everything that the calls inside it read."""
        found = NOTHING
        for read_set in self.inner:
            found |= read_set
        return found


_current: ContextVar[RunningCall | None] = ContextVar("reactive_rpc_running", default=None)


@contextmanager
def running(call: RunningCall) -> Iterator[RunningCall]:
    """Make `call` the one that runs, in this task and in the threads and tasks it starts."""
    call.outer = current_call()
    token = _current.set(call)
    try:
        yield call
    finally:
        call.ended = True
        _current.reset(token)


def current_call() -> RunningCall | None:
    """Return the call that is running here; None outside of any, and in a task that has outlived its call."""
    call = _current.get()
    return None if call is None or call.ended else call


def enter_current_call(context: Context) -> None:
    """Make the call that is running here the one that runs in `context` too."""
    call = current_call()
    if call is not None:
        context.run(_current.set, call)


def call_depth() -> int:
    """Return how many calls are running above a call made here."""
    call, found = _current.get(), 0
    if call is None or call.ended:
        return 0
    while call is not None:
        call, found = call.outer, found + 1
    return found


def refuse_recursion(key: ResultKey) -> None:
    """Let a query begin only if it is not waiting for itself.

    Raises:
        InternalServerError: a call of the same key is under way above this one.
    """
    call = current_call()
    while call is not None:
        if call.key == key:
            raise InternalServerError(f"{key[0]} calls itself with the same input: it would wait for its own result")
        call = call.outer


def refuse_nested_mutation(path: str) -> None:
    """Let a mutation begin only outside of any call.

    Raises:
        InternalServerError: a query would write through it, or a mutation would wait for its own write lock.
    """
    outer = current_call()
    if outer is None:
        return
    if outer.kind == "query":
        raise InternalServerError(
            f"{outer.path} is a query and calls the mutation {path}: a query may not write; define it with "
            "define_reactive_function.mutation, and call the decorated function itself with your db"
        )
    raise InternalServerError(
        f"{outer.path} and {path} are mutations, each a transaction of its own: "
        "call the decorated function itself with your db instead of the caller"
    )


def refuse_announcement(topic: str, *, in_transaction: bool) -> None:
    """Let a topic be announced outside of any call, or by a mutation in its own transaction.

    Raises:
        InternalServerError: a query would write, or a mutation would wait for its own write lock.
    """
    outer = current_call()
    if outer is None:
        return
    if outer.kind == "query":
        raise InternalServerError(
            f"{outer.path} is a query and announces {topic}: a query may not write; define it with "
            "define_reactive_function.mutation"
        )
    if not in_transaction:
        raise InternalServerError(
            f"{outer.path} announces {topic} beside its own transaction: "
            "pass it the mutation's db, then it is rolled back with it"
        )
