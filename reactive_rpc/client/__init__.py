"""The Python client's runtime, which generated clients import. Needs httpx, anyio and pydantic, and no server part."""

from __future__ import annotations

from reactive_rpc.client.async_client import AsyncClient, Mutation, Query
from reactive_rpc.client.files import FileInput, ReceivedFile
from reactive_rpc.client.model import Model, Secret, TaggedModel, default_of
from reactive_rpc.client.procedure import UNSET, Procedure
from reactive_rpc.client.state import State
from reactive_rpc.client.sync_client import SyncClient, SyncMutation, SyncQuery, SyncWatch
from reactive_rpc.client.typed_error import TypedError
from reactive_rpc.client.watch import Watch
from reactive_rpc.protocol.fidelity import AsSpelled

__all__ = [
    "UNSET",
    "AsSpelled",
    "AsyncClient",
    "FileInput",
    "Model",
    "Mutation",
    "Procedure",
    "Query",
    "ReceivedFile",
    "Secret",
    "State",
    "SyncClient",
    "SyncMutation",
    "SyncQuery",
    "SyncWatch",
    "TaggedModel",
    "TypedError",
    "Watch",
    "default_of",
]
