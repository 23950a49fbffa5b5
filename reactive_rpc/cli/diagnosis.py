"""`reactive-rpc doctor` and `check`: what stands, what can be cached, and which declarations do not hold."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from reactive_rpc.app import ReactiveRPC
from reactive_rpc.changes.captured_schema import TableCapture
from reactive_rpc.checking import Checker, Drift, TriedQuery, try_calls
from reactive_rpc.cli.reports import CheckReport, Diagnosis, PerCallLine, ProcedureLine, TableLine, write
from reactive_rpc.cli.shared import FormatOption, Rpc, failure, load
from reactive_rpc.errors import ReactiveRPCError
from reactive_rpc.procedures.procedure import AnyProcedure
from reactive_rpc.report import Report

__all__ = ["check", "contexts_of", "doctor"]

CallsFile = Annotated[
    Path | None,
    typer.Option("--calls", help='Inputs to try, as JSON: {"agents.get": [{"agent_id": "a1"}]}. Beside examples=.'),
]
Contexts = Annotated[
    list[str] | None,
    typer.Option(
        "--context",
        help="A context to call with: module:object, a function that makes it, or a dict of several by role; "
        "role=module:object names one. May be given more than once.",
    ),
]
WatchOption = Annotated[
    float,
    typer.Option(
        "--watch", min=0.0, help="Then follow the database for so many seconds and try every invalidate_when."
    ),
]
AllowUntried = Annotated[
    bool, typer.Option("--allow-untried", help="Exit with 0 also where queries could not be tried.")
]


def doctor(rpc: Rpc, calls: CallsFile = None, context: Contexts = None, format: FormatOption = "text") -> None:
    """Open the database as the server would and tell what is captured, what can be cached, and why not.

    Queries that need no input, or have examples, are run once for each context.
    """
    report, outcomes = asyncio.run(_inspect(load(rpc, ReactiveRPC), _calls(calls), contexts_of(context or ())))
    write(_diagnosis(report, outcomes), format)


def check(
    rpc: Rpc,
    calls: CallsFile = None,
    context: Contexts = None,
    watch: WatchOption = 0.0,
    allow_untried: AllowUntried = False,
    format: FormatOption = "text",
) -> None:
    """Run queries and tell which declarations do not hold; exit with 1 where one does not, or was not tried.

    Run are those that need no input, have examples, or stand in the file of calls, once for each context. Mutations are
    never run.
    """
    contexts = contexts_of(context or ())
    drifts, outcomes = asyncio.run(_check(load(rpc, ReactiveRPC), _calls(calls), contexts, watch))
    untried = {path: outcome.wanting for path, outcome in outcomes.items() if outcome.wanting is not None}
    report = CheckReport(
        tried=len(outcomes) - len(untried),
        drifts=[str(drift) for drift in drifts],
        errors={path: outcome.error for path, outcome in outcomes.items() if outcome.error is not None},
        untried=untried,
        allow_untried=allow_untried,
    )
    write(report, format)


async def _inspect(
    rpc: ReactiveRPC, calls: dict[str, Any], contexts: Mapping[str, object]
) -> tuple[Report, dict[str, TriedQuery]]:
    await rpc.admin.open()
    try:
        return rpc.admin.report(), await try_calls(rpc, calls, contexts)
    finally:
        await rpc.admin.aclose()


async def _check(
    rpc: ReactiveRPC, calls: dict[str, Any], contexts: Mapping[str, object], watch: float
) -> tuple[tuple[Drift, ...], dict[str, TriedQuery]]:
    rpc.admin.auditor.share = 1.0
    checker = Checker(rpc)
    await rpc.admin.open()
    try:
        outcomes = await try_calls(rpc, calls, contexts, moves_clock=True)
        await asyncio.sleep(watch)
        await checker.settle()
        clocks = {Drift(path, "clock", what) for path, outcome in outcomes.items() for what in outcome.moved}
        return tuple(sorted({*checker.drifts(), *clocks}, key=str)), outcomes
    finally:
        await rpc.admin.aclose()


def _calls(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        calls = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as exc:
        raise failure(f"{path}: {exc}") from exc
    if not isinstance(calls, dict) or not all(
        isinstance(inputs, list) and all(isinstance(input, dict) for input in inputs) for inputs in calls.values()
    ):
        raise failure(f'{path}: write {{"group.name": [{{"field": "value"}}]}}')
    return calls


def contexts_of(references: Sequence[str]) -> dict[str, object]:
    """Return `{role: context}` of what `--context` names; without a name of its own, a context's role is its reference.

    Raises:
        typer.Exit: one is not there, or two have one role; what is wrong has been printed.
    """
    found: dict[str, object] = {}
    for reference in references:
        role, is_named, place = reference.partition("=")
        made = _made(place if is_named else reference)
        several = made if isinstance(made, dict) and not is_named else {role: made}
        for name, context in several.items():
            if name in found:
                raise failure(f"--context: two contexts are called {name!r}: name one of them, as in other={place}")
            found[str(name)] = context
    return found


def _made(reference: str) -> object:
    found = load(reference)
    try:
        return found() if callable(found) else found
    except (ReactiveRPCError, TypeError) as exc:
        raise failure(f"{reference}: {exc}") from exc


def _diagnosis(report: Report, outcomes: dict[str, TriedQuery]) -> Diagnosis:
    return Diagnosis(
        database=report.database,
        epoch=report.epoch,
        capture=report.guarantee,
        copies=report.copies,
        tables=[_table_line(table, report) for _, table in sorted(report.tables.items())],
        procedures=[
            _procedure_line(path, procedure, report, outcomes) for path, procedure in report.procedures.items()
        ],
        solved_per_call=[
            PerCallLine(dependency=each.dependency, finds_context=each.is_context, procedures=each.paths)
            for each in report.undeclared_reads
        ],
    )


def _table_line(table: TableCapture, report: Report) -> TableLine:
    exact = [column for column, kind in table.kinds.items() if kind is not None]
    return TableLine(
        name=table.name,
        captured=table.captured,
        reason=table.reason,
        compared_exactly=exact,
        copied=table.image if report.copies and table.captured else (),
        withheld=sorted(table.withheld),
        read=table.name in report.read,
    )


def _procedure_line(
    path: str, procedure: AnyProcedure, report: Report, outcomes: dict[str, TriedQuery]
) -> ProcedureLine:
    if procedure.kind != "query" or procedure.is_streamed:
        return ProcedureLine(path=path, kind="streamed query" if procedure.kind == "query" else procedure.kind)
    declared = procedure.dependencies
    cached, why = _cached(procedure, report, outcomes[path])
    return ProcedureLine(
        path=path,
        kind="query",
        dependencies=None if declared is None else sorted(declared),
        shared_by=_sharers(procedure),
        cached=cached,
        why=why,
    )


def _sharers(procedure: AnyProcedure) -> str:
    """Return who shares a result: whoever has an equal context of the class that the handler takes."""
    if procedure.options.public:
        return "everybody"
    context = procedure.handler.context
    return "everybody let in" if context is None else f"equal {context.__name__}"


def _cached(procedure: AnyProcedure, report: Report, outcome: TriedQuery) -> tuple[bool | None, str]:
    """Return whether results are cached, None where it is not known, and why not."""
    if not procedure.is_cached:
        return False, "cache=False"
    declared = sorted(procedure.dependencies or ())
    uncaptured = [name for name in declared if name in report.tables and not report.tables[name].captured]
    if uncaptured:
        return False, f"{', '.join(uncaptured)} is not captured"
    if outcome.uncacheable is not None and procedure.cache.ttl_seconds is None:
        return False, f"it {outcome.uncacheable}"
    if outcome.error is not None:
        return None, f"not known, it answered {outcome.error}"
    return (True, "") if outcome.wanting is None else (None, f"not tried: it needs {outcome.wanting}")
