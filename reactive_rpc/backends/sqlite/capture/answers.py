"""Answers of mutations in a SQLite file. See `changes/answers.py`."""

from __future__ import annotations

from typing import Final

from reactive_rpc.backends.sqlite.capture.tables import ANSWERS
from reactive_rpc.changes.answers import Answers, answers_sql

__all__ = ["DDL", "answers_on_sqlite"]

DDL: Final = (
    f'CREATE TABLE "{ANSWERS}" (key TEXT PRIMARY KEY, input TEXT NOT NULL, answer TEXT, at INTEGER NOT NULL)'
    " WITHOUT ROWID"
)
_SQL: Final = answers_sql(
    ANSWERS,
    now="CAST(strftime('%s', 'now') AS INTEGER)",
    oldest="CAST(strftime('%s', 'now') AS INTEGER) - :seconds",
    some="LIMIT :rows",
    lock=None,
)


def answers_on_sqlite(kept_seconds: float) -> Answers:
    """Return the answers in a SQLite file."""
    return Answers(_SQL, kept_seconds=kept_seconds)
