"""`reactive-rpc db`: put capture into a database, look whether it stands, take it out again."""

from __future__ import annotations

import re
from typing import Annotated, cast

import typer

from reactive_rpc.app import ReactiveRPC
from reactive_rpc.backends.factory import Backend, make_backend
from reactive_rpc.changes.captured_schema import CaptureState
from reactive_rpc.cli.reports import CaptureReport, write
from reactive_rpc.cli.shared import FormatOption, err, load, out
from reactive_rpc.clock import RandomIds
from reactive_rpc.errors import CaptureError
from reactive_rpc.settings import Settings

__all__ = ["database"]

database = typer.Typer(no_args_is_help=True, help="Put capture into a database, look whether it stands, take it out.")

MAX_HEAD = 90
"""Of a missing statement, so many characters are shown."""

For = Annotated[
    str, typer.Option("--rpc", help="app.main:rpc, whose Capture(exclude=, images=) holds; else the recorded one does.")
]
Url = Annotated[str, typer.Argument(help="The database: postgresql+asyncpg://user@host/db or sqlite:///team.db")]


@database.command()
def install(
    url: Url,
    sql: Annotated[bool, typer.Option("--sql", help="Run nothing: print the SQL for an administrator.")] = False,
    rpc: For = "",
) -> None:
    """Put the outbox and the triggers in place. A server does so at its start, unless it may not, or is not to."""
    source = _source(url, rpc)
    if sql:
        script = source.capture.script()
        if script:
            typer.echo(script)
        else:
            err.print(f"{source.database.name}: nothing is missing", highlight=False, markup=False, soft_wrap=True)
        return
    write(_report(source, source.capture.install()), "text")


@database.command()
def verify(url: Url, format: FormatOption = "text", rpc: For = "") -> None:
    """Tell whether every write is seen; exit with 1 where some are not. Runs no DDL, and `install --sql` prints it."""
    source = _source(url, rpc)
    try:
        report = _report(source, source.capture.verify())
    except CaptureError as exc:
        report = _missing(source, exc)
    write(report, format)


@database.command()
def uninstall(url: Url) -> None:
    """Take outbox and triggers out. A running server puts them back: stop it first."""
    source = _source(url)
    source.capture.uninstall()
    out.print(f"{source.database.name}: capture is taken out", highlight=False, markup=False, soft_wrap=True)


def _source(url: str, rpc: str = "") -> Backend:
    if rpc:
        return cast(ReactiveRPC, load(rpc, ReactiveRPC)).admin.backend_on(url)
    return make_backend(url, settings=Settings(), ids=RandomIds())


def _report(source: Backend, state: CaptureState) -> CaptureReport:
    uncaptured = {name: table.reason for name, table in state.tables.items() if not table.captured}
    return CaptureReport(
        database=source.database.name,
        tables=len(state.tables),
        captured=len(state.tables) - len(uncaptured),
        findings=[f"{name}: {reason}" for name, reason in sorted(uncaptured.items())],
    )


def _missing(source: Backend, error: CaptureError) -> CaptureReport:
    """Return what is missing, a line for each statement that would put it in place, without its text."""
    way = "`reactive-rpc db install` mends that, `db install --sql` prints it for an administrator"
    first = error.summary if not error.statements else f"capture is not in place; {way}"
    findings = [first, *(f"  missing: {_head(statement)}" for statement in error.statements)]
    return CaptureReport(database=source.database.name, tables=0, captured=0, findings=findings)


def _head(statement: str) -> str:
    """Return what a statement makes, and on what.

    >>> _head('CREATE TRIGGER "t" AFTER INSERT ON "note" FOR EACH ROW BEGIN ... END')
    'CREATE TRIGGER "t" AFTER INSERT ON "note"'
    """
    head = _BODY.split(" ".join(statement.split()), maxsplit=1)[0]
    return head if len(head) <= MAX_HEAD else f"{head[:MAX_HEAD]} ..."


_BODY = re.compile(r" ?[(;]| (?:FOR EACH|AS|RETURNS|REFERENCING|WITH|WHEN|EXECUTE (?:FUNCTION|PROCEDURE)) ")
