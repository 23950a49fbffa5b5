"""`reactive-rpc`: documents, clients, databases, and what stands or is wrong."""

from __future__ import annotations

import sys

from reactive_rpc.errors import MissingExtraError
from reactive_rpc.extras import needs

__all__ = ["main"]


def main() -> None:
    """Run the command, or say what must be installed before it can."""
    try:
        with needs("server,cli", "reactive-rpc"):
            from reactive_rpc.cli.main import main as run  # noqa: PLC0415  # the script is there without the extras
    except MissingExtraError as exc:
        sys.exit(f"error {exc}")
    run()
