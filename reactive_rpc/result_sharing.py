"""Where workers share results: in the application's store, in the Redis of the settings, or not at all."""

from __future__ import annotations

from hashlib import blake2b

from reactive_rpc.backends.factory import Backend
from reactive_rpc.backends.redis.result_store import RedisResultStore
from reactive_rpc.cache.result_store import ResultStore
from reactive_rpc.cache.stored_results import StoredResults
from reactive_rpc.changes.capture_options import Capture
from reactive_rpc.clock import Clock
from reactive_rpc.errors import DefinitionError
from reactive_rpc.settings import Settings

__all__ = ["make_shared_results"]


def make_shared_results(
    store: ResultStore | None, backend: Backend, *, settings: Settings, capture: Capture, clock: Clock
) -> StoredResults | None:
    """Return the results that workers share; None if each computes its own.

    Raises:
        DefinitionError: the store is none, or nobody could take anything out of it.
    """
    if store is not None:
        _refuse_unfit(store, settings=settings, capture=capture)
    elif settings.redis_url is not None and settings.build:
        store = RedisResultStore(settings.redis_url, settings.redis_namespace)
    if store is None:
        return None
    secret = "" if settings.store_secret is None else settings.store_secret.get_secret_value()
    return StoredResults(
        store,
        build=f"{settings.build} {backend.role}",
        ttl_seconds=settings.shared_value_seconds,
        secret=blake2b(secret.encode()).digest() if secret else b"",
        clock=clock,
    )


def _refuse_unfit(store: ResultStore, *, settings: Settings, capture: Capture) -> None:
    if isinstance(store, type) or not isinstance(store, ResultStore):
        raise DefinitionError(
            f"store={store!r} is no store of results: give an object with open, aclose, find and put, as ResultStore "
            "describes them (docs/how-to/add-a-store.md)"
        )
    if not settings.build:
        raise DefinitionError(
            "store= is given, and REACTIVE_RPC_BUILD (Settings.build) is not: name the code that runs, by its commit "
            "for example, so that no worker takes a result that other code has computed"
        )
    if capture.mode == "session":
        raise DefinitionError(
            "store= is given with Capture(mode='session'), by which each process knows of its own writes alone: it "
            "could not tell whether another's result still holds. Use triggers, or leave store= out"
        )
