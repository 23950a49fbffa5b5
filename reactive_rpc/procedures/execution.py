"""Running handlers: a fresh session for every call, one snapshot for a query, one transaction for a mutation."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from anyio import CapacityLimiter, WouldBlock
from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session
from sqlalchemy.util import greenlet_spawn

from reactive_rpc.cache.result import HandlerOutcome, ResultKey
from reactive_rpc.changes.log import Log
from reactive_rpc.clock import Clock
from reactive_rpc.dependencies.change import Change
from reactive_rpc.dependencies.period import ALWAYS, Period
from reactive_rpc.dependencies.read_set import Constraint, ReadSet
from reactive_rpc.dependencies.topics import constraint_on
from reactive_rpc.errors import InternalServerError, RPCError, ServiceUnavailableError
from reactive_rpc.procedures.attempts import Attempts
from reactive_rpc.procedures.context import Context, valid_at
from reactive_rpc.procedures.context_isolation import hidden_read, in_own_thread
from reactive_rpc.procedures.declared_errors import RaisedErrors
from reactive_rpc.procedures.encoding import encode_output
from reactive_rpc.procedures.error_boundary import error_boundary
from reactive_rpc.procedures.idempotency import IdempotentCall
from reactive_rpc.procedures.procedure import AnyProcedure
from reactive_rpc.procedures.runnable import Runnable
from reactive_rpc.procedures.running_call import AfterCommit, RunningCall, refuse_nested_mutation, running
from reactive_rpc.procedures.solving import NOTHING_MADE, CallDependencies
from reactive_rpc.procedures.steps import CallInfo, ChainPart, Outcome, Step, around, walk
from reactive_rpc.procedures.streamed_run import Emit, StreamedRun
from reactive_rpc.procedures.topics import Topic
from reactive_rpc.procedures.uploads import CallFiles
from reactive_rpc.statements.database import Database
from reactive_rpc.statements.faults import SchemaMovedError, UnprovenError
from reactive_rpc.statements.isolation import Isolation
from reactive_rpc.statements.recorder import Recorder, Trace, current_recorder
from reactive_rpc.statements.row_images import as_known
from reactive_rpc.statements.sessions import in_greenlet

__all__ = ["Executor", "MutationOutput", "Observation", "Observer"]

logger = logging.getLogger(__name__)

PROVED_FIRST_CALLS = 100
"""So many calls of a query whose handler has ended its transaction have their snapshots proved before it runs."""

STREAMED_WAIT_SECONDS = 10.0
"""How long a query that yields waits for its turn among those that hold a connection."""


READS_NOTHING = "reads no table, so nothing could tell when its result changes"


@dataclass(frozen=True, slots=True)
class Observation:
    """The rows that one run of a query read.

    Attributes:
        path: of the procedure.
        declared: its dependencies; None if it declares none.
        read: the tables it read, by canonical name.
        opaque: why nobody can tell which rows were read; None if they are known.
    """

    path: str
    declared: frozenset[str] | None
    read: frozenset[str]
    opaque: str | None


Observer = Callable[[Observation], None]


@dataclass(frozen=True, slots=True)
class MutationOutput:
    """The result of a mutation's handler.

    Attributes:
        body: its output as JSON.
        replayed: whether the handler ran at an earlier call with the same idempotency key, and not at this one.
        after: the work that it has left to be done after the commit.
    """

    body: bytes
    replayed: bool = False
    after: tuple[AfterCommit, ...] = ()


@dataclass(frozen=True, slots=True)
class _Transaction:
    """A mutation's transaction, which may be tried several times; see `Executor.mutate`."""

    procedure: AnyProcedure
    input: BaseModel | None
    ctx: Context
    call: CallInfo | None
    inside: tuple[ChainPart, ...]
    idempotent: IdempotentCall | None
    after_commit: list[AfterCommit]
    dependencies: CallDependencies | None
    files: CallFiles | None


@dataclass(frozen=True, slots=True)
class _Run:
    """A function that is run once, with all that it gets beside a session."""

    procedure: Runnable
    input: object
    ctx: object
    dependencies: CallDependencies | None
    files: CallFiles | None = None

    def arguments(self, session: object) -> dict[str, Any]:
        """Return those of the function, without its dependencies."""
        given = self.procedure.handler.arguments(session, self.ctx, self.input)
        return given if self.files is None else given | self.files.arguments()


class Executor:
    """Runs handlers on one database.

    Args:
        database: where the sessions come from.
        log: tells what is captured now, and the version that a snapshot must show.
        strict: whether reading an undeclared table, or raising an undeclared error, is an error of its own
            (development) or a logged warning (production).
        isolation: of mutations that do not say themselves.
        clock: what handlers are told of the time by `now`, and what waits before one that was overtaken runs again.
        translate_error: turns an exception of a web framework, which a handler may raise beside `RPCError`, into one;
            returns None for any other.
        spell: gives the name on the wire of a declared error's field.

    Attributes:
        attempts: how mutations are tried again.
        raised: holds the errors that procedures raise against those that they declare.
    """

    def __init__(
        self,
        database: Database,
        log: Log,
        *,
        strict: bool,
        isolation: Isolation,
        clock: Clock,
        translate_error: Callable[[Exception], RPCError | None],
        spell: Callable[[str], str],
    ) -> None:
        self._isolation = isolation
        self._translate_error = translate_error
        self.attempts = Attempts(clock)
        self.raised = RaisedErrors(strict=strict, spell=spell)
        self._database = database
        self._log = log
        self._at_once: defaultdict[int, CapacityLimiter] = defaultdict(
            partial(CapacityLimiter, database.queries_at_once)
        )
        self._streamed_at_once = CapacityLimiter(max(1, database.queries_at_once // 2))
        self._strict = strict
        self._clock = clock
        self._warned: set[tuple[str, str]] = set()
        self._proved_first: dict[str, int] = {}
        self._observers: list[Observer] = []

    def observe(self, observer: Observer) -> Callable[[], None]:
        """Call `observer` after each run of a query, until the function that is returned is called."""
        self._observers.append(observer)
        return lambda: self._observers.remove(observer)

    def counters(self) -> dict[str, float]:
        """Return the counters of `/metrics` that are kept here: `{name: value}`."""
        return {"mutations_repeated": self.attempts.repeated}

    async def query(
        self,
        key: ResultKey,
        procedure: Runnable,
        input: object,
        ctx: object,
        *,
        dependencies: CallDependencies | None = None,
        depth: int = 0,
        clock: Clock | None = None,
        trace: Trace | None = None,
    ) -> HandlerOutcome:
        """Run a query on one snapshot and tell what it read, its `dependencies` included.

        For trials, `clock` is what `now` asks in the place of the executor's, and `trace` takes the statements.

        The handler gets copies of input and context, as it may change what it gets: the same call is computed again
        later, and here.

        Each running query has a connection, so only so many run at a time. A call inside a call would wait for ever for
        those outside, which wait for it; so the calls of each depth wait only for others of the same depth, and what
        those wait for is deeper.

        It runs again where a change of the schema has put a prepared statement out of date, and where its snapshot
        could not be proved, as its connection was lost for example. Nobody but itself has seen what it has read.

        Raises:
            InternalServerError: it wrote, read what it did not declare (in development), or its output is invalid.
            ServiceUnavailableError: the database is locked or gone.
            Exception: whatever the handler raised by accident.
        """
        run = partial(
            self._query,
            key,
            procedure,
            input,
            ctx,
            dependencies=dependencies,
            clock=clock or self._clock,
            trace=trace,
        )
        # A wrapper could take the error for the handler's, and have an answer of its own; and a trace would be of both.
        is_repeatable = trace is None and not procedure.around_computation and not self._is_proved_first(key[0])
        limiter = self._at_once[depth]
        await _take_turn(limiter)
        try:
            # Each connection of the pool may hold old plans; an attempt that meets one rids it of them.
            for _ in range(self._database.queries_at_once):
                try:
                    return await run(is_repeatable=is_repeatable)
                except SchemaMovedError:
                    continue
                except UnprovenError as exc:
                    is_repeatable = False
                    if exc.by_handler:
                        self._proved_first[key[0]] = PROVED_FIRST_CALLS
            return await run(is_repeatable=False)
        finally:
            limiter.release()

    def _is_proved_first(self, path: str) -> bool:
        """Tell whether a query is likely to end its transaction, or to have it failed, and count the call."""
        left = self._proved_first.get(path, 0)
        if left:
            self._proved_first[path] = left - 1
        return left > 0

    async def _query(
        self,
        key: ResultKey,
        procedure: Runnable,
        input: object,
        ctx: object,
        *,
        dependencies: CallDependencies | None,
        clock: Clock,
        trace: Trace | None,
        is_repeatable: bool,
    ) -> HandlerOutcome:
        recorder = Recorder(self._log.schema, trace=trace)
        topics = _topic_constraints(key[0], procedure, input)
        input, ctx = deepcopy(input), deepcopy(ctx)
        error: RPCError | None = None
        body = b""
        began_at = clock.time()
        token = current_recorder.set(recorder)
        with running(RunningCall(key[0], "query", key, clock=clock)) as call:
            try:
                with self.raised.checked(key[0], procedure.raises), self._translating_errors():
                    run = _Run(procedure, input, ctx, dependencies)
                    read: Callable[[], Awaitable[bytes]] = partial(
                        self._read, recorder, run, is_repeatable=is_repeatable
                    )
                    wrappers = procedure.around_computation
                    if wrappers:
                        read = partial(around, wrappers, CallInfo(key[0], "query", lambda: input), read)
                    body = await read()
            except (InternalServerError, SchemaMovedError, UnprovenError):
                raise
            except RPCError as exc:
                _refuse_hidden(procedure, exc)
                error = exc.detached()
            except Exception as exc:
                _refuse_hidden(procedure, exc)
                raise
            finally:
                current_recorder.reset(token)
        observed = recorder.read_set() | call.read_set
        for observe in self._observers:
            observe(Observation(key[0], procedure.dependencies, observed.tables, observed.opaque))
        read_set = self._declared(key[0], procedure, observed)
        read_set = replace(read_set, constraints=(*read_set.constraints, *topics))
        if not read_set.constraints and not recorder.saw_table and read_set.period == ALWAYS:
            read_set = replace(read_set, opaque=read_set.opaque or READS_NOTHING)
        read_set = _bounded(read_set, procedure.cache.ttl_seconds, began_at)
        # INVARIANT (what counts without having been read is of no snapshot): the handler may have asked for it before.
        is_whole = not call.inner and len(read_set.constraints) == len(observed.constraints)
        return HandlerOutcome(body, read_set, error, shows=recorder.shows, is_whole=is_whole)

    def known(self, change: Change, procedure: AnyProcedure) -> Change:
        """Return a change as the procedure's predicates may see it."""
        table = procedure.tables.get(change.table)
        return as_known(change, table, self._log.schema, self._database.dialect)

    async def mutate(
        self,
        path: str,
        procedure: AnyProcedure,
        input: BaseModel | None,
        ctx: Context,
        *,
        call: CallInfo | None = None,
        inside: Sequence[ChainPart] = (),
        idempotent: IdempotentCall | None = None,
        dependencies: CallDependencies | None = None,
        files: CallFiles | None = None,
    ) -> MutationOutput:
        """Run a mutation in one transaction and return its output as JSON, committed.

        Where another write came in between, the handler runs again, with the same input and a fresh session, and so do
        the steps; what they did outside of the database they then do again.

        Args:
            ctx: that the steps before `inside` have made.
            call: as steps and wrappers see it; None if there are none.
            inside: the rest of the chain, which runs in the transaction.
            idempotent: finds the answer of an earlier call with the same idempotency key, and stores this one's.
            dependencies: of the handler; None if it takes none.
            files: of the handler, rewound for each attempt; None if it takes none.

        Raises:
            ConflictError: another write came in between at each attempt.
            RPCError: the handler's answer, a step's, or the database's; nothing was written.
            Exception: whatever the handler raised by accident; nothing was written.
        """
        refuse_nested_mutation(path)
        with running(RunningCall(path, "mutation", clock=self._clock)) as running_call, self._translating_errors():
            transaction = _Transaction(
                procedure, input, ctx, call, tuple(inside), idempotent, running_call.after_commit, dependencies, files
            )
            run: Callable[[], Awaitable[MutationOutput]] = partial(self._mutate, transaction)
            if procedure.around_computation and call is not None:
                run = partial(around, procedure.around_computation, call.without_origin(), run)
            return await self.attempts.run(path, run, at_most=procedure.options.attempts)

    async def stream(
        self,
        path: str,
        procedure: AnyProcedure,
        input: BaseModel | None,
        *,
        ctx: Context | None,
        emit: Emit,
        dependencies: CallDependencies | None = None,
        depth: int = 0,
    ) -> None:
        """Run a handler that yields, and give each value to `emit`, which may wait for whoever takes it.

        The values of a query are those of one snapshot, whose connection is held until the end; so only half of the
        queries that may run at once may be such. A cancelled caller ends the handler where it stands.

        Raises:
            InternalServerError: a value is not as the procedure's annotation says.
            ServiceUnavailableError: the database is locked or gone; or too many of them run for too long.
            Exception: whatever the handler or `emit` raised.
        """
        run = StreamedRun(procedure, deepcopy(input), deepcopy(ctx), dependencies)
        if procedure.kind == "subscription":
            await run.emit_all(None, emit, self._translating_errors)
            return
        recorder = Recorder(self._log.schema)
        async with AsyncExitStack() as stack:
            try:
                async with asyncio.timeout(STREAMED_WAIT_SECONDS):
                    await stack.enter_async_context(self._streamed_at_once)
            except TimeoutError:
                raise ServiceUnavailableError(
                    "as many queries that yield run as may, and each holds a connection: try again later", path=path
                ) from None
            await stack.enter_async_context(self._at_once[depth])
            # What it calls is read for nobody who could be told of a change, and may be called without end.
            call = RunningCall(path, "query", clock=self._clock, inner=deque(maxlen=0))
            stack.enter_context(running(call))
            token = current_recorder.set(recorder)
            stack.callback(current_recorder.reset, token)

            async def emit_all(session: AsyncSession) -> Callable[[], None]:
                await run.emit_all(session, emit, self._translating_errors)
                return _nothing

            at_least = self._log.version
            await self._database.read(recorder, emit_all, at_least=at_least, **_asked(procedure))

    async def _mutate(self, transaction: _Transaction) -> MutationOutput:
        procedure, call = transaction.procedure, transaction.call
        transaction.after_commit.clear()
        if not procedure.handler.is_async:
            return await in_own_thread(partial(self._mutate_sync, transaction))
        handle = partial(_run_transaction, transaction, ctx=transaction.ctx)
        if transaction.inside and call is not None:
            handle = partial(self._walk, transaction, call)
        return await self._database.write(handle, **self._writing(procedure))

    async def _walk(
        self, transaction: _Transaction, call: CallInfo, session: AsyncSession
    ) -> Callable[[], MutationOutput]:
        """Run the steps that stand in the transaction, and the handler after them."""

        async def step(step: Step, ctx: Context) -> Context:
            with error_boundary(step.name):
                return valid_at(self._clock.time(), await step.run_in(session, ctx, call))

        async def last(ctx: Context) -> Outcome:
            output = await greenlet_spawn(await _run_transaction(transaction, session, ctx=ctx))
            return Outcome("cache" if output.replayed else "handler", None, output)

        outcome = await walk(transaction.inside, transaction.ctx, call, step=step, last=last)
        output: MutationOutput = outcome.value
        return lambda: output

    @contextmanager
    def _translating_errors(self) -> Iterator[None]:
        """Turn what a handler may raise beside `RPCError` into one: a refusal then is an outcome like any other."""
        try:
            yield
        except Exception as exc:
            translated = self._translate_error(exc)
            if translated is None:
                raise
            raise translated from exc

    async def _read(self, recorder: Recorder, run: _Run, *, is_repeatable: bool) -> bytes:
        asked = _asked(run.procedure) | {"at_least": self._log.version, "is_repeatable": is_repeatable}
        if not run.procedure.handler.is_async:
            return await in_own_thread(partial(self._query_sync, recorder, run, asked))
        return await self._database.read(recorder, partial(_run_async, run), **asked)

    def _query_sync(self, recorder: Recorder, run: _Run, asked: dict[str, Any]) -> bytes:
        with self._database.read_sync(recorder, **asked) as session:
            return _run_sync(run, session)

    def _mutate_sync(self, transaction: _Transaction) -> MutationOutput:
        procedure, idempotent, ctx = transaction.procedure, transaction.idempotent, transaction.ctx
        with self._database.write_sync(**self._writing(procedure)) as session:
            for part in transaction.inside:
                if isinstance(part, Step) and transaction.call is not None:  # a definition lets no other part in here
                    with error_boundary(part.name):
                        ctx = valid_at(self._clock.time(), part.run_sync_in(session, ctx, transaction.call))
            # INVARIANT (the steps have run): an answer that is given again passes every guard once more.
            found = None if idempotent is None else idempotent.stored_answer(session)
            if found is not None:
                return MutationOutput(found, replayed=True)
            run = _Run(procedure, deepcopy(transaction.input), ctx, transaction.dependencies, transaction.files)
            body = _run_sync(run, session)
            if idempotent is not None:
                idempotent.store_answer(session, body)
            return MutationOutput(body, after=tuple(transaction.after_commit))

    def _writing(self, procedure: AnyProcedure) -> dict[str, Any]:
        """Return which session and which transaction a mutation asks for, as arguments of the database's."""
        return {**_asked(procedure), "isolation": procedure.options.isolation or self._isolation}

    def _declared(self, path: str, procedure: Runnable, read_set: ReadSet) -> ReadSet:
        """Hold what was read against what is declared; a declared table that was not read counts as read whole."""
        if procedure.dependencies is None:
            return read_set
        for table in sorted(read_set.tables - procedure.dependencies - procedure.topic_tables):
            self._undeclared(path, table, procedure.dependencies)
        unread = sorted(procedure.dependencies - read_set.tables)
        return replace(read_set, constraints=(*read_set.constraints, *map(Constraint, unread)))

    def _undeclared(self, path: str, table: str, declared: frozenset[str]) -> None:
        message = (
            f"{path} reads {table!r}, which is not among its dependencies ({', '.join(sorted(declared)) or 'none'}): "
            "add it, or leave dependencies out to have them observed"
        )
        if self._strict:
            raise InternalServerError(message, path=path)
        if (path, table) not in self._warned:
            self._warned.add((path, table))
            logger.warning("%s; the dependency is widened", message)


def _refuse_hidden(procedure: Runnable, error: Exception) -> None:
    """Say it where a query came to `error` as it asked for what it cannot see: its result is shared.

    Raises:
        DefinitionError: it did; the message says for what, and the way out.
    """
    hidden = hidden_read(error) if procedure.is_cached else None
    if hidden is not None:
        raise procedure.fault(
            f"the query reads {hidden}, which is not set where queries run: others are given its result too, by its "
            "input and context alone, so it sees nothing that was set for one caller. Put the value into the context "
            f"(ReactiveRPC(context=...)), and let {procedure.name} take that; or say cache=False, and it is run where "
            "it is called, for its caller alone"
        ) from error


def _asked(procedure: Runnable) -> dict[str, Any]:
    """Return which class of session the handler asks for, as an argument of the database's."""
    session = procedure.session_class
    return {} if session is None else {"session_class": session}


def _bounded(read_set: ReadSet, ttl_seconds: float | None, began_at: float) -> ReadSet:
    """Return a read set that ends with the author's time to live, which stands for what nothing else tells of."""
    if ttl_seconds is None:
        return read_set
    period = Period(began_at, began_at + ttl_seconds, is_exact=False)
    return replace(read_set, opaque=None, period=read_set.period & period)


def _topic_constraints(path: str, procedure: Runnable, input: object) -> list[Constraint]:
    return [
        constraint_on(ref.table, None) if isinstance(ref, Topic) else ref.constraint(path, input)
        for ref in procedure.topics
    ]


async def _run_transaction(
    transaction: _Transaction, session: AsyncSession, *, ctx: Context
) -> Callable[[], MutationOutput]:
    """Run the handler, or find the answer of an earlier call with the same idempotency key."""
    idempotent = transaction.idempotent
    # INVARIANT (the steps have run): an answer that is given again passes every guard once more.
    found = None if idempotent is None else await session.run_sync(idempotent.stored_answer)
    if found is not None:
        replayed = MutationOutput(found, replayed=True)
        return lambda: replayed
    run = _Run(transaction.procedure, deepcopy(transaction.input), ctx, transaction.dependencies, transaction.files)
    end = await _run_async(run, session)

    def finish() -> MutationOutput:
        body = end()
        if idempotent is not None:
            idempotent.store_answer(session.sync_session, body)
        return MutationOutput(body, after=tuple(transaction.after_commit))

    return finish


async def _run_async(run: _Run, session: AsyncSession) -> Callable[[], bytes]:
    """Run the function, and return its end: what is left to do in a greenlet."""
    name, dependencies = run.procedure.name, run.dependencies
    if dependencies is None:
        with error_boundary(name):
            result = await run.procedure.function(**run.arguments(session))
        return partial(_encoded, run, session, result)
    body: bytes | None = None
    with error_boundary(name):
        async with dependencies.solved(session) as made:
            result = await run.procedure.function(**run.arguments(session), **made)
            body = await greenlet_spawn(_encoded, run, session, result)
    return partial(_flushed, run, session, body)


def _encoded(run: _Run, session: AsyncSession, result: object) -> bytes:
    """Return the result as JSON, in a greenlet: to encode it may load what it has not loaded yet."""
    with error_boundary(run.procedure.name):
        in_greenlet(session, "flush")
        body = encode_output(run.procedure, _beside_response(run, result))
        # INVARIANT (before the caller commits or stores): what encoding has changed is part of it, or refused.
        in_greenlet(session, "flush")
    return body


def _flushed(run: _Run, session: AsyncSession, body: bytes | None) -> bytes:
    """Return the body once what `yield` dependencies wrote at their end is written; in a greenlet."""
    with error_boundary(run.procedure.name):
        # INVARIANT (before the caller commits or stores): what `yield` dependencies wrote at their end is part of it.
        in_greenlet(session, "flush")
    return _of_ended(run.procedure, body)


def _run_sync(run: _Run, session: Session) -> bytes:
    procedure, dependencies = run.procedure, run.dependencies
    body: bytes | None = None
    with error_boundary(procedure.name):
        with NOTHING_MADE if dependencies is None else dependencies.solved_sync(session) as made:
            result = procedure.function(**run.arguments(session), **made)
            session.flush()
            body = encode_output(procedure, _beside_response(run, result))
        session.flush()
    return _of_ended(procedure, body)


def _beside_response(run: _Run, result: object) -> object:
    """Return the result that is written as JSON: none, if the handler returns a response, which the exchange takes.

    Raises:
        InternalServerError: it does not return what it is annotated with.
    """
    expected = run.procedure.response_class
    if expected is None or run.dependencies is None or run.dependencies.exchange is None:
        return result
    if not isinstance(result, expected):
        raise InternalServerError(f"{run.procedure.name} returned what its annotation does not allow")
    run.dependencies.exchange.returned = result
    return None


def _of_ended(procedure: Runnable, body: bytes | None) -> bytes:
    """Return the body of a handler that has returned.

    Raises:
        InternalServerError: it has not: a `yield` dependency has kept its error back.
    """
    if body is None:
        raise InternalServerError(
            f"{procedure.name} raised, and a dependency with yield has kept it back: raise it again there, as there is "
            "no result that could be answered"
        )
    return body


async def _take_turn(limiter: CapacityLimiter) -> None:
    """Take a turn: at once if one is free, while `acquire` would let the event loop go round first."""
    try:
        limiter.acquire_nowait()
    except WouldBlock:
        await limiter.acquire()


def _nothing() -> None:
    return
