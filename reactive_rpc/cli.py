"""`reactive-rpc`: export the OpenAPI document, generate clients, and see what stands."""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer
from fastapi import FastAPI
from rich.console import Console
from rich.table import Table

from reactive_rpc.app import ReactiveRPC, Report
from reactive_rpc.codegen import generate as generate_client
from reactive_rpc.errors import ReactiveRPCError

__all__ = ["cli", "main"]

cli = typer.Typer(add_completion=False, no_args_is_help=True, help=__doc__, pretty_exceptions_enable=False)
out = Console()
err = Console(stderr=True)

Check = Annotated[bool, typer.Option("--check", help="Write nothing; fail where what is committed is not current.")]


@cli.command("export-openapi")
def export_openapi(
    app: Annotated[str, typer.Argument(help="The FastAPI application: app.main:app")],
    target: Annotated[Path, typer.Option("--out", help="The document to write.")] = Path("openapi/openapi.json"),
    check: Check = False,
) -> None:
    """Write the OpenAPI document of an application. The database need not exist."""
    found = _load(app, FastAPI)
    document = json.dumps(found.openapi(), indent=2, ensure_ascii=False) + "\n"
    if check:
        _require_same(target, document.encode(), f"reactive-rpc export-openapi {app} --out {target}")
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(document, encoding="utf-8")
    out.print(f"{target} {'is current' if check else 'written'}")


@cli.command()
def generate(
    openapi: Annotated[Path, typer.Option("--openapi", help="The document to read.")] = Path("openapi/openapi.json"),
    target: Annotated[Path, typer.Option("--out", help="The package to write.")] = Path("generated_client"),
    check: Check = False,
) -> None:
    """Write the typed Python client of an OpenAPI document."""
    if not openapi.is_file():
        raise _failure(
            f"{openapi} is not there: write it with `reactive-rpc export-openapi app.main:app --out {openapi}`"
        )
    try:
        document: dict[str, Any] = json.loads(openapi.read_text(encoding="utf-8"))
    except ValueError as exc:
        raise _failure(f"{openapi} is no JSON: {exc}") from exc
    if not check:
        generate_client(document, target)
        out.print(f"{target} written")
        return
    with tempfile.TemporaryDirectory() as scratch:
        fresh = Path(scratch) / target.name
        for path in generate_client(document, fresh):
            _require_same(target / path.relative_to(fresh), path.read_bytes(), f"reactive-rpc generate --out {target}")
    out.print(f"{target} is current")


@cli.command()
def doctor(
    rpc: Annotated[str, typer.Argument(help="The ReactiveRPC object: app.main:rpc")],
) -> None:
    """Open the database as the server would and tell what is captured, what can be cached, and why not."""
    report = asyncio.run(_inspect(_load(rpc, ReactiveRPC)))
    out.print(f"database  {report.database}\nepoch     {report.epoch}")
    out.print(_tables(report))
    out.print(_procedures(report))
    if any(not table.captured for table in report.tables.values()):
        raise typer.Exit(1)


async def _inspect(rpc: ReactiveRPC) -> Report:
    await rpc.open()
    try:
        return rpc.report()
    finally:
        await rpc.aclose()


def _tables(report: Report) -> Table:
    table = Table("table", "captured", "compared exactly", title="Tables", title_justify="left")
    for name, capture in sorted(report.tables.items()):
        exact = ", ".join(column for column, kind in capture.kinds.items() if kind is not None)
        table.add_row(name, "yes" if capture.captured else f"no: {capture.reason}", exact or "nothing")
    return table


def _procedures(report: Report) -> Table:
    table = Table("procedure", "kind", "dependencies", "shared by", "cached", title="Procedures", title_justify="left")
    for path, procedure in report.procedures.items():
        if procedure.kind == "mutation":
            table.add_row(path, "mutation", "", "", "never")
            continue
        dependencies = procedure.dependencies
        uncaptured = [name for name in sorted(dependencies or ()) if not report.tables[name].captured]
        shared: str = "a function of ctx" if callable(procedure.scope) else procedure.scope
        if procedure.scope == "identity" and not procedure.handler.takes_context:
            shared = "everybody let in"
        declared = "observed" if dependencies is None else ", ".join(sorted(dependencies)) or "none"
        cached = f"no: {', '.join(uncaptured)} is not captured" if uncaptured else "yes, where what it reads is known"
        table.add_row(path, "query", declared, shared, cached)
    return table


def _load(reference: str, wanted: type[Any]) -> Any:
    """Return the object at `module:name`."""
    module_name, colon, name = reference.partition(":")
    if not (module_name and colon and name):
        raise _failure(f"{reference!r} is no module:name: app.main:app is one")
    sys.path.insert(0, "")
    try:
        found = getattr(importlib.import_module(module_name), name)
    except (ImportError, AttributeError) as exc:
        raise _failure(f"{reference}: {exc}") from exc
    except ReactiveRPCError as exc:
        raise _failure(str(exc)) from exc
    if not isinstance(found, wanted):
        raise _failure(f"{reference} is a {type(found).__name__}, not a {wanted.__name__}")
    return found


def _require_same(path: Path, expected: bytes, command: str) -> None:
    if not path.is_file() or path.read_bytes() != expected:
        raise _failure(f"{path} is not current: run `{command}` and commit the result")


def _failure(message: str) -> typer.Exit:
    err.print(f"[bold red]error[/] {message}", highlight=False)
    return typer.Exit(1)


def main() -> None:
    """Run, and print what goes wrong as one sentence."""
    try:
        cli()
    except ReactiveRPCError as exc:
        err.print(f"[bold red]error[/] {exc}", highlight=False)
        raise SystemExit(1) from exc
