"""Nothing stale is served and nobody is left untold, whoever writes; and each seeded bug is found.

`REACTIVE_SOUNDNESS_CASES` sets the number of cases; `make soundness` runs many.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest

from reactive_rpc.backends.sqlite.capture import triggers as sqlite_triggers
from reactive_rpc.backends.sqlite.log import SQLiteLog
from reactive_rpc.cache.matcher import ChangeMatcher
from reactive_rpc.cache.reader import Reader
from reactive_rpc.cache.result import HandlerOutcome
from reactive_rpc.changes.base_log import LogLimits
from reactive_rpc.dependencies.change import Change
from reactive_rpc.dependencies.index import Index
from reactive_rpc.subscriptions.reconciler import Reconciler

from .end_to_end import EndToEnd, WrongError

CASES = int(os.environ.get("REACTIVE_SOUNDNESS_CASES", "0")) // 10 or 40


def run(folder: Path, cases: int, seed: int = 1) -> EndToEnd:
    """Run cases on a fresh server."""
    trial = EndToEnd(folder)
    asyncio.run(trial.run(seed, cases))
    return trial


def test_nothing_is_stale_and_everybody_is_told(tmp_path: Path) -> None:
    """Cached answers and a stream's client agree with the database after every write, by any means."""
    trial = run(tmp_path, CASES)
    assert trial.counters["changed"] > CASES // 2, "the writes must matter"
    assert trial.counters["interrupted"] > CASES // 4, "writes must have come in the middle of queries"
    assert trial.counters["hits"] > CASES, "the cache must have been used"


def test_nothing_is_stale_if_writes_are_coalesced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With bounds so low that a few rows are a bulk write, and most polls take in some tables as a whole."""
    for name, bound in (("BULK_WINDOW", 16), ("BULK_ROWS", 8), ("STEP", 4)):
        monkeypatch.setattr(sqlite_triggers, name, bound)
    monkeypatch.setattr(SQLiteLog.__init__, "__defaults__", (LogLimits(bulk_threshold=3),))
    trial = run(tmp_path, CASES, seed=3)
    assert trial.counters["changed"] > CASES // 2, "the writes must matter"
    assert trial.counters["hits"] > CASES // 2, "the cache must have been used"


def _ignore_log(monkeypatch: pytest.MonkeyPatch) -> None:
    is_after_miss = ContextVar("is_after_miss", default=False)
    reach, read = Reader._reach, SQLiteLog.sync_to_head

    async def reached(self: Reader, outcome: HandlerOutcome) -> None:
        token = is_after_miss.set(True)
        await reach(self, outcome)
        is_after_miss.reset(token)

    async def sync_to_head(self: SQLiteLog) -> int:
        return await read(self) if is_after_miss.get() else self.version

    monkeypatch.setattr(Reader, "_reach", reached)
    monkeypatch.setattr(SQLiteLog, "sync_to_head", sync_to_head)


def _match_after_only(monkeypatch: pytest.MonkeyPatch) -> None:
    match = Index.match

    def only_after(self: Index[Any], change: Change) -> set[Any]:
        image = None if change.operation == "update" else change.before
        return match(
            self,
            Change(
                table=change.table,
                operation=change.operation,
                before=image,
                after=change.after,
                changed=change.changed,
                keys=change.keys,
            ),
        )

    monkeypatch.setattr(Index, "match", only_after)


def _no_replace_triggers(monkeypatch: pytest.MonkeyPatch) -> None:
    made = sqlite_triggers.triggers_of

    def without(table: Any, **options: Any) -> dict[str, str]:
        return {name: sql for name, sql in made(table, **options).items() if " BEFORE " not in sql}

    monkeypatch.setattr("reactive_rpc.backends.sqlite.capture.backend.triggers_of", without)


def _store_without_checking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ChangeMatcher, "touched_since", lambda self, version, result: False)


def _no_refresh(monkeypatch: pytest.MonkeyPatch) -> None:
    async def recompute(self: Reconciler, query: Any) -> bool:
        return False

    monkeypatch.setattr(Reconciler, "_recompute", recompute)


def _drop_only_first(monkeypatch: pytest.MonkeyPatch) -> None:
    drop = Reader._drop
    monkeypatch.setattr(Reader, "_drop", lambda self, entries, version: drop(self, list(entries)[:1], version))


@pytest.mark.seeded_bug
@pytest.mark.parametrize(
    "seed_bug",
    [
        pytest.param(_ignore_log, id="hits are not validated against the log"),
        pytest.param(_match_after_only, id="an update is matched after only"),
        pytest.param(_no_replace_triggers, id="REPLACE is not captured"),
        pytest.param(_store_without_checking, id="a result is stored although a write overtook it"),
        pytest.param(_no_refresh, id="a watched query is not computed again"),
        pytest.param(_drop_only_first, id="one of several touched entries is dropped"),
    ],
)
def test_seeded_bug_is_found(
    seed_bug: Callable[[pytest.MonkeyPatch], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a bug in the server, some case goes wrong: the test above can fail. (Seed 2 finds all of them soon.)"""
    seed_bug(monkeypatch)
    with pytest.raises(WrongError):
        run(tmp_path, 400, seed=2)
