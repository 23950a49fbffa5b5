"""The Python client's runtime: what generated clients import. Needs httpx, anyio and pydantic, and no server part."""

from __future__ import annotations

from reactive_rpc.client.async_client import AsyncClient, Mutation, Query
from reactive_rpc.client.procedure import UNSET, Procedure
from reactive_rpc.client.state import State
from reactive_rpc.client.sync_client import SyncClient, SyncMutation, SyncQuery, SyncWatch
from reactive_rpc.client.watch import Watch

__all__ = [
    "UNSET",
    "AsyncClient",
    "Mutation",
    "Procedure",
    "Query",
    "State",
    "SyncClient",
    "SyncMutation",
    "SyncQuery",
    "SyncWatch",
    "Watch",
]
