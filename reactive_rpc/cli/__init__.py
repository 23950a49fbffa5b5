"""`reactive-rpc`: documents, clients, databases, and what stands or is wrong."""

from __future__ import annotations

from reactive_rpc.cli.main import cli, main

__all__ = ["cli", "main"]
