"""The commands, put together."""

from __future__ import annotations

import typer

from reactive_rpc.cli.database import database
from reactive_rpc.cli.diagnosis import check, doctor
from reactive_rpc.cli.explanation import explain
from reactive_rpc.cli.functions import functions
from reactive_rpc.cli.generation import export_openapi, generate
from reactive_rpc.cli.relay import relay
from reactive_rpc.cli.shared import failure
from reactive_rpc.errors import CaptureError, ReactiveRPCError

__all__ = ["cli", "main"]

cli = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Export the OpenAPI document, generate clients, prepare the database, see what stands and what is wrong.",
)
cli.command("export-openapi")(export_openapi)
cli.command()(generate)
cli.command()(functions)
cli.command()(doctor)
cli.command()(check)
cli.command()(explain)
cli.command()(relay)
cli.add_typer(database, name="db")


def main() -> None:
    """Run, and print what goes wrong as one sentence."""
    try:
        cli()
    except CaptureError as exc:
        hint = " `reactive-rpc db install --sql URL` prints the SQL." if exc.statements else ""
        failure(exc.summary.removesuffix(":") + "." * bool(hint) + hint)
        raise SystemExit(1) from exc
    except ReactiveRPCError as exc:
        failure(str(exc))
        raise SystemExit(1) from exc
