"""The table of error codes."""

from __future__ import annotations

from reactive_rpc.errors import RPCError
from reactive_rpc.protocol.codes import CODES

__all__ = ["codes_table"]


def codes_table() -> str:
    """Return a row a code: its class, its numbers, and what the class says of it."""
    rows = ["| code | HTTP | JSON-RPC | class | means |", "|---|---|---|---|---|"]
    for code, numbers in CODES.items():
        error = RPCError.by_code.get(code)
        name, means = ("`RPCError`", "") if error is None else (f"`{error.__name__}`", _summary(error))
        rows.append(f"| `{code}` | {numbers.http} | {numbers.json_rpc} | {name} | {means} |")
    return "\n".join(rows)


def _summary(error: type[RPCError]) -> str:
    return (error.__doc__ or "").partition("\n")[0].replace("|", r"\|")
