"""The contract of stores of results: Redis, one server and a cluster, and a dict pass it; wrong stores do not."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from reactive_rpc.backends.redis.result_store import RedisResultStore
from reactive_rpc.cache.result_store import ResultStore
from reactive_rpc.testing import result_store
from reactive_rpc.testing.result_store import ResultStoreContract
from tests.support.result_stores import WRONG_STORES, DictStore, HasNoLeases, Shelves

RULES = [name for name in vars(ResultStoreContract) if name.startswith("test_")]


class TestDictStore(ResultStoreContract):
    """The example of the tests."""

    @pytest.fixture(autouse=True)
    def shelves(self) -> None:
        self._shelves = Shelves()

    def new_store(self) -> ResultStore:
        return DictStore(self._shelves)


class TestRedisResultStore(ResultStoreContract):
    """The store of this package, on one server and on a cluster."""

    @pytest.fixture(autouse=True, params=["redis_server_url", "redis_cluster_url"])
    def place(self, request: pytest.FixtureRequest, redis_namespace: str) -> None:
        self._place = request.getfixturevalue(request.param), redis_namespace

    def new_store(self) -> ResultStore:
        return RedisResultStore(*self._place)


def broken_rules(contract: ResultStoreContract) -> set[str]:
    """Return the rules that a store breaks."""
    broken = set()
    for rule in RULES:
        try:
            getattr(contract, rule)()
        except Exception:  # a store may fail as it likes
            broken.add(rule)
    return broken


@pytest.mark.seeded_bug
def test_wrong_stores_are_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each breaks a rule; and each rule is broken by one of them, so each can fail."""
    monkeypatch.setattr(result_store, "DEADLINE_SECONDS", 0.5)
    broken = {wrong: broken_rules(_contract_of(wrong)) for wrong in WRONG_STORES}
    assert [wrong for wrong, rules in broken.items() if not rules] == []
    assert set().union(*broken.values()) == set(RULES)


def test_a_store_without_leases_is_held_to_fewer_rules() -> None:
    """It says so."""
    contract = _contract_of(HasNoLeases)
    assert broken_rules(contract) != set()
    type(contract).has_leases = False
    assert broken_rules(contract) == set()


def _contract_of(make: Callable[[Shelves], ResultStore]) -> ResultStoreContract:
    shelves = Shelves()

    class Contract(ResultStoreContract):
        def new_store(self) -> ResultStore:
            return make(shelves)

    return Contract()
