"""Hold declarations against what really happens.

A declaration can drift from the handler it stands on: it names a table that is no longer read, a read was added that it
does not name, or an `invalidate_when` ignores a change that matters after all. None of the first two is ever stale (see
`procedures/execution.py`: both widen), but each costs; the third is stale, and no analysis can find it, so it is tried:
after a predicate has ignored a change, the query is computed again and compared (`cache/auditor.py`).

`reactive-rpc check` runs the calls it is given; the fixture of `pytest_plugin.py` watches those of a test.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Literal

from reactive_rpc.app import ReactiveRPC
from reactive_rpc.cache.auditor import WAYS_OUT
from reactive_rpc.errors import RPCError
from reactive_rpc.procedures.execution import Observation
from reactive_rpc.procedures.procedure import AnyProcedure
from reactive_rpc.protocol.codes import CODES

__all__ = ["Checker", "Drift", "TriedQuery", "sees_context", "try_calls", "wanting_of"]

KnownInputs = Mapping[str, Sequence[Mapping[str, Any]]]
"""`{path: inputs}`."""


@dataclass(frozen=True, slots=True)
class Drift:
    """One declaration that does not hold.

    Attributes:
        path: of the procedure.
        kind: `undeclared` (read and not declared), `unread` (declared, and no observed call read it), `predicate` (an
            `invalidate_when` called a change harmless that altered the result), or `clock` (the query asks Python's
            clock, or chance, of which nothing tells).
        table: which the declaration names, or should; of `clock`, what moves.
    """

    path: str
    kind: Literal["undeclared", "unread", "predicate", "clock"]
    table: str

    def __str__(self) -> str:
        said = {
            "undeclared": f"reads {self.table!r}, which is not among its dependencies: add it, or declare none",
            "unread": f"declares {self.table!r} and never read it: drop it, or call it so that it does",
            "predicate": f"invalidate_when[{self.table!r}] ignored a change that altered the result: widen it",
            "clock": f"asks Python's clock, or chance, and is cached: {self.table} moves by itself. {WAYS_OUT}",
        }
        return f"{self.path} {said[self.kind]}"


@dataclass(frozen=True, slots=True)
class TriedQuery:
    """What became of one query, for `doctor`.

    Attributes:
        calls: how many ran.
        wanting: its needs, before it can be tried at all; None if it was tried.
        uncacheable: why a result could not be cached; None where all could.
        error: with which a call was answered; None if none was.
        moved: what it asks of Python's clock, where that was tried.
    """

    calls: int = 0
    wanting: str | None = None
    uncacheable: str | None = None
    error: str | None = None
    moved: tuple[str, ...] = ()


class Checker:
    """Watches the queries that an application runs, from its making on.

    Args:
        rpc: open or not; with `audit_share=1.0` in its settings every ignored change is tried.
    """

    def __init__(self, rpc: ReactiveRPC) -> None:
        self._rpc = rpc
        self._read: defaultdict[str, set[str]] = defaultdict(set)
        self._declared: dict[str, frozenset[str]] = {}
        rpc.admin.observe(self._note)

    async def settle(self) -> None:
        """Wait until every change that a predicate has ignored so far has been tried."""
        await self._rpc.admin.auditor.drain()

    def drifts(self) -> tuple[Drift, ...]:
        """Return the findings so far, by path."""
        return tuple(
            sorted({*self._declarations(), *self._wrong_predicates()}, key=lambda drift: (drift.path, drift.kind))
        )

    def _note(self, observation: Observation) -> None:
        if observation.declared is not None:
            self._declared[observation.path] = observation.declared
            self._read[observation.path] |= observation.read

    def _declarations(self) -> Iterator[Drift]:
        for path, declared in self._declared.items():
            for table in self._read[path] - declared:
                yield Drift(path, "undeclared", table)
            for table in declared - self._read[path]:
                yield Drift(path, "unread", table)

    def _wrong_predicates(self) -> Iterator[Drift]:
        for finding in self._rpc.admin.auditor.findings:
            if finding.kind != "stale":
                yield Drift(finding.path, finding.kind, finding.table)


async def try_calls(
    rpc: ReactiveRPC, calls: KnownInputs, contexts: Mapping[str, object], *, moves_clock: bool = False
) -> dict[str, TriedQuery]:
    """Run every query on the inputs that are known for it and return `{path: outcome}`; mutations are left alone.

    A query that sees its caller is run for each of `contexts`. Where several are given, some may be refused: that is an
    error only where all are.

    Args:
        rpc: open.
        calls: inputs beside those of `Procedure.known_inputs`.
        contexts: `{role: on whose behalf}`.
        moves_clock: whether to try what cached queries ask of Python's clock: see `procedures/clock_dependence.py`.

    Raises:
        DefinitionError: `calls` names something that is no query.
    """
    tried = {path for path, each in rpc.functions.items() if each.kind == "query" and not each.is_streamed}
    unknown = calls.keys() - tried
    if unknown:
        raise rpc.functions.find(min(unknown)).fault("is no query with one result: only such are tried")
    outcomes = {}
    for path, procedure in rpc.functions.items():
        if path in tried:
            inputs = [*procedure.known_inputs, *calls.get(path, ())]
            wanting = wanting_of(procedure, inputs, contexts)
            if wanting is not None:
                outcomes[path] = TriedQuery(wanting=wanting)
                continue
            outcomes[path] = await _try_query(rpc, path, inputs, contexts, moves_clock=moves_clock)
    return outcomes


def wanting_of(
    procedure: AnyProcedure, inputs: Sequence[Mapping[str, Any]], contexts: Mapping[str, object]
) -> str | None:
    """Return the need of a query before it can be run; None if it can."""
    if sees_context(procedure) and not contexts:
        return "a context (--context)"
    return None if inputs else "an input (examples=, or --calls)"


def sees_context(procedure: AnyProcedure) -> bool:
    """Tell whether a procedure is called on behalf of somebody."""
    return procedure.asks_who_calls and not procedure.options.public


async def _try_query(
    rpc: ReactiveRPC,
    path: str,
    inputs: Sequence[Mapping[str, Any]],
    contexts: Mapping[str, object],
    *,
    moves_clock: bool,
) -> TriedQuery:
    callers = contexts if sees_context(rpc.functions[path]) else dict(list(contexts.items())[:1])
    tried: list[tuple[str, Exception | None]] = []
    moved: dict[str, None] = {}
    async with _observed(rpc, path) as observations:
        for role, ctx in (callers or {"": None}).items():
            for input in inputs:
                tried.append((role, await _try_call(rpc, path, input, ctx)))
                if moves_clock and tried[-1][1] is None:
                    moved |= dict.fromkeys(await rpc.admin.try_clock(path, input, ctx))
    opaque = next((each.opaque for each in observations if each.opaque is not None), None)
    return TriedQuery(len(tried), None, opaque, _error_of(tried, are_several=len(callers) > 1), tuple(moved))


async def _try_call(rpc: ReactiveRPC, path: str, input: Mapping[str, Any], ctx: object) -> Exception | None:
    """Return the exception that a call raised."""
    try:
        await rpc.admin.try_call(path, input, ctx)
    except Exception as exc:  # a handler's own fault is what is looked for
        return exc
    return None


def _error_of(tried: Sequence[tuple[str, Exception | None]], *, are_several: bool) -> str | None:
    """Return the last fault; where one of several callers was answered, others may have been refused."""
    errors = [(role, error) for role, error in tried if error is not None]
    if are_several and len(errors) < len(tried):
        errors = [(role, error) for role, error in errors if not _is_refusal(error)]
    if not errors:
        return None
    role, error = errors[-1]
    said = f"{error.code}: {error.message}" if isinstance(error, RPCError) else f"{type(error).__name__}: {error}"
    return f"{said} (as {role})" if are_several else said


def _is_refusal(error: Exception) -> bool:
    """Tell whether an error is a handler's own answer to that caller."""
    code = CODES.get(error.code) if isinstance(error, RPCError) else None
    return code is not None and code.http < HTTPStatus.INTERNAL_SERVER_ERROR


@asynccontextmanager
async def _observed(rpc: ReactiveRPC, path: str) -> AsyncIterator[list[Observation]]:
    found: list[Observation] = []

    def note(observation: Observation) -> None:
        if observation.path == path:
            found.append(observation)

    stop = rpc.admin.observe(note)
    try:
        yield found
    finally:
        stop()
