"""Callers of a tenant who are sent to one worker: it alone computes and holds the tenant's results."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from tests.support.processes import Uvicorn
from tests.support.proxies import Caddy, balancing_among

from .running import running

TENANTS = 7
"""An odd number, so that what takes two workers in turn takes each for every tenant."""
ASKED = 6


def computed(workers: list[Uvicorn]) -> list[int]:
    return [int(httpx.get(f"{worker.url}/worker").json()["misses"]) for worker in workers]


def asked_by_all(url: str) -> None:
    """Each tenant asks for what is its own, again and again, over connections of their own."""
    for _ in range(ASKED):
        for tenant in range(TENANTS):
            headers = {"x-tenant": f"tenant-{tenant}"}
            assert httpx.get(f"{url}/rpc/notes.get", params={"id": tenant}, headers=headers).status_code == 200


@pytest.mark.parametrize(("policy", "times"), [("header x-tenant", 1), ("round_robin", 2)])
def test_each_result_is_computed_by_as_many_workers_as_are_asked(policy: str, times: int, tmp_path: Path) -> None:
    """By its tenant's name each comes to one worker; in turn, to each of them. So it does when one has ended."""
    with ExitStack() as stack:
        database = f"sqlite+aiosqlite:///{tmp_path / 'notes.db'}"
        workers = [stack.enter_context(running(database)) for _ in range(2)]
        ports = [worker.port for worker in workers]
        directives = balancing_among(ports, "lb_try_duration 10s", policy=policy)
        balancer = stack.enter_context(Caddy(tmp_path, directives, asks="/worker"))
        asked_by_all(balancer.url)
        assert sum(computed(workers)) == times * TENANTS
        workers[0].end()
        asked_by_all(balancer.url)
        assert computed(workers[1:]) == [TENANTS]
