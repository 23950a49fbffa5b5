"""Answers of mutations, kept under the key that their caller gave: in the mutation's own transaction, or not at all.

A claim is a row without an answer, inserted before the handler runs; the answer is put into it before the commit. So a
row that anybody else can see has its answer, a mutation that was rolled back has left none, and of two transactions
that claim one key at once the unique index lets one through, whatever either of them can see.

On PostgreSQL the second would wait at that index for the first to end. So an advisory lock, which ends with the
transaction, is asked for first, and it is told at once that the first is still running. On SQLite it waits for the
write lock anyway, and then finds the answer.

Keys and inputs are stored as digests: what stands here says nothing of who called, nor of what was asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, TextClause, text

__all__ = ["Answers", "AnswersSQL", "Claim", "Kept", "answers_sql"]

MAX_ANSWER_BYTES: Final = 1024 * 1024
"""A longer answer is not kept; that the mutation was made is."""

PRUNE_ROWS: Final = 10_000


@dataclass(frozen=True, slots=True)
class Claim:
    """A call that must be made once.

    Attributes:
        key: a digest of path, caller and the key that was given.
        input: a digest of the input.
    """

    key: str
    input: str


@dataclass(frozen=True, slots=True)
class Kept:
    """What stands under a key.

    Attributes:
        input: a digest of the input that it was made with; None while the mutation that claimed it is running.
        answer: its output as JSON; None where it was too long to be kept.
    """

    input: str | None
    answer: bytes | None


@dataclass(frozen=True, slots=True)
class AnswersSQL:
    """How a database says what is needed; `lock` is None where the write lock is enough."""

    lock: TextClause | None
    claim: TextClause
    find: TextClause
    keep: TextClause
    prune: TextClause


class Answers:
    """The kept answers of one database. Every call is part of the transaction of the connection that it is given.

    Args:
        sql: how its database says what is needed.
        kept_seconds: how long an answer stands; after that its key may be used anew.
    """

    def __init__(self, sql: AnswersSQL, *, kept_seconds: float) -> None:
        self._sql = sql
        self._kept_seconds = kept_seconds

    def claim(self, connection: Connection, claim: Claim) -> Kept | None:
        """Claim a key, or return what stands under it; None is for the caller to go on."""
        if self._sql.lock is not None:
            number = int.from_bytes(bytes.fromhex(claim.key[:16]), signed=True)
            if not connection.execute(self._sql.lock, {"number": number}).scalar():
                return Kept(None, None)
        values = {"key": claim.key, "input": claim.input, "seconds": self._kept_seconds}
        if connection.execute(self._sql.claim, values).first() is not None:
            return None
        found = connection.execute(self._sql.find, {"key": claim.key}).one()
        return Kept(found.input, None if found.answer is None else found.answer.encode())

    def keep(self, connection: Connection, claim: Claim, answer: bytes) -> None:
        """Put the answer where the key was claimed."""
        if len(answer) <= MAX_ANSWER_BYTES:
            values = {"key": claim.key, "input": claim.input, "answer": answer.decode()}
            connection.execute(self._sql.keep, values)

    def prune(self, connection: Connection) -> None:
        """Delete what has stood long enough, a bounded number at a time, and commit."""
        values = {"seconds": self._kept_seconds, "rows": PRUNE_ROWS}
        while connection.execute(self._sql.prune, values).rowcount == PRUNE_ROWS:
            connection.commit()
        connection.commit()


def answers_sql(table: str, *, now: str, oldest: str, some: str, lock: str | None) -> AnswersSQL:
    """Return the statements for a table.

    Args:
        now: the time as SQL.
        oldest: before which an answer has stood long enough, by `:seconds`.
        some: what bounds a pruning to `:rows`.
        lock: asks for the lock of `:number` until the transaction ends, and says whether it was free.
    """
    return AnswersSQL(
        lock=None if lock is None else text(lock),
        claim=text(
            f"INSERT INTO {table} AS kept (key, input, at) VALUES (:key, :input, {now}) ON CONFLICT (key) DO UPDATE"
            f" SET input = excluded.input, answer = NULL, at = excluded.at WHERE kept.at < {oldest} RETURNING 1"
        ),
        find=text(f"SELECT input, answer FROM {table} WHERE key = :key"),
        # An INSERT that meets the row goes by the unique index. An UPDATE would look for it, in a small table by
        # reading it whole, and a serializable transaction that did so would collide with every other that claims a key.
        keep=text(
            f"INSERT INTO {table} (key, input, answer, at) VALUES (:key, :input, :answer, {now})"
            " ON CONFLICT (key) DO UPDATE SET answer = excluded.answer"
        ),
        prune=text(f"DELETE FROM {table} WHERE key IN (SELECT key FROM {table} WHERE at < {oldest} {some})"),
    )
