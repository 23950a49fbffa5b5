"""`reactive-rpc`: export the OpenAPI document, generate clients, prepare the database, see what stands and what is wrong."""

from __future__ import annotations

from reactive_rpc.cli.main import cli, main

__all__ = ["cli", "main"]
