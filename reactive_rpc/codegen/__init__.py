"""From an OpenAPI document to typed clients."""

from __future__ import annotations

from reactive_rpc.codegen.python import generate

__all__ = ["generate"]
