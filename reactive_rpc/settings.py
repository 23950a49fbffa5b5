"""The one reader of the environment: each group of settings is a class, and `Settings` is all of them."""

from __future__ import annotations

from typing import Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    SecretStr,
)
from pydantic_settings import BaseSettings, SettingsConfigDict

__all__ = ["Settings"]


class _Group(BaseModel):
    model_config = ConfigDict(use_attribute_docstrings=True, frozen=True)


class ProcedureSettings(_Group):
    """What holds for every procedure, unless it is decorated otherwise."""

    environment: Literal["development", "production"] = "development"
    """In `development` a read of an undeclared table fails the call; in `production` it is logged and widens the
    dependency."""

    freshness: Literal["strict", "token"] = "strict"
    """When a stored result may be served, unless `Cache(freshness=...)` says so. `strict`: after the log was read, so
    the result reflects every write acknowledged before the request. `token`: without reading it, if the log has reached
    the version that the client has seen; see `cache/freshness.py`."""

    isolation: Literal["serializable", "repeatable_read", "read_committed"] = "serializable"
    """The isolation level of mutations, unless `define_reactive_function.mutation(isolation=...)` names one. On
    PostgreSQL `serializable` costs throughput if mutations read and write the same rows at once:
    docs/how-to/isolation.md."""

    idempotency_seconds: PositiveFloat = 24 * 3600.0
    """How long the server keeps the answer of a mutation that was sent with an `Idempotency-Key`. Whoever sends the
    mutation again with that key is given this answer."""


class CacheSettings(_Group):
    """The cache of one worker, and how it is checked."""

    cache_max_bytes: NonNegativeInt = 64 * 1024 * 1024
    """How much memory stored results may take. Past it, the least recently used are dropped."""

    audit_share: float = Field(default=0.0, ge=0.0, le=1.0)
    """Which share of the stored results that are served, and of the results that `invalidate_when` keeps, is computed
    again in the background and compared, see `cache/auditor.py`. Each costs a run of the handler, and a handler that
    answers differently by itself is reported."""


class RequestSettings(_Group):
    """Requests over HTTP."""

    max_body_bytes: PositiveInt = 1024 * 1024
    """The largest request body."""

    body_seconds: PositiveFloat = 10.0
    """How long a request body may take to arrive (408)."""

    max_upload_bytes: PositiveInt = 32 * 1024 * 1024
    """The largest body of a mutation that takes files: the files, and the JSON part beside them, which itself may have
    `max_body_bytes`. A larger one is refused (413) as soon as that is seen."""

    max_upload_files: PositiveInt = 100
    """How many files one call may send (413)."""

    upload_seconds: PositiveFloat = 300.0
    """How long the body of an upload may take to arrive (408)."""

    max_uploads: PositiveInt = 64
    """How many uploads one worker takes at once, from the first byte of each until its answer is sent (503): so many
    times `max_upload_bytes` may be on its disk."""

    max_uploads_per_identity: PositiveInt = 16
    """How many uploads one worker takes at once from one caller (429). Callers whom the context does not name count by
    their address."""

    metrics: bool = True
    """Whether `<prefix>/metrics` is served, for Prometheus. It shows counts and the paths of procedures to anybody who
    may reach the router: guard it by the dependencies that the router is included with, or turn it off."""


class DatabaseSettings(_Group):
    """The database, its connections and its log."""

    log_url: str | None = None
    """The own address of a PostgreSQL database that handlers reach through a connection pooler in transaction mode. The
    log, its locks, capture and the ephemeral store use it, see docs/how-to/pgbouncer.md."""

    pool_size: PositiveInt = 10
    """How many connections to PostgreSQL a worker keeps for queries, and how many it opens at most for mutations. More
    queries than that wait for their turn. Queries that other queries call have as many connections again."""

    pool_timeout_seconds: PositiveFloat = 5.0
    """How long a mutation waits for a connection before it fails."""

    busy_timeout_seconds: PositiveFloat = 5.0
    """How long a statement waits for SQLite's write lock before it fails."""

    poll_interval_seconds: PositiveFloat = 0.005
    """How far apart a worker's readings of the log are while streams are open and commits follow upon each other, or
    where no commit can wake it, or a relay's; four times as far while there are no streams. On PostgreSQL one reading
    costs a worker about half a millisecond."""

    outbox_retention_seconds: PositiveFloat = 3600.0
    """How long changes are kept in the database: a stream can resume so far back."""


class StreamSettings(_Group):
    """Event streams and long polls."""

    max_queries_per_stream: PositiveInt = 1000
    """How many queries one stream may watch."""

    recheck_seconds: NonNegativeFloat = 60.0
    """How often the server resolves the context of an open stream and runs its steps again, to notice an expired token
    or a caller who lost a right. 0 is never. A change of rows that a step has read, and `rpc.revoke`, act at once."""

    ticket_seconds: PositiveFloat = 30.0
    """How long a ticket for a stream's URL is good; it is good once."""

    set_seconds: PositiveFloat = 24 * 3600.0
    """How long the server keeps a stored set of queries for EventSource after it was last stored or used."""

    poll_wait_seconds: PositiveFloat = 25.0
    """How long a long poll waits at most before it answers that nothing happened."""

    heartbeat_seconds: NonNegativeFloat = 25.0
    """How long a stream may be silent: after that the server writes a comment to it. 0 is for ever. A client whose
    proxy forgets an idle connection then goes on to show the past, for as long as it listens."""

    stream_queue_events: PositiveInt = 256
    """How many events may wait for a slow reader, or for its acknowledgement, before a gap takes their place."""

    stream_queue_bytes: PositiveInt = 1024 * 1024
    """How many bytes of events may wait before a gap takes their place."""

    ack_retry_seconds: tuple[PositiveFloat, ...] = Field(default=(2.0, 5.0, 10.0), min_length=1)
    """How long the server waits for an acknowledgement before it sends an event again: after the first try, the second,
    and so on. After the last try it waits as long as before, and closes the stream; the client resumes on another."""

    reconnect_milliseconds: tuple[PositiveInt, PositiveInt] = (1000, 5000)
    """The least and the most of a stream's `retry:`, which is drawn from between, so that the clients of a server that
    ended do not all come back in one instant."""

    drain_seconds: NonNegativeFloat = 2.0
    """Over how long a server that is told to stop ends its open streams, one after another."""

    max_resumed_changes: PositiveInt = 5_000
    """How many changes of rows a client may have missed and still resume. After more it is sent a gap: it then fetches
    every result again, and is answered 304 for those that are the same."""


class LimitSettings(_Group):
    """What streams may cost one worker, and how much of that one caller may cost."""

    max_streams: PositiveInt = 20_000
    """How many event streams one worker holds open. Further ones are refused (503), for another worker to open."""

    max_streams_per_identity: PositiveInt = 100
    """How many streams of one worker one caller may have open (429). Callers whom the context does not name count by
    their address."""

    max_streamed_queries_per_identity: PositiveInt = 2
    """How many streamed queries of one worker one caller may read at a time (429): each holds a connection of the
    database for as long as its client takes."""

    stream_opens_per_second: PositiveFloat = 10.0
    """How many streams one caller may open a second on average; ten times as many at once (429)."""

    max_watched_queries: PositiveInt = 200_000
    """How many queries the streams of one worker may watch; a query that two streams watch counts twice. Further ones
    are refused (503), and queries that are watched already stay."""

    max_watched_queries_per_identity: PositiveInt = 10_000
    """How many queries the streams of one caller may watch; further ones are refused (429)."""

    max_watched_bytes: PositiveInt = 512 * 1024 * 1024
    """How much of a worker's memory watched queries may take beside the cache, estimated: inputs, contexts, read sets,
    and the requests from which contexts are resolved again. Further queries are refused (503)."""

    max_watched_bytes_per_identity: PositiveInt = 32 * 1024 * 1024
    """How much of that memory the queries of one caller may take; further ones are refused (429)."""

    max_stored_bytes: PositiveInt = 64 * 1024 * 1024
    """How much stored sets, tickets and acknowledgements may take in the ephemeral store, each kind for itself. Further
    ones are refused (503)."""

    max_stored_bytes_per_identity: PositiveInt = 4 * 1024 * 1024
    """How much one caller's stored sets may take there, and how much the tickets. Past it, the oldest of this caller
    are forgotten. A single one that is larger is refused (413)."""


class RedisSettings(_Group):
    """Redis, by which one relay reads the database for all workers."""

    redis_url: str | None = None
    """The Redis that a relay writes changes to and workers read them from. `redis://` is one server, `redis+cluster://`
    a cluster. None lets each worker read the database itself."""

    redis_namespace: str = Field(default="reactive_rpc", pattern=r"^[A-Za-z0-9_.-]{1,64}$")
    """The beginning of every key. Two applications on one Redis need different ones."""

    redis_shards: int = Field(default=1, ge=1, le=256)
    """Over how many Redis streams, and so over how many nodes of a cluster, the contents of changes are spread."""

    redis_scope_column: str = ""
    """The column by whose value rows are spread over the shards. Rows without it go to the shard of their table."""

    redis_stream_entries: PositiveInt = 100_000
    """How many batches of changes Redis keeps. A client that is further behind is sent a gap."""

    redis_stream_seconds: PositiveFloat = 3600.0
    """How long Redis keeps a batch at most. A relay removes old ones one by one; if there is no relay, all are gone so
    long after the last was written."""

    relay: bool = True
    """Whether this worker may become the relay. If no worker may, run `reactive-rpc relay`."""


class StoreSettings(_Group):
    """Results that workers share: in Redis, or in the store of `ReactiveRPC(store=)`."""

    build: str = ""
    """A name for the code that runs and for everything of its surroundings that a handler answers by. If it is given,
    workers of the same build share computed results. So it must change with every change of a handler or of its
    configuration, and differ between applications."""

    shared_value_seconds: PositiveFloat = 3600.0
    """How long a shared result is kept that no worker stores again."""

    store_secret: SecretStr | None = None
    """A secret that all workers have and the store has not. If it is given, whoever can write to the store cannot make
    up a result that a worker would take."""


class Settings(  # pyright: ignore[reportIncompatibleVariableOverride]  # BaseSettings narrows model_config
    StoreSettings,
    RedisSettings,
    LimitSettings,
    StreamSettings,
    DatabaseSettings,
    RequestSettings,
    CacheSettings,
    ProcedureSettings,
    BaseSettings,
):
    """Everything that can be tuned; each field may come from the environment as `REACTIVE_RPC_<FIELD>`; empty is unset.

    >>> Settings(pool_size=20).pool_size
    20

    Raises:
        pydantic.ValidationError: a value is of the wrong kind; it names the variable.
    """

    model_config = SettingsConfigDict(
        env_prefix="REACTIVE_RPC_", env_ignore_empty=True, frozen=True, use_attribute_docstrings=True
    )
