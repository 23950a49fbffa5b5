"""The Python client's runtime, which generated clients import. Needs httpx, anyio and pydantic, and no server part."""

from __future__ import annotations

from reactive_rpc.client.async_client import AsyncClient, Mutation, Query, StreamedQuery, Subscription
from reactive_rpc.client.files import FileInput, ReceivedFile
from reactive_rpc.client.iterators import EventIterator, ItemIterator
from reactive_rpc.client.model import Model, Secret, TaggedModel, default_of
from reactive_rpc.client.procedure import UNSET, Procedure
from reactive_rpc.client.state import State
from reactive_rpc.client.sync_client import (
    SyncClient,
    SyncMutation,
    SyncQuery,
    SyncStreamedQuery,
    SyncSubscription,
    SyncWatch,
)
from reactive_rpc.client.sync_iterators import SyncEventIterator, SyncItemIterator
from reactive_rpc.client.typed_error import TypedError
from reactive_rpc.client.watch import Watch
from reactive_rpc.protocol.fidelity import AsSpelled
from reactive_rpc.protocol.pages import Page

__all__ = [
    "UNSET",
    "AsSpelled",
    "AsyncClient",
    "EventIterator",
    "FileInput",
    "ItemIterator",
    "Model",
    "Mutation",
    "Page",
    "Procedure",
    "Query",
    "ReceivedFile",
    "Secret",
    "State",
    "StreamedQuery",
    "Subscription",
    "SyncClient",
    "SyncEventIterator",
    "SyncItemIterator",
    "SyncMutation",
    "SyncQuery",
    "SyncStreamedQuery",
    "SyncSubscription",
    "SyncWatch",
    "TaggedModel",
    "TypedError",
    "Watch",
    "default_of",
]
