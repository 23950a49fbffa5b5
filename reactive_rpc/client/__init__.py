"""The Python client's runtime, which generated clients import. Needs httpx, anyio and pydantic, and no server part."""

from __future__ import annotations

from reactive_rpc.client.async_client import AsyncClient, Mutation, PagedQuery, Query, StreamedQuery, Subscription
from reactive_rpc.client.bound_query import BoundQuery
from reactive_rpc.client.files import FileInput, ReceivedFile
from reactive_rpc.client.hold import Hold
from reactive_rpc.client.iterators import EventIterator, ItemIterator
from reactive_rpc.client.model import Model, Secret, TaggedModel, default_of
from reactive_rpc.client.optimistic import Optimistic, OptimisticUpdate
from reactive_rpc.client.pages import Pages, PagesState
from reactive_rpc.client.procedure import UNSET, Procedure
from reactive_rpc.client.state import State
from reactive_rpc.client.status import Status, StatusWatch
from reactive_rpc.client.sync_client import (
    SyncClient,
    SyncMutation,
    SyncPagedQuery,
    SyncQuery,
    SyncStreamedQuery,
    SyncSubscription,
)
from reactive_rpc.client.sync_iterators import SyncEventIterator, SyncItemIterator
from reactive_rpc.client.sync_pages import SyncPages
from reactive_rpc.client.sync_watch import SyncBoundQuery, SyncHold, SyncStatusWatch, SyncWatch
from reactive_rpc.client.typed_error import TypedError
from reactive_rpc.client.watch import Watch
from reactive_rpc.protocol.fidelity import AsSpelled
from reactive_rpc.protocol.pages import Page

__all__ = [
    "UNSET",
    "AsSpelled",
    "AsyncClient",
    "BoundQuery",
    "EventIterator",
    "FileInput",
    "Hold",
    "ItemIterator",
    "Model",
    "Mutation",
    "Optimistic",
    "OptimisticUpdate",
    "Page",
    "PagedQuery",
    "Pages",
    "PagesState",
    "Procedure",
    "Query",
    "ReceivedFile",
    "Secret",
    "State",
    "Status",
    "StatusWatch",
    "StreamedQuery",
    "Subscription",
    "SyncBoundQuery",
    "SyncClient",
    "SyncEventIterator",
    "SyncHold",
    "SyncItemIterator",
    "SyncMutation",
    "SyncPagedQuery",
    "SyncPages",
    "SyncQuery",
    "SyncStatusWatch",
    "SyncStreamedQuery",
    "SyncSubscription",
    "SyncWatch",
    "TaggedModel",
    "TypedError",
    "Watch",
    "default_of",
]
