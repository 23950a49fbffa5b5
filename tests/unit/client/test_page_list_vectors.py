"""Lists in pages of both languages do the same, step by step."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from reactive_rpc.client.page_list import PageList
from tests.support.node import TYPESCRIPT, package_script, run_node

from .listing import act, play_game, seen_of

FILE = json.loads((Path(__file__).parents[2] / "vectors/pages.json").read_text(encoding="utf-8"))
GAMES = 300
STEPS = 40
LIMIT = 4


@pytest.mark.parametrize("vector", FILE["vectors"], ids=lambda vector: vector["name"])
def test_a_list_does_as_the_vector_says(vector: dict[str, Any]) -> None:
    """After each step, what the vector names is as it says."""
    pages: PageList[int] = PageList(vector["limit"])
    for number, step in enumerate(vector["steps"]):
        act(pages, step["do"])
        seen, wanted = seen_of(pages), step.get("then", {})
        assert {name: seen[name] for name in wanted} == wanted, f"step {number}: {step['do']}"


def replay_in_typescript(folder: Path) -> str:
    """Play games here, have the list in TypeScript play them again, and return what it says."""
    games: list[dict[str, Any]] = [
        {"name": f"game {number}", "limit": LIMIT, "steps": play_game(random.Random(number), limit=LIMIT, steps=STEPS)}
        for number in range(GAMES)
    ]
    shown = [step["then"] for game in games for step in game["steps"]]
    assert sum(len(seen["intervals"]) > 2 and seen["rows"] is not None for seen in shown) > GAMES
    assert any(seen["behind"] for seen in shown)
    played = folder / "played.json"
    played.write_text(json.dumps({"vectors": games}), encoding="utf-8")
    config = ["--config", str(TYPESCRIPT / "vitest.config.ts"), "--root", str(TYPESCRIPT), "--no-color"]
    program = Path(package_script("vitest/vitest.mjs"))
    environment = {"REACTIVE_PAGE_VECTORS": str(played)}
    return run_node(program, "run", "runtime/intervals.test.ts", *config, environment=environment, within_seconds=600)


def test_games_of_this_list_are_the_same_in_typescript(tmp_path: Path) -> None:
    """After each step, all that is seen is the same: intervals, rows, what is behind, whether more follows."""
    assert f"{GAMES} passed" in replay_in_typescript(tmp_path)


@pytest.mark.seeded_bug
def test_a_list_that_differs_from_the_typescript_one_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One joins larger pages than the other."""
    monkeypatch.setattr("reactive_rpc.client.page_list.GROWTH", 3)
    with pytest.raises(AssertionError, match=r"game \d+"):
        replay_in_typescript(tmp_path)
