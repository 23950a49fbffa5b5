"""Metrics: what Prometheus is told is what happened."""

from __future__ import annotations

from pathlib import Path

import pytest
from fastapi import Depends, FastAPI, HTTPException
from prometheus_client.parser import text_string_to_metric_families

from reactive_rpc import ReactiveRPC
from reactive_rpc.web.routing.metrics import COUNTERS, GAUGES

from .rooms import Server, serving

pytestmark = pytest.mark.anyio


async def scraped(server: Server) -> dict[str, float]:
    """Return `{sample: value}`; a sample of one procedure is named with its path."""
    response = await server.client.get("/rpc/metrics")
    assert response.headers["content-type"].startswith("text/plain")
    families = text_string_to_metric_families(response.text)
    return {
        " ".join([sample.name, *sample.labels.values()]): sample.value
        for family in families
        for sample in family.samples
    }


async def test_the_counters_say_what_happened(server: Server) -> None:
    """A miss, a hit, an invalidation and a needless one, in all and for the procedure."""
    before = await scraped(server)
    for _ in range(2):
        await server.call("notes.in_room", {"room": "r"})
    server.write("INSERT INTO note (tenant, room, text) VALUES ('t', 'r', 'a')")
    await server.call("notes.in_room", {"room": "r"})
    server.write("UPDATE note SET text = 'b'")
    await server.rpc._freshness.sync_to_head()  # or both were looked at together, and had changed nothing
    server.write("UPDATE note SET text = 'a'")
    await server.call("notes.in_room", {"room": "r"})
    after = await scraped(server)
    grown = {name: after[name] - before.get(name, 0) for name in after}
    assert grown["reactive_rpc_hits_total"] == grown["reactive_rpc_procedure_hits_total notes.in_room"] == 1
    assert grown["reactive_rpc_misses_total"] == grown["reactive_rpc_procedure_misses_total notes.in_room"] == 3
    assert (grown["reactive_rpc_invalidated_total"], grown["reactive_rpc_needless_total"]) == (2, 1)
    assert (after["reactive_rpc_indexed"], after["reactive_rpc_cached"]) == (1, 1)
    assert after["reactive_rpc_cached_bytes"] > 1000
    assert after["reactive_rpc_log_version"] > before["reactive_rpc_log_version"]
    assert grown["reactive_rpc_log_polls_total"] >= 4
    assert 0 <= after["reactive_rpc_log_age_seconds"] < 10


async def test_the_counters_are_those_of_stats(server: Server) -> None:
    """Every number of `stats()` is served, and none that is not there."""
    names = {f"reactive_rpc_{name}_total" for name in COUNTERS} | {f"reactive_rpc_{name}" for name in GAUGES}
    assert names == set(await scraped(server))
    assert COUNTERS.keys() | GAUGES.keys() == server.rpc.admin.stats().keys()


async def test_two_applications_count_for_themselves(server: Server, tmp_path: Path) -> None:
    """There is no registry of the process that they would meet in."""
    async with serving(tmp_path / "other.db") as other:
        await other.call("notes.in_room", {"room": "r"})
        assert (await scraped(other))["reactive_rpc_misses_total"] == 1
        assert (await scraped(server))["reactive_rpc_misses_total"] == 0


async def test_metrics_are_no_part_of_the_document(server: Server) -> None:
    """Clients are generated without them; another method is refused like anywhere."""
    assert not [path for path in server.app.openapi()["paths"] if "metrics" in path]
    assert (await server.client.post("/rpc/metrics")).status_code == 405


async def test_metrics_can_be_turned_off(file: Path) -> None:
    """Then the path is nobody's."""
    async with serving(file, settings={"metrics": False}) as server:
        assert (await server.client.get("/rpc/metrics")).status_code == 404


async def test_the_routers_dependencies_guard_metrics(file: Path) -> None:
    """Whoever includes the router behind a login has the metrics behind it too."""

    def refuse() -> None:
        raise HTTPException(401, "who are you?")

    def guarded(rpc: ReactiveRPC) -> FastAPI:
        app = FastAPI(lifespan=rpc.lifespan)
        app.include_router(rpc.router, dependencies=[Depends(refuse)])
        return app

    async with serving(file, make_app=guarded) as server:
        assert (await server.client.get("/rpc/metrics")).status_code == 401


async def test_an_audit_is_counted(file: Path) -> None:
    """`REACTIVE_RPC_AUDIT_SHARE=1` compares every hit with the database, and finds nothing here."""
    async with serving(file, settings={"audit_share": 1.0}) as server:
        for _ in range(3):
            await server.call("notes.in_room", {"room": "r"})
            await server.rpc.admin.auditor.drain()
        assert (await scraped(server))["reactive_rpc_audited_total"] == 2
        assert server.rpc.admin.auditor.findings == ()
