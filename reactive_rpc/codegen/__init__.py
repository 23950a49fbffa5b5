"""From an OpenAPI document to typed clients."""

from __future__ import annotations

from reactive_rpc.codegen.files import ForeignFileError, replace_files
from reactive_rpc.extras import needs

with needs("cli", __name__):
    from reactive_rpc.codegen.python import generate

__all__ = ["ForeignFileError", "generate", "replace_files"]
