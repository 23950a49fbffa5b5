"""Explain the reads of queries: which are narrow and by what, which are wide and why, and what would narrow them.

Each query is computed once for each input and context, and the analysis that makes its read set says how
(`statements/explanation.py`). So an explanation holds of these inputs: a handler may run other statements for others.
`reactive-rpc explain` prints it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reactive_rpc.app import ReactiveRPC
from reactive_rpc.checking import sees_context, wanting_of
from reactive_rpc.procedures.procedure import AnyProcedure
from reactive_rpc.statements.explanation import ExplainedRead, TracedStatement
from reactive_rpc.statements.recorder import Trace

__all__ = ["ExplainedQuery", "ExplainedStatement", "explain_queries"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainedStatement:
    """A statement that a query ran.

    Attributes:
        text: as the driver got it.
        times: how often it ran.
        reads: of all its runs, none twice.
        opaque: why its reads cannot be told; None if they can.
    """

    text: str
    times: int
    reads: tuple[ExplainedRead, ...]
    opaque: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainedQuery:
    """One run of a query.

    Attributes:
        path: of the procedure.
        context: the role on whose behalf it ran; empty for nobody.
        input: as a client gives it; None if it was not run.
        statements: in the order in which they first ran.
        opaque: why the result is not cached; None if it is.
        error: with which it answered; None if with a result.
        needs: what it needs before it can be run; None if it was run.
    """

    path: str
    context: str = ""
    input: Mapping[str, Any] | None = None
    statements: tuple[ExplainedStatement, ...] = ()
    opaque: str | None = None
    error: str | None = None
    needs: str | None = None


async def explain_queries(
    rpc: ReactiveRPC,
    queries: Mapping[str, AnyProcedure],
    *,
    inputs: Sequence[Mapping[str, Any]],
    contexts: Mapping[str, object],
) -> AsyncIterator[ExplainedQuery]:
    """Run queries and yield an explanation for each, each of its inputs and each context.

    Args:
        rpc: open.
        queries: `{path: query}`.
        inputs: of each; without any, those of `Procedure.known_inputs`.
        contexts: `{role: on whose behalf}`; who sees no caller is run once.
    """
    for path, query in queries.items():
        given = inputs or query.known_inputs
        needs = wanting_of(query, given, contexts)
        if needs is not None:
            yield ExplainedQuery(path=path, needs=needs)
            continue
        callers = contexts if sees_context(query) else {"": next(iter(contexts.values()), None)}
        for role, context in callers.items():
            for input in given:
                yield await _explained(rpc, path, role=role, input=input, context=context)


async def _explained(
    rpc: ReactiveRPC, path: str, *, role: str, input: Mapping[str, Any], context: object
) -> ExplainedQuery:
    try:
        outcome, trace = await rpc.admin.trace_query(path, input, ctx=context)
    except Exception as exc:  # whatever the handler raises stands in the explanation
        return ExplainedQuery(path=path, context=role, input=input, error=f"{type(exc).__name__}: {exc}")
    return ExplainedQuery(
        path=path,
        context=role,
        input=input,
        statements=_together(trace),
        opaque=outcome.read_set.opaque,
        error=None if outcome.error is None else f"{outcome.error.code}: {outcome.error.message}",
    )


def _together(trace: Trace) -> tuple[ExplainedStatement, ...]:
    """Return each statement once, with the reads of all its runs."""
    runs: dict[str, list[TracedStatement]] = {}
    for each in trace:
        runs.setdefault(each.text, []).append(each)
    return tuple(
        ExplainedStatement(
            text=text,
            times=len(found),
            reads=tuple(dict.fromkeys(read for run in found for read in run.reads)),
            opaque=next((run.opaque for run in found if run.opaque is not None), None),
        )
        for text, found in runs.items()
    )
