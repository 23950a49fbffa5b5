"""The one reader of the environment."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from pydantic_settings import BaseSettings, SettingsConfigDict

__all__ = ["Settings"]


class Settings(BaseSettings):
    """Everything that can be tuned; each field may come from the environment as `REACTIVE_RPC_<FIELD>`; empty is unset.

    Raises:
        pydantic.ValidationError: a value is of the wrong kind; it names the variable.

    Attributes:
        environment: in `development` a read of an undeclared table fails the call; in `production` it is logged
            and widens the dependency.
        freshness: of procedures that do not say themselves. `strict`: a stored result is served after a look at the
            log, so it reflects every write acknowledged before the request. `token`: without one, where the log has
            reached the version that the client has seen; see `cache/freshness.py`.
        isolation: of mutations that do not say themselves, see `define_reactive_function`. On PostgreSQL `serializable`
            costs throughput where mutations read and write the same rows at once: docs/how-to/isolation.md.
        audit_share: of the stored results that are served, and of the vetoes of `invalidate_when`, this share is
            computed again in the background and compared, see `cache/auditor.py`. 0 is none: each costs a run of the
            handler, and one that answers differently by itself would be reported.
        metrics: serve `<prefix>/metrics` for Prometheus. It tells counts and the paths of procedures, to anybody who
            may reach the router: guard it by the dependencies that the router is included with, or turn it off.
        cache_max_bytes: the memory store forgets the least recently used results past this.
        poll_interval_seconds: how often the log is looked at while streams are open, or relayed; a quarter as often
            while there are none. On PostgreSQL a look costs a worker about half a millisecond.
        busy_timeout_seconds: how long a statement waits for SQLite's write lock before it fails.
        log_url: of a PostgreSQL database, its own address, where handlers reach it through a connection pooler in
            transaction mode: the log, its locks, capture and the board use it, see docs/how-to/pgbouncer.md.
        pool_size: how many connections to PostgreSQL are kept for queries, and how many at most there are for
            mutations. More queries than that wait for their turn; those inside of others have as many more.
        pool_timeout_seconds: how long a mutation waits for a connection before it fails.
        max_body_bytes: the largest request body.
        body_seconds: how long a request body may take to arrive (408).
        max_queries_per_stream: the largest set of one stream.
        max_watched_queries: how many queries the streams of one worker watch, each stream's for itself; what comes past
            it is refused (503), and what is watched already stays.
        max_watched_queries_per_identity: how many of them are one caller's; what comes past it is refused (429).
        max_watched_bytes: what watched queries keep in a worker's memory beside the cache, estimated: inputs, contexts,
            what results rest on, the requests that streams are rechecked by; what comes past it is refused (503).
        max_watched_bytes_per_identity: how much of it is one caller's; what comes past it is refused (429).
        max_streams: how many event streams one worker holds open; past it, clients are sent elsewhere (503).
        max_streams_per_identity: how many of them one caller may have; callers whom the context does not name count by
            their address.
        stream_opens_per_second: how many streams one caller may open a second, over a while; at once, ten times that.
        recheck_seconds: how often the context of an open stream is resolved again, so that an expired token or a
            caller who lost a right is noticed; 0 is never. `rpc.revoke` acts at once.
        ticket_seconds: how long a ticket for a stream's URL may wait to be used, once.
        set_seconds: how long a stored set for EventSource is kept after it was last stored or used.
        max_stored_bytes: how much of stored sets, of tickets and of acknowledgements, each for itself, workers share
            beside the log; what comes past it is refused (503).
        max_stored_bytes_per_identity: how much of the sets, and of the tickets, is one caller's; past it, the oldest of
            their own are forgotten. What is larger is refused (413).
        poll_wait_seconds: how long a long poll waits at most before it answers that nothing happened.
        heartbeat_seconds: how long a stream may be silent: one that has nothing to tell says a comment by then. 0 is
            for ever: a proxy that forgets an idle connection then leaves its client with the past, for as long as it
            listens.
        stream_queue_events: how many events may wait for a slow reader, or for its acknowledgement, before a gap takes
            their place.
        stream_queue_bytes: the same in bytes.
        ack_retry_seconds: how long after each try an event that was not acknowledged is sent again; after as long as
            the last of them again, the stream is closed, and the client resumes on another.
        reconnect_milliseconds: the `retry:` of a stream is drawn from between these two, so that the clients of a
            server that ended do not all come back in one instant.
        drain_seconds: over how long open streams are ended, one after another, when the server is told to stop.
        idempotency_seconds: how long the answer of a mutation that was sent with an `Idempotency-Key` is kept, to be
            given again to whoever sends it again.
        outbox_retention_seconds: how far back a stream can resume.
        max_resumed_changes: a client that has missed more changes of rows than that is told of a gap: it then fetches
            again, and has a 304 for what is as it was.
        redis_url: where changes are relayed to and read from: one relay reads the database for all workers. None
            lets each worker read the database itself. `redis://` is one server, `redis+cluster://` a cluster.
        redis_namespace: begins every key; two applications on one Redis have different ones.
        redis_shards: over so many streams the contents of changes are spread (in a cluster: over its nodes).
        redis_scope_column: rows that have this column go to the shard of its value, others to that of their table.
        redis_stream_entries: how many batches of changes Redis keeps; who is further behind is told of a gap.
        redis_stream_seconds: how long it keeps one at most; a relay that lives forgets them one by one, and without one
            all are gone so long after the last.
        relay: whether this worker may become the relay; else somebody runs `reactive-rpc relay`.
        build: names the code that runs, and whatever else of its surroundings a handler answers by. Where it is given,
            workers share computed results through Redis; those of other builds are not looked at, so it must change
            with every change of a handler or of its configuration, and differ between applications.
        shared_value_seconds: how long Redis keeps a shared result that nobody stores anew.
    """

    model_config = SettingsConfigDict(env_prefix="REACTIVE_RPC_", env_ignore_empty=True, frozen=True)

    environment: Literal["development", "production"] = "development"
    freshness: Literal["strict", "token"] = "strict"
    isolation: Literal["serializable", "repeatable_read", "read_committed"] = "serializable"
    audit_share: float = Field(default=0.0, ge=0.0, le=1.0)
    metrics: bool = True
    cache_max_bytes: NonNegativeInt = 64 * 1024 * 1024
    poll_interval_seconds: PositiveFloat = 0.005
    busy_timeout_seconds: PositiveFloat = 5.0
    log_url: str | None = None
    pool_size: PositiveInt = 10
    pool_timeout_seconds: PositiveFloat = 5.0
    max_body_bytes: PositiveInt = 1024 * 1024
    body_seconds: PositiveFloat = 10.0
    max_queries_per_stream: PositiveInt = 1000
    max_watched_queries: PositiveInt = 200_000
    max_watched_queries_per_identity: PositiveInt = 10_000
    max_watched_bytes: PositiveInt = 512 * 1024 * 1024
    max_watched_bytes_per_identity: PositiveInt = 32 * 1024 * 1024
    max_streams: PositiveInt = 20_000
    max_streams_per_identity: PositiveInt = 100
    stream_opens_per_second: PositiveFloat = 10.0
    recheck_seconds: NonNegativeFloat = 60.0
    ticket_seconds: PositiveFloat = 30.0
    set_seconds: PositiveFloat = 24 * 3600.0
    max_stored_bytes: PositiveInt = 64 * 1024 * 1024
    max_stored_bytes_per_identity: PositiveInt = 4 * 1024 * 1024
    poll_wait_seconds: PositiveFloat = 25.0
    heartbeat_seconds: NonNegativeFloat = 25.0
    stream_queue_events: PositiveInt = 256
    stream_queue_bytes: PositiveInt = 1024 * 1024
    ack_retry_seconds: tuple[PositiveFloat, ...] = Field(default=(2.0, 5.0, 10.0), min_length=1)
    reconnect_milliseconds: tuple[PositiveInt, PositiveInt] = (1000, 5000)
    drain_seconds: NonNegativeFloat = 2.0
    idempotency_seconds: PositiveFloat = 24 * 3600.0
    outbox_retention_seconds: PositiveFloat = 3600.0
    max_resumed_changes: PositiveInt = 5_000
    redis_url: str | None = None
    redis_namespace: str = Field(default="reactive_rpc", pattern=r"^[A-Za-z0-9_.-]{1,64}$")
    redis_shards: int = Field(default=1, ge=1, le=256)
    redis_scope_column: str = ""
    redis_stream_entries: PositiveInt = 100_000
    redis_stream_seconds: PositiveFloat = 3600.0
    relay: bool = True
    build: str = ""
    shared_value_seconds: PositiveFloat = 3600.0
