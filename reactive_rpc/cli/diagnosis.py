"""`reactive-rpc doctor` and `check`: what stands, what can be cached, and which declarations do not hold."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from reactive_rpc.app import ReactiveRPC, Report
from reactive_rpc.checking import Checker, Drift, Outcome, try_calls
from reactive_rpc.cli.shared import Rpc, failure, load, out
from reactive_rpc.errors import ReactiveRPCError
from reactive_rpc.rpc.procedure import Procedure

__all__ = ["check", "doctor"]

CallsFile = Annotated[
    Path | None,
    typer.Option("--calls", help='Inputs to try, as JSON: {"agents.get": [{"agent_id": "a1"}]}. Beside examples=.'),
]
Ctx = Annotated[
    str | None, typer.Option("--context", help="The context to call with: module:object, or a function that makes it.")
]
Watch = Annotated[
    float, typer.Option("--watch", min=0.0, help="Then follow the database for so many seconds and try every veto.")
]


def doctor(rpc: Rpc, calls: CallsFile = None, context: Ctx = None) -> None:
    """Open the database as the server would and tell what is captured, what can be cached, and why not.

    Queries that need no input, or have examples, are run once.
    """
    report, outcomes = asyncio.run(_inspect(load(rpc, ReactiveRPC), _calls(calls), _context(context)))
    out.print(
        f"database  {report.database}\nepoch     {report.epoch}\ncapture   {report.guarantee}",
        markup=False,
        soft_wrap=True,
    )
    out.print(_tables(report))
    out.print(_procedures(report, outcomes))
    if any(not table.captured for table in report.tables.values()):
        raise typer.Exit(1)


def check(rpc: Rpc, calls: CallsFile = None, context: Ctx = None, watch: Watch = 0.0) -> None:
    """Run queries and tell which declarations do not hold; exit with 1 where one does not.

    Run are those that need no input, have examples, or stand in the file of calls. Mutations are never run.
    """
    drifts, outcomes = asyncio.run(_check(load(rpc, ReactiveRPC), _calls(calls), _context(context), watch))
    for drift in drifts:
        out.print(f"[bold red]drift[/] {escape(str(drift))}", highlight=False, soft_wrap=True)
    failed = {path: outcome.error for path, outcome in outcomes.items() if outcome.error is not None}
    for path, error in failed.items():
        out.print(f"[bold red]error[/] {path}: {escape(error)}", highlight=False, soft_wrap=True)
    untried = {path: outcome.wanting for path, outcome in outcomes.items() if outcome.wanting is not None}
    for path, wanting in untried.items():
        out.print(f"not tried {path}: it needs {wanting}", highlight=False, soft_wrap=True)
    if drifts or failed:
        raise typer.Exit(1)
    out.print(f"{len(outcomes) - len(untried)} queries were tried; every declaration holds")


async def _inspect(rpc: ReactiveRPC, calls: dict[str, Any], ctx: object) -> tuple[Report, dict[str, Outcome]]:
    await rpc.open()
    try:
        return rpc.report(), await try_calls(rpc, calls, ctx)
    finally:
        await rpc.aclose()


async def _check(
    rpc: ReactiveRPC, calls: dict[str, Any], ctx: object, watch: float
) -> tuple[tuple[Drift, ...], dict[str, Outcome]]:
    rpc.auditor.share = 1.0
    checker = Checker(rpc)
    await rpc.open()
    try:
        outcomes = await try_calls(rpc, calls, ctx)
        await asyncio.sleep(watch)
        await checker.settle()
        return checker.drifts(), outcomes
    finally:
        await rpc.aclose()


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


def _context(reference: str | None) -> object:
    if reference is None:
        return None
    found = load(reference)
    try:
        return found() if callable(found) else found
    except (ReactiveRPCError, TypeError) as exc:
        raise failure(f"{reference}: {exc}") from exc


def _tables(report: Report) -> Table:
    table = Table("table", "captured", "compared exactly", title="Tables", title_justify="left")
    for name, capture in sorted(report.tables.items()):
        exact = ", ".join(column for column, kind in capture.kinds.items() if kind is not None)
        table.add_row(name, "yes" if capture.captured else escape(f"no: {capture.reason}"), exact or "nothing")
    return table


def _procedures(report: Report, outcomes: dict[str, Outcome]) -> Table:
    table = Table("procedure", "kind", "dependencies", "shared by", "cached", title="Procedures", title_justify="left")
    for path, procedure in report.procedures.items():
        if procedure.kind == "mutation":
            table.add_row(path, "mutation", "", "", "never")
            continue
        dependencies = procedure.dependencies
        declared = "observed" if dependencies is None else ", ".join(sorted(dependencies)) or "none"
        table.add_row(path, "query", declared, _sharers(procedure), escape(_cached(procedure, report, outcomes[path])))
    return table


def _sharers(procedure: Procedure[..., Any]) -> str:
    if procedure.scope == "identity" and not procedure.handler.takes_context:
        return "everybody let in"
    return "a function of ctx" if callable(procedure.scope) else procedure.scope


def _cached(procedure: Procedure[..., Any], report: Report, outcome: Outcome) -> str:
    if not procedure.is_cached:
        return "no: cache=False"
    declared = sorted(procedure.dependencies or ())
    uncaptured = [name for name in declared if name in report.tables and not report.tables[name].captured]
    if uncaptured:
        return f"no: {', '.join(uncaptured)} is not captured"
    if outcome.uncacheable is not None:
        return f"no: it {outcome.uncacheable}"
    if outcome.error is not None:
        return f"not known, it answered {outcome.error}"
    return "yes" if outcome.wanting is None else f"not tried: it needs {outcome.wanting}"
