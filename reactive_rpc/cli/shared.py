"""What the commands have in common: where they print, how they find an object, how they fail."""

from __future__ import annotations

import importlib
import sys
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.markup import escape

from reactive_rpc.errors import ReactiveRPCError

__all__ = ["FormatOption", "Rpc", "err", "failure", "load", "out"]

WIDEST = 10_000

out = Console(width=None if sys.stdout.isatty() else WIDEST)
"""Lines are broken for a terminal alone: who pipes them gets each whole."""

err = Console(stderr=True)

FormatOption = Annotated[
    Literal["text", "json"], typer.Option("--format", help="Text for people, or JSON for programs.")
]

Rpc = Annotated[str, typer.Argument(help="The ReactiveRPC object: app.main:rpc")]


def load(reference: str, wanted: type[Any] = object) -> Any:
    """Return the object at `module:name`.

    Raises:
        typer.Exit: there is none, or it is something else; what is wrong has been printed.
    """
    module_name, colon, name = reference.partition(":")
    if not (module_name and colon and name):
        raise failure(f"{reference!r} is no module:name: app.main:app is one")
    sys.path.insert(0, "")
    try:
        found = getattr(importlib.import_module(module_name), name)
    except (ImportError, AttributeError) as exc:
        raise failure(f"{reference}: {exc}") from exc
    except ReactiveRPCError as exc:
        raise failure(str(exc)) from exc
    if not isinstance(found, wanted):
        raise failure(f"{reference} is a {type(found).__name__}, not a {wanted.__name__}")
    return found


def failure(message: str, *, code: int = 1) -> typer.Exit:
    """Print what is wrong and return what to raise, which ends the command with `code`."""
    err.print(f"[bold red]error[/] {escape(message)}", highlight=False, soft_wrap=True)  # SQL is there to be copied
    return typer.Exit(code)
