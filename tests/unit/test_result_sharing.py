"""Where workers share results: in the application's store, else in the Redis of the settings, else nowhere."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import SecretStr

from reactive_rpc.backends.factory import make_backend
from reactive_rpc.backends.redis.result_store import RedisResultStore
from reactive_rpc.cache.result_store import ResultStore
from reactive_rpc.changes.capture_options import Capture
from reactive_rpc.clock import RandomIds, SystemClock
from reactive_rpc.result_sharing import make_shared_results
from reactive_rpc.settings import Settings
from tests.support.result_stores import DictStore, Shelves

URL = "postgresql+asyncpg://app@127.0.0.1:1/none"


def shared(store: ResultStore | None = None, url: str = URL, **options: Any) -> Any:
    """Return where results are shared under these settings; its private parts are looked at."""
    settings = Settings(**options)
    backend = make_backend(url, settings=settings, ids=RandomIds(), capture=Capture())
    return make_shared_results(store, backend, settings=settings, capture=Capture(), clock=SystemClock())


def test_a_store_goes_before_redis() -> None:
    """Changes are relayed by Redis all the same."""
    store = DictStore(Shelves())
    assert shared(store, build="b1", redis_url="redis://127.0.0.1:1/0")._store is store
    assert isinstance(shared(build="b1", redis_url="redis://127.0.0.1:1/0")._store, RedisResultStore)


@pytest.mark.parametrize("options", [{}, {"build": "b1"}, {"redis_url": "redis://127.0.0.1:1/0"}])
def test_nothing_is_shared_without_a_place_and_a_build(options: dict[str, Any]) -> None:
    """One of them does not suffice."""
    assert shared(**options) is None


def test_workers_of_another_role_or_build_share_nothing() -> None:
    """Another role may see other rows: names are made of both."""
    store = DictStore(Shelves())
    urls = [URL, URL.replace("app@", "other@"), f"{URL}?ssl=require"]
    builds = {shared(store, url, build=build)._build for url in urls for build in ("b1", "b2")}
    assert len(builds) == 6


def test_a_secret_of_any_length_is_a_key() -> None:
    """Without one there is a checksum only; an empty one is none."""
    store = DictStore(Shelves())
    keys = [shared(store, build="b", store_secret=SecretStr(secret))._secret for secret in ("", "a", "b", "a" * 1_000)]
    assert shared(store, build="b")._secret == b""
    assert [len(key) for key in keys] == [0, 64, 64, 64]
    assert len(set(keys)) == 4
