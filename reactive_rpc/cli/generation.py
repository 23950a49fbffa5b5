"""`reactive-rpc export-openapi` and `generate`: from an application to its document, from a document to its client."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from fastapi import FastAPI

from reactive_rpc.cli.shared import failure, load, out
from reactive_rpc.codegen import ForeignFileError, replace_files
from reactive_rpc.codegen import generate as generate_client
from reactive_rpc.codegen.typescript import generate_typescript

__all__ = ["export_openapi", "generate"]

_GENERATORS: Final[dict[str, tuple[Callable[[dict[str, Any], Path], list[Path]], Path]]] = {
    "python": (generate_client, Path("generated_client")),
    "typescript": (generate_typescript, Path("generated_client/typescript")),
}
"""By language: what writes a client, and the folder into which it does."""

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
    target: Annotated[
        Path | None, typer.Option("--out", help="The folder to write.", show_default="generated_client[/typescript]")
    ] = None,
    *,
    typescript: Annotated[
        bool, typer.Option("--typescript", help="Write the TypeScript client; Node is not needed.")
    ] = False,
    check: CheckOption = False,
) -> None:
    """Write the typed client of an OpenAPI document, in Python or in TypeScript."""
    write, default = _GENERATORS["typescript" if typescript else "python"]
    target = default if target is None else target
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
            write(document, target)
        except ForeignFileError as exc:
            raise failure(str(exc), code=2) from exc
        out.print(f"{target} written")
        return
    with tempfile.TemporaryDirectory() as scratch:
        fresh = Path(scratch) / target.name
        command = f"reactive-rpc generate{' --typescript' if typescript else ''} --out {target}"
        for path in write(document, fresh):
            _require_same(target / path.relative_to(fresh), path.read_bytes(), command)
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
