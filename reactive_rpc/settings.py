"""The one reader of the environment."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from pydantic_settings import BaseSettings, SettingsConfigDict

__all__ = ["Settings"]


class Settings(BaseSettings):
    """Everything that can be tuned; each field may come from the environment as `REACTIVE_RPC_<FIELD>`.

    Raises:
        pydantic.ValidationError: a value is of the wrong kind; it names the variable.

    Attributes:
        environment: in `development` a read of an undeclared table fails the call; in `production` it is logged
            and widens the dependency.
        freshness: of procedures that do not say themselves. `strict`: a stored result is served after a look at the
            log, so it reflects every write acknowledged before the request. `token`: without one, where the log has
            reached the version that the client has seen; see `cache/freshness.py`.
        audit_share: of the stored results that are served, and of the vetoes of `invalidate_when`, this share is
            computed again in the background and compared, see `cache/auditor.py`. 0 is none: each costs a run of the
            handler, and one that answers differently by itself would be reported.
        metrics: serve `<prefix>/metrics` for Prometheus. It tells counts and the paths of procedures, to anybody who
            may reach the router: guard it by the dependencies that the router is included with, or turn it off.
        cache_max_bytes: the memory store forgets the least recently used results past this.
        poll_interval_seconds: how often the log is looked at when nobody asks.
        busy_timeout_seconds: how long a statement waits for SQLite's write lock before it fails.
        pool_size: how many connections to PostgreSQL are kept for queries, and how many at most there are for
            mutations. More queries than that wait for their turn; those inside of others have as many more.
        pool_timeout_seconds: how long a mutation waits for a connection before it fails.
        max_body_bytes: the largest request body.
        max_queries_per_stream: the largest set of one stream.
        stored_sets_max_bytes: of sets for EventSource a worker remembers so much; the least recently used goes first.
        heartbeat_seconds: how often an idle stream says that it lives; 0 is never. Set it where proxies or clients
            cannot notice a dead connection otherwise.
        stream_queue_events: how many events may wait for a slow reader before a gap takes their place.
        outbox_retention_seconds: how far back a stream can resume.
    """

    model_config = SettingsConfigDict(env_prefix="REACTIVE_RPC_", frozen=True)

    environment: Literal["development", "production"] = "development"
    freshness: Literal["strict", "token"] = "strict"
    audit_share: float = Field(default=0.0, ge=0.0, le=1.0)
    metrics: bool = True
    cache_max_bytes: NonNegativeInt = 64 * 1024 * 1024
    poll_interval_seconds: PositiveFloat = 0.02
    busy_timeout_seconds: PositiveFloat = 5.0
    pool_size: PositiveInt = 10
    pool_timeout_seconds: PositiveFloat = 5.0
    max_body_bytes: PositiveInt = 1024 * 1024
    max_queries_per_stream: PositiveInt = 1000
    stored_sets_max_bytes: PositiveInt = 16 * 1024 * 1024
    heartbeat_seconds: NonNegativeFloat = 0.0
    stream_queue_events: PositiveInt = 256
    outbox_retention_seconds: PositiveFloat = 3600.0
