"""Answers of mutations in a PostgreSQL database. See `changes/answers.py`."""

from __future__ import annotations

from typing import Final

from reactive_rpc.changes.answers import Answers, answers_sql

__all__ = ["DDL", "answers_on_postgresql"]

_TABLE: Final = "reactive_rpc.answers"
DDL: Final = f"CREATE TABLE {_TABLE} (key text PRIMARY KEY, input text NOT NULL, answer text, at timestamptz NOT NULL)"
_SQL: Final = answers_sql(
    _TABLE,
    now="pg_catalog.clock_timestamp()",
    oldest="pg_catalog.clock_timestamp() - pg_catalog.make_interval(secs => CAST(:seconds AS double precision))",
    some="LIMIT CAST(:rows AS bigint) FOR UPDATE SKIP LOCKED",
    lock="SELECT pg_catalog.pg_try_advisory_xact_lock(CAST(:number AS bigint))",
)


def answers_on_postgresql(kept_seconds: float) -> Answers:
    """Return the answers in a PostgreSQL database."""
    return Answers(_SQL, kept_seconds=kept_seconds)
