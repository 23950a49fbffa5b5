"""`reactive-rpc export-openapi` and `generate`: from an application to its document, from a document to its client."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer
from fastapi import FastAPI

from reactive_rpc.cli.shared import failure, load, out
from reactive_rpc.codegen import ForeignFileError, replace_files
from reactive_rpc.codegen import generate as generate_client

__all__ = ["export_openapi", "generate"]

CheckOption = Annotated[
    bool, typer.Option("--check", help="Write nothing; fail where what is committed is not current.")
]


def export_openapi(
    app: Annotated[str, typer.Argument(help="The FastAPI application: app.main:app")],
    target: Annotated[Path, typer.Option("--out", help="The document to write.")] = Path("openapi/openapi.json"),
    check: CheckOption = False,
) -> None:
    """Write the OpenAPI document of an application. The database need not exist."""
    found = load(app, FastAPI)
    document = json.dumps(found.openapi(), indent=2, ensure_ascii=False) + "\n"
    if check:
        _require_same(target, document.encode(), f"reactive-rpc export-openapi {app} --out {target}")
    else:
        try:
            replace_files({target.name: document}, target.parent, is_ours=_is_document, also=target.name)
        except ForeignFileError as exc:
            raise failure(str(exc), code=2) from exc
    out.print(f"{target} {'is current' if check else 'written'}")


def generate(
    openapi: Annotated[Path, typer.Option("--openapi", help="The document to read.")] = Path("openapi/openapi.json"),
    target: Annotated[Path, typer.Option("--out", help="The package to write.")] = Path("generated_client"),
    check: CheckOption = False,
) -> None:
    """Write the typed Python client of an OpenAPI document."""
    if not openapi.is_file():
        raise failure(
            f"{openapi} is not there: write it with `reactive-rpc export-openapi app.main:app --out {openapi}`"
        )
    try:
        document: dict[str, Any] = json.loads(openapi.read_text(encoding="utf-8"))
    except ValueError as exc:
        raise failure(f"{openapi} is no JSON: {exc}") from exc
    if not check:
        try:
            generate_client(document, target)
        except ForeignFileError as exc:
            raise failure(str(exc), code=2) from exc
        out.print(f"{target} written")
        return
    with tempfile.TemporaryDirectory() as scratch:
        fresh = Path(scratch) / target.name
        for path in generate_client(document, fresh):
            _require_same(target / path.relative_to(fresh), path.read_bytes(), f"reactive-rpc generate --out {target}")
    out.print(f"{target} is current")


def _is_document(content: bytes) -> bool:
    """Tell whether a file is an OpenAPI document, which may be written anew."""
    try:
        found = json.loads(content)
    except ValueError:
        return False
    return isinstance(found, dict) and "openapi" in found


def _require_same(path: Path, expected: bytes, command: str) -> None:
    if not path.is_file() or path.read_bytes() != expected:
        raise failure(f"{path} is not current: run `{command}` and commit the result")
