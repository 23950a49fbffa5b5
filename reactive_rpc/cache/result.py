"""A cached result: the bytes that are served, what it depends on, and how to compute it again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Final, NamedTuple, Protocol

from reactive_rpc.cache.weight import weight_of, weight_of_read_set
from reactive_rpc.dependencies.change import Change
from reactive_rpc.dependencies.period import ALWAYS, Period
from reactive_rpc.dependencies.read_set import ReadSet
from reactive_rpc.dependencies.topics import PREFIX
from reactive_rpc.errors import RPCError
from reactive_rpc.protocol.codes import CODES
from reactive_rpc.protocol.envelopes import encode_error

__all__ = ["RESULT_BYTES", "CachedResult", "Computable", "HandlerOutcome", "ReadResult", "ResultKey", "lasts"]

ResultKey = tuple[str, bytes, bytes]
"""`(path, canonical input, canonical context)`: equal keys have equal results, whoever asks."""


RESULT_BYTES = 600
"""The weight of a result beside its bytes, its query and its read set."""

_PASSING: Final = ("TIMEOUT", "TOO_MANY_REQUESTS", "CLIENT_CLOSED_REQUEST")


def lasts(error: RPCError) -> bool:
    """Return whether an answer holds until the data changes: it does not pass with time."""
    code = CODES.get(error.code)
    return code is None or (code.http < 500 and error.code not in _PASSING)


@dataclass(frozen=True, slots=True)
class HandlerOutcome:
    """The outcome of one run of a handler: an output or an error, and the reads that it rests on.

    Attributes:
        body: the output as JSON; empty if there is an error.
        error: the answer of the handler instead, on purpose; None normally.
        read_set: everything that the outcome depends on.
        shows: the version of the log that its snapshot shows, exactly; None if nobody can tell.
        is_whole: whether all of it was read on that one snapshot: the calls inside of a call have others, and topics
            and tables that are declared and not read have none.
    """

    body: bytes
    read_set: ReadSet
    error: RPCError | None = None
    shows: int | None = None
    is_whole: bool = True

    @property
    def has_place(self) -> bool:
        """Whether there are versions of the log at which this, exactly, is the outcome.

        Not if something else than captured rows decides it. The thing that a topic names changes before it is
        announced, so at one version there may be two outcomes; and so may there be if it depends on the time.
        """
        if self.shows is None or self.read_set.opaque is not None or self.read_set.period != ALWAYS:
            return False
        return not any(constraint.table.startswith(PREFIX) for constraint in self.read_set.constraints)

    @property
    def lasts(self) -> bool:
        """Whether the outcome holds until the data changes: a result, or an error that does not pass with time."""
        return self.error is None or lasts(self.error)

    @property
    def is_watchable(self) -> bool:
        """Whether a stream that watches it says when it is another: it lasts, and its read set is known."""
        return self.lasts and self.read_set.opaque is None

    def answer(self) -> bytes:
        """Return the body.

        Raises:
            RPCError: the answer of the handler instead; a fresh one each time, as raising one leaves its mark on it.
        """
        if self.error is not None:
            raise self.error.detached()
        return self.body


class Computable(Protocol):
    """A call that can be computed again at any time, as the reader needs it."""

    @property
    def key(self) -> ResultKey:
        """Its identity."""
        ...

    @property
    def depth(self) -> int:
        """How many calls it was made inside of: those wait for it, so it must not wait for others like them."""
        ...

    @property
    def is_cached(self) -> bool:
        """Whether its results may be kept, shared and watched."""
        ...

    @property
    def is_shared(self) -> bool:
        """Whether workers may take its results from each other."""
        ...

    @property
    def keep(self) -> Callable[[Change], bool] | None:
        """Tell whether a change that touches the read set leaves the result as it was; None never does."""
        ...

    @property
    def held_bytes(self) -> int:
        """Its size in memory: its key, its input, its context."""
        ...

    async def compute(self) -> HandlerOutcome:
        """Run the handler on a snapshot taken after this call.

        Raises:
            Exception: anything the handler did not raise on purpose; nothing is stored then.
        """
        ...


@dataclass(slots=True, eq=False)
class CachedResult:
    """One result. Compared by identity: a result computed again is another one.

    Its bytes are there for whoever is served, so only the store keeps them: a watched result needs the ETag, to
    tell whether the result is another one, and the read set. `Reader` lets go of them; nobody else does.

    Attributes:
        query: how to compute it again.
        outcome: with its bytes; None once the store does not hold the result any more.
        version: of the log, before the snapshot it was computed on; of a shared one, a version at which it was right.
        live: whether it is indexed, so that every change that touches it is noticed.
        cached: whether the store holds it.
        watchers: how many streams need it indexed, whether or not it is cached.
        reflects: a version at which this is the outcome, exactly, as a cursor; None if nobody can tell. While the
            result is live, it is the outcome at the log's present version too.
        decoded: whatever its query has made of the bytes, once; None until then.
        compares_moments: whether the query compares something with a date or a time, once somebody wanted to know.
        ignored_tables: the tables whose changes touched it, and which `invalidate_when` said to leave it as it was.
        read_set: everything that the outcome depends on.
        error: the answer of the handler instead, on purpose; None normally.
        etag: of the bytes, or of the error.
        size_bytes: its weight in the store.
        held_bytes: its weight in the index alone, without its bytes.
    """

    query: Computable
    outcome: HandlerOutcome | None
    version: int
    live: bool = False
    cached: bool = False
    watchers: int = 0
    reflects: str | None = None
    decoded: Any = None
    compares_moments: bool | None = None
    ignored_tables: frozenset[str] = frozenset()
    read_set: ReadSet = field(init=False)
    error: RPCError | None = field(init=False)
    etag: str = field(init=False)
    size_bytes: int = field(init=False)
    held_bytes: int = field(init=False)

    def __post_init__(self) -> None:
        outcome = self.with_bytes()
        error = self.error = outcome.error
        self.read_set = outcome.read_set
        content = outcome.body if error is None else encode_error(error)
        self.etag = f'"{blake2b(content, digest_size=12).hexdigest()}"'
        error_bytes = 0 if error is None else len(error.message) + weight_of(error.details)
        self.held_bytes = RESULT_BYTES + self.query.held_bytes + weight_of_read_set(self.read_set) + error_bytes
        self.size_bytes = self.held_bytes + len(outcome.body)

    def detached(self, reflects: str | None) -> CachedResult:
        """Return a copy with the bytes, which no store holds and nothing invalidates.

        Args:
            reflects: the version that it reflects exactly, as it is found now; None if nobody can tell.
        """
        # Not `copy`, which takes ten times as long: wrapped calls make one each.
        made = object.__new__(CachedResult)
        made.query, made.outcome, made.version = self.query, self.outcome, self.version
        made.live = made.cached = False
        made.watchers = 0
        made.reflects, made.decoded, made.ignored_tables = reflects, self.decoded, self.ignored_tables
        made.compares_moments = self.compares_moments
        made.read_set, made.error, made.etag = self.read_set, self.error, self.etag
        made.size_bytes, made.held_bytes = self.size_bytes, self.held_bytes
        return made

    def answer(self) -> bytes:
        """Return the body.

        Raises:
            RPCError: the answer of the handler instead.
            RuntimeError: the bytes were let go.
        """
        return self.with_bytes().answer()

    def with_bytes(self) -> HandlerOutcome:
        """Return the outcome.

        Raises:
            RuntimeError: the bytes were let go.
        """
        if self.outcome is None:
            raise RuntimeError(f"the bytes of {self.query.key[0]} were let go; nobody may be served this result")
        return self.outcome

    @property
    def period(self) -> Period:
        """In which it holds, as far as time goes."""
        return self.read_set.period


class ReadResult(NamedTuple):
    """The outcome of a read.

    Attributes:
        result: may have let go of its bytes since: they leave in the step of the event loop that evicts or drops it,
            which may come before the tasks that wait for it run again.
        outcome: with its bytes.
    """

    result: CachedResult
    outcome: HandlerOutcome
