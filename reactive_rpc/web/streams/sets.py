"""Sets of queries under a name, for streams that can only be asked for by a URL.

A set's name is the hash of what is in it, so storing it again changes nothing, and whoever holds a set of a name holds
the right one. Each worker therefore keeps the sets that it has seen lately, and looks for others in the ephemeral
store, which all workers share. Using a set renews its time there, once in a quarter of that time for each worker.

A set counts for whoever stored it, in their budget in the ephemeral store (`changes/ephemeral_store.py`), even if
another worker renews it: so its owner is kept beside it.

A set is no secret and grants nothing: whoever names it subscribes on their own behalf.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Sequence
from hashlib import blake2b

from fastapi.dependencies.models import Dependant
from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.types import Receive, Scope

from reactive_rpc.changes.ephemeral_store import EphemeralStore
from reactive_rpc.changes.store_keys import name_of
from reactive_rpc.clock import Clock, IdSource
from reactive_rpc.errors import NotFoundError, PayloadTooLargeError
from reactive_rpc.protocol.events import QueryRef
from reactive_rpc.subscriptions.limits import Limits
from reactive_rpc.web.routing.body import BodyLimits, decode_json_body, read_json_body, replay
from reactive_rpc.web.routing.callers import caller_of, owner_of
from reactive_rpc.web.routing.dependencies import resolved
from reactive_rpc.web.routing.dispatcher import Endpoint
from reactive_rpc.web.routing.responses import Answer

__all__ = ["QuerySet", "SetsEndpoint", "StoredSet", "StoredSets", "require_at_most"]

MAX_BYTES = 16 * 1024 * 1024
"""What a worker keeps of sets; past it, the least recently used are read from the ephemeral store again."""

OWNER_BYTES = 48
"""How long the name of an owner is."""

RENEWALS = 4
"""How often in its lifetime a set that is in use is put into the ephemeral store again, by each worker."""


class QuerySet(BaseModel):
    """The queries of a stream, to be named in a URL."""

    queries: list[QueryRef]


class StoredSet(BaseModel):
    """A stored set of queries."""

    set: str = Field(description="Names the set: GET /rpc/events?set=...")


class StoredSets:
    """Sets in an ephemeral store, found under their hash. Used on one event loop.

    Args:
        ttl_seconds: how long a set is kept after it was last stored or used.
    """

    def __init__(self, store: EphemeralStore, *, clock: Clock, ttl_seconds: float, max_bytes: int = MAX_BYTES) -> None:
        self._store = store
        self._clock = clock
        self._ttl_seconds = ttl_seconds
        self._max_bytes = max_bytes
        self._size_bytes = 0
        self._kept: OrderedDict[str, tuple[bytes, float]] = OrderedDict()  # {name: (record, put into the store at)}

    async def put(self, queries: Sequence[QueryRef], *, owner: str) -> str:
        """Store a set and return its name; equal sets have one name. ETags are dropped: they would grow old.

        Args:
            owner: whom it counts for.

        Raises:
            PayloadTooLargeError: it is more than one owner may have stored.
            ServiceUnavailableError: there is no room, or the ephemeral store cannot be reached.
        """
        content = json.dumps([query.model_dump(exclude={"etag"}) for query in queries], sort_keys=True).encode()
        name = blake2b(content, digest_size=16).hexdigest()
        await self._renew(name, name_of(owner).encode() + content)
        return name

    async def get(self, name: str) -> list[QueryRef]:
        """Return a set.

        Raises:
            NotFoundError: it was never stored, or nobody has used it for too long.
            ServiceUnavailableError: the ephemeral store cannot be reached.
        """
        record, renewed_at = self._kept.get(name, (None, 0.0))
        age_seconds = self._clock.monotonic() - renewed_at
        if record is None or age_seconds >= self._ttl_seconds:
            record = await self._store.get("set", name)
            if record is None:
                raise NotFoundError(f"no set {name[:64]!r} is stored: store it again (POST /rpc/events/sets)")
            await self._renew(name, record)
        elif age_seconds >= self._ttl_seconds / RENEWALS:
            await self._renew(name, record)
        return [QueryRef.model_validate(query) for query in json.loads(record[OWNER_BYTES:])]

    async def _renew(self, name: str, record: bytes) -> None:
        """Put a set into the ephemeral store (again): the name of its owner, and the queries."""
        owner = record[:OWNER_BYTES].decode()
        await self._store.put("set", {name: record}, ttl_seconds=self._ttl_seconds, owner=owner)
        if name not in self._kept:
            self._size_bytes += len(record)
        self._kept[name] = record, self._clock.monotonic()
        self._kept.move_to_end(name)
        while self._size_bytes > self._max_bytes and len(self._kept) > 1:
            _, (forgotten, _) = self._kept.popitem(last=False)
            self._size_bytes -= len(forgotten)


class SetsEndpoint(Endpoint):
    """Stores a set of queries under its hash."""

    def __init__(
        self, path: str, sets: StoredSets, limits: Limits, ids: IdSource, *, body: BodyLimits, max_queries: int
    ) -> None:
        super().__init__(path, ids)
        self._sets = sets
        self._limits = limits
        self._body = body
        self._max_queries = max_queries

    async def answer(self, scope: Scope, receive: Receive, dependencies: list[Dependant]) -> Answer:
        """Store the set, for callers whom the context lets through."""
        self.require_method(scope, ("POST",))
        body = await read_json_body(scope, receive, limits=self._body)
        async with resolved(Request(scope, replay(body)), dependencies) as found:
            queries = decode_json_body(QuerySet, body).queries
            require_at_most(self._max_queries, queries)
            caller = caller_of(scope, found.context)
            self._limits.count_stored(caller)
            name = await self._sets.put(queries, owner=owner_of(caller))
        stored = StoredSet(set=name).model_dump_json().encode()
        return found.add_to(Answer(200, stored, [(b"content-type", b"application/json")]))


def require_at_most(max_queries: int, queries: Sequence[QueryRef]) -> None:
    """Let only sets through that are no larger than that.

    Raises:
        PayloadTooLargeError: it is larger.
    """
    if len(queries) > max_queries:
        raise PayloadTooLargeError(
            f"{len(queries)} queries in one set: the limit is {max_queries} (max_queries_per_stream)"
        )
