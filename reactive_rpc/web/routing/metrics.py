"""Metrics for Prometheus: the counters that the parts keep anyway, read when they are asked for.

Each application has a registry of its own, so that two in one process do not meet; nothing is counted twice, and
nothing is written on the way of a call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from fastapi.dependencies.models import Dependant
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.types import Receive, Scope

from reactive_rpc.clock import IdSource
from reactive_rpc.web.routing.dependencies import resolved
from reactive_rpc.web.routing.dispatcher import Endpoint
from reactive_rpc.web.routing.responses import Answer

__all__ = ["COUNTERS", "GAUGES", "MetricsEndpoint"]

COUNTERS: Final = {
    "hits": "Answers from the store",
    "served_stale": "Answers from the store during an outage, marked as stale",
    "misses": "Answers computed for a request of its own",
    "joined": "Answers computed once for several requests",
    "stored": "Results put into the store",
    "shared_hits": "Results taken from another worker and found to hold",
    "shared_puts": "Results offered to other workers",
    "shared_rejected": "Results of other workers that did not hold any more",
    "expired": "Results dropped as a tick or their time to live had ended",
    "invalidated": "Results dropped as a change touched them",
    "needless": "Results dropped that came out the same again",
    "kept": "Changes that invalidate_when called harmless",
    "evicted": "Results dropped for lack of room",
    "flushes": "How often everything was dropped",
    "outdated": "Results that a write or a tick overtook while they were computed",
    "uncacheable": "Results of which nothing tells when they change",
    "audited": "Stored results computed again and compared",
    "stale": "Audited results that were stale",
    "wrongly_ignored": "Audited results that invalidate_when had wrongly kept",
    "audits_undecided": "Audits overtaken by a change, or whose handler failed",
    "audits_skipped": "Audits left out as too many were waiting",
    "events": "Events that were handed to a connection, without those sent again",
    "events_with_results": "Events of them that carried a result",
    "events_acknowledged": "Events that clients said they had received",
    "events_retried": "Events that were sent again for want of an acknowledgement",
    "events_abandoned": "Events unacknowledged when their stream was given up; the client resumes by its cursor",
    "gaps": "Events of them that told of a gap",
    "streams_opened": "Event streams opened",
    "polls": "Long polls for events",
    "streams_refused": "Event streams refused",
    "streams_revoked": "Event streams ended as their caller was revoked",
    "rechecks": "Contexts of open streams that were resolved again",
    "recheck_failures": "Times that this failed for another reason than a refusal",
    "mutations_repeated": "Attempts of mutations after one that another write had overtaken",
    "log_polls": "Looks at the log",
    "log_errors": "Looks at the log that failed",
}
"""`{name in rpc.admin.stats(): help}` of what only grows; served as `reactive_rpc_<name>_total`."""

GAUGES: Final = {
    "computing": "Handlers of queries running now",
    "indexed": "Results in the index",
    "cached": "Results in the store",
    "cached_bytes": "Bytes that they take, estimated",
    "streams": "Open event streams",
    "watched_queries": "Queries that streams watch",
    "watched_bytes": "Bytes that they take beside the results themselves, estimated",
    "waiting_bytes": "Bytes of events that wait for slow readers",
    "log_version": "Version of the log applied here",
    "log_age_seconds": "Seconds since the log was last read successfully",
}
"""The same of what goes up and down; served as `reactive_rpc_<name>`."""


class MetricsEndpoint(Endpoint):
    """Serves the metrics of one application as text.

    Args:
        stats: returns `{name: value}` with every name of `COUNTERS` and `GAUGES`.
        by_procedure: returns `{"hits": {path: hits}, "misses": {path: misses and joined}}`.
    """

    def __init__(
        self,
        path: str,
        ids: IdSource,
        *,
        stats: Callable[[], Mapping[str, float]],
        by_procedure: Callable[[], Mapping[str, Mapping[str, int]]],
    ) -> None:
        super().__init__(path, ids)
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(_Counters(stats, by_procedure))

    async def answer(self, scope: Scope, receive: Receive, dependencies: list[Dependant]) -> Answer:
        """Read the counters and spell them."""
        self.require_method(scope, ("GET",))
        async with resolved(Request(scope, receive), dependencies) as found:
            return found.add_to(Answer(200, generate_latest(self._registry), _TEXT))


_TEXT = ((b"content-type", CONTENT_TYPE_PLAIN_0_0_4.encode()), (b"cache-control", b"no-store"))


class _Counters(Collector):
    def __init__(
        self, stats: Callable[[], Mapping[str, float]], by_procedure: Callable[[], Mapping[str, Mapping[str, int]]]
    ) -> None:
        self._stats = stats
        self._by_procedure = by_procedure

    def collect(self) -> Iterator[Metric]:
        stats: Mapping[str, Any] = self._stats()
        for name, text in COUNTERS.items():
            yield CounterMetricFamily(f"reactive_rpc_{name}", text, value=stats[name])
        for name, text in GAUGES.items():
            yield GaugeMetricFamily(f"reactive_rpc_{name}", text, value=stats[name])
        for name, by_path in self._by_procedure().items():
            family = CounterMetricFamily(f"reactive_rpc_procedure_{name}", f"The {name} of each query", labels=["path"])
            for path, count in by_path.items():
                family.add_metric([path], count)
            yield family
