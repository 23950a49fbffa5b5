"""What every store keeps to, run against each of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reactive_rpc.cache.result import CachedResult, HandlerOutcome, ResultKey
from reactive_rpc.cache.store import MemoryStore, Store
from reactive_rpc.dependencies.change import Change
from reactive_rpc.dependencies.read_set import NOTHING

STORES: dict[str, Callable[[int], Store]] = {"memory": MemoryStore}


@dataclass(frozen=True)
class Stored:
    """A query whose result is already there."""

    key: ResultKey
    keep: Callable[[Change], bool] | None = None
    depth: int = 0
    held_bytes: int = 0
    is_cached: bool = True
    is_shared: bool = True

    async def compute(self) -> HandlerOutcome:
        """Never asked for here."""
        raise AssertionError


def entry(name: str, size_bytes: int = 2_000) -> CachedResult:
    """Return an entry of about this size."""
    query = Stored((name, b"", b""))
    made = CachedResult(query, HandlerOutcome(b"", NOTHING), 0)
    return CachedResult(query, HandlerOutcome(b"x" * (size_bytes - made.size_bytes), NOTHING), 0)


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest) -> Store:
    return STORES[request.param](10_000)


def test_what_is_put_is_got(store: Store) -> None:
    """By its key, until it is discarded; another entry of the same key is not."""
    first = entry("a")
    assert store.put(first) == []
    assert store.get(("a", b"", b"")) is first
    store.discard(entry("a"))
    assert list(store) == [first]
    store.discard(first)
    store.discard(first)
    assert (store.get(("a", b"", b"")), len(store)) == (None, 0)


def test_another_result_of_a_key_takes_its_place(store: Store) -> None:
    """And the old one is told as gone."""
    first, second = entry("a"), entry("a")
    store.put(first)
    assert store.put(second) == [first]
    assert list(store) == [second]


def test_the_least_recently_used_goes_first(store: Store) -> None:
    """Having been asked for counts as use."""
    entries = [entry(str(n)) for n in range(5)]
    for each in entries:
        assert store.put(each) == []
    store.get(("0", b"", b""))
    assert store.put(entry("new")) == [entries[1]]


def test_what_is_larger_than_the_store_is_not_held(store: Store) -> None:
    """It is itself among what is gone."""
    large = entry("large", 10_001)
    assert large in store.put(large)
    assert len(store) == 0


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(1_200, 6_000), st.booleans()), max_size=40))
def test_entries_are_held_or_told_as_gone(steps: list[tuple[int, int, bool]]) -> None:
    """Whatever is put and discarded: the sum keeps to the bound, and no entry is lost without being told."""
    for make in STORES.values():
        held: set[CachedResult] = set()
        store = make(10_000)
        for name, size_bytes, discard in steps:
            new = entry(str(name), size_bytes)
            held.add(new)
            held -= set(store.put(new))
            if discard:
                store.discard(new)
                held.discard(new)
            assert set(store) == held
            assert sum(each.size_bytes for each in store) <= 10_000
        store.clear()
        assert len(store) == 0
        assert store.put(entry("after", 9_000)) == []
