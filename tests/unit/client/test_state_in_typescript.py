"""The reducers of both languages do the same: games that the TypeScript one has played are played again here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from reactive_rpc.client.state import QuerySnapshot, reduce
from tests.support.node import TYPESCRIPT, package_script, run_node

from .acting import action_of, seen_of

GAMES = 200
QUERIES = 2
"""Of each game, which has a sequence of actions for each."""


def test_games_of_the_typescript_reducer_show_the_same_here(tmp_path: Path) -> None:
    """After each action, all that shows is the same: data, whether it is stale, pending or loading, the error."""
    played = tmp_path / "played.json"
    config = ["--config", str(TYPESCRIPT / "vitest.config.ts"), "--root", str(TYPESCRIPT)]
    written = ["runtime/games.test.ts", "--testNamePattern", "games are written"]
    program = Path(package_script("vitest/vitest.mjs"))
    run_node(program, "run", *written, *config, environment={"REACTIVE_STATE_PLAYED": str(played)})
    games = json.loads(played.read_text(encoding="utf-8"))["vectors"]
    assert len(games) == GAMES * QUERIES
    assert sum(len(game["steps"]) for game in games) > GAMES * QUERIES * 5
    for game in games:
        _play(game)


def _play(game: dict[str, Any]) -> None:
    snapshot: QuerySnapshot[Any] = QuerySnapshot()
    for number, step in enumerate(game["steps"]):
        snapshot = reduce(snapshot, action_of(step["do"]))
        assert seen_of(snapshot) == step["then"], f"{game['name']}, step {number}: {step['do']}"
