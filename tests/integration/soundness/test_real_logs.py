"""No result goes stale by what real logs look up, on both databases and through Redis; and each broken rule is found.

`REACTIVE_SOUNDNESS_CASES` sets how many cases the first test runs, a tenth of them on each.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from reactive_rpc.backends.postgresql import log as postgresql_log
from reactive_rpc.backends.sqlite import log as sqlite_log
from reactive_rpc.changes import parent_values
from reactive_rpc.dependencies import codec, expressions, index
from reactive_rpc.statements import parent_conditions
from reactive_rpc.testing.postgresql import PostgreSQL

from .differential import StaleError
from .real_logs import Trial, Way, place_on

CASES = int(os.environ.get("REACTIVE_SOUNDNESS_CASES", "0")) // 10 or 6
BOUND = 30
"""Cases within which a seeded bug is found; each has the seed that finds it soon."""

Patch = pytest.MonkeyPatch


@dataclass
class Servers:
    """Where to make databases."""

    folder: Path
    postgresql: PostgreSQL
    redis_url: str
    namespace: str

    def run(self, way: Way, *, seed: int, cases: int) -> Counter[str]:
        """Run cases on a new database."""
        is_sqlite = way == "sqlite"
        path = self.folder / "memberships.db"
        url = f"sqlite:///{path}" if is_sqlite else self.postgresql.new_database(driver="postgresql+psycopg")
        try:
            return asyncio.run(self._run(way, url, seed=seed, cases=cases))
        finally:
            if not is_sqlite:
                self.postgresql.drop_database(url)

    async def _run(self, way: Way, url: str, *, seed: int, cases: int) -> Counter[str]:
        async with place_on(way, url, redis=(self.redis_url, self.namespace)) as place:
            trial = Trial(place)
            await trial.run(seed, cases)
            return trial.counters


@pytest.fixture
def servers(tmp_path: Path, postgresql: PostgreSQL, redis_server_url: str, redis_namespace: str) -> Servers:
    """Return where to make databases."""
    return Servers(tmp_path, postgresql, redis_server_url, redis_namespace)


@pytest.mark.parametrize("way", ["sqlite", "postgresql", "redis"])
def test_no_look_up_hides_a_change(way: Way, servers: Servers, record_property: Callable[[str, object], None]) -> None:
    """Whoever joins, leaves or changes what: no result is stale, and far fewer are touched than by table."""
    counters = servers.run(way, seed=20261130, cases=CASES)
    record_property(f"memberships on {way}", dict(counters))
    assert counters["changed"] > 2 * CASES
    assert counters["touched"] < 0.5 * counters["by_table"]


@pytest.mark.parametrize("way", ["sqlite", "postgresql", "redis"])
def test_more_parents_than_are_looked_up_are_unknown(way: Way, servers: Servers, monkeypatch: Patch) -> None:
    """Where a row has more parents than the bounds allow, every change of it counts: no result is stale."""
    monkeypatch.setattr(parent_values, "MAX_VALUES", 1)
    monkeypatch.setattr(parent_values, "MAX_PARENTS", 3)
    monkeypatch.setattr(index, "MAX_ALTERNATIVES", 1)
    assert servers.run(way, seed=7, cases=4)["changed"] > 4


# Each bug breaks one rule from outside, as a wrong line in that rule would.


def parents_are_those_of_an_earlier_look(patch: Patch) -> None:
    known: dict[Any, Any] = {}
    by_sqlite, by_postgresql = sqlite_log.SQLiteLog._values, postgresql_log.PostgreSQLLog._values

    def remembered(self: Any, lookup: Any, keys: Any) -> Any:
        new = by_sqlite(self, lookup, [key for key in keys if (lookup, key) not in known])
        known.update({(lookup, key): (new or {}).get(key, frozenset()) for key in keys if (lookup, key) not in known})
        return {key: known[lookup, key] for key in keys}

    async def remembered_too(self: Any, lookup: Any, keys: Any, state: Any) -> Any:
        new = await by_postgresql(self, lookup, frozenset(key for key in keys if (lookup, key) not in known), state)
        known.update({(lookup, key): (new or {}).get(key, frozenset()) for key in keys if (lookup, key) not in known})
        return {key: known[lookup, key] for key in keys}

    patch.setattr(sqlite_log.SQLiteLog, "_values", remembered)
    patch.setattr(postgresql_log.PostgreSQLLog, "_values", remembered_too)


def one_parent_goes_over_the_wire(patch: Patch) -> None:
    from_values = codec._from_values

    def shortened(value: Any) -> Any:
        return from_values(frozenset(sorted(value, key=repr)[:1]) if isinstance(value, frozenset) else value)

    patch.setattr(codec, "_from_values", shortened)


def too_many_parents_are_those_that_were_read(patch: Patch) -> None:
    by_key = parent_values.by_key
    patch.setattr(sqlite_log, "most_parents", lambda keys: 1)
    patch.setattr(sqlite_log, "by_key", lambda pairs, at_most: by_key(list(pairs)[:at_most], at_most))


def any_parent_will_do(patch: Patch) -> None:
    alternatives = index._alternatives
    patch.setattr(index, "_alternatives", lambda values: list(alternatives(values))[:1])


def every_parent_has_to_satisfy_a_condition(patch: Patch) -> None:
    def of_all(expression: Any, image: Any) -> Any:
        values = image.get(expression.virtual)
        truths = [expressions.truth_of(expression.condition, {expression.column: each}) for each in values or ()]
        return int(all(each is not False for each in truths))

    patch.setattr(expressions, "_holds_of_one", of_all)


def members_rest_on_each_other(patch: Patch) -> None:
    patch.setattr(parent_conditions, "_leads_to", lambda target, start, rests_on: start == target)


BUGS: tuple[tuple[Callable[[Patch], None], Way, int], ...] = (
    (parents_are_those_of_an_earlier_look, "sqlite", 2),
    (parents_are_those_of_an_earlier_look, "postgresql", 1),
    (parents_are_those_of_an_earlier_look, "redis", 1),
    (one_parent_goes_over_the_wire, "redis", 1),
    (too_many_parents_are_those_that_were_read, "sqlite", 1),
    (any_parent_will_do, "sqlite", 1),
    (every_parent_has_to_satisfy_a_condition, "sqlite", 1),
    (members_rest_on_each_other, "sqlite", 8),
)


@pytest.mark.seeded_bug
@pytest.mark.parametrize(("bug", "way", "seed"), BUGS, ids=[f"{bug.__name__} on {way}" for bug, way, _ in BUGS])
def test_seeded_bug_is_found(
    bug: Callable[[Patch], None], way: Way, seed: int, servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one rule broken some result goes stale: the tests above can fail."""
    bug(monkeypatch)
    with pytest.raises(StaleError, match=f"STALE: seed {seed}, case"):
        servers.run(way, seed=seed, cases=BOUND)
