"""`reactive-rpc db`: put capture into a database, look whether it stands, take it out again."""

from __future__ import annotations

from typing import Annotated

import typer

from reactive_rpc.capture.schema import CaptureState
from reactive_rpc.cli.shared import out
from reactive_rpc.clock import RandomIds
from reactive_rpc.settings import Settings
from reactive_rpc.sources import Source, make_source

__all__ = ["database"]

database = typer.Typer(no_args_is_help=True, help="Put capture into a database, look whether it stands, take it out.")

Url = Annotated[str, typer.Argument(help="The database: postgresql+asyncpg://user@host/db or sqlite:///team.db")]


@database.command()
def install(
    url: Url,
    sql: Annotated[bool, typer.Option("--sql", help="Run nothing: print the SQL for an administrator.")] = False,
) -> None:
    """Put the outbox and the triggers in place. The server does so at its start; this is for who may not."""
    source = _source(url)
    if sql:
        typer.echo(source.capture.script())
        return
    _print(source, source.capture.install())


@database.command()
def verify(url: Url) -> None:
    """Tell whether every write is seen; exit with 1 where some are not. Runs no DDL."""
    source = _source(url)
    _print(source, source.capture.verify())


@database.command()
def uninstall(url: Url) -> None:
    """Take outbox and triggers out. A running server puts them back: stop it first."""
    source = _source(url)
    source.capture.uninstall()
    out.print(f"{source.database.name}: capture is taken out", highlight=False, markup=False, soft_wrap=True)


def _source(url: str) -> Source:
    return make_source(url, settings=Settings(), ids=RandomIds())


def _print(source: Source, state: CaptureState) -> None:
    uncaptured = {name: table.reason for name, table in state.tables.items() if not table.captured}
    out.print(
        f"{source.database.name}: {len(state.tables) - len(uncaptured)} of {len(state.tables)} tables are captured",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    for name, reason in sorted(uncaptured.items()):
        out.print(f"  {name}: {reason}", highlight=False, markup=False, soft_wrap=True)
    if uncaptured:
        raise typer.Exit(1)
