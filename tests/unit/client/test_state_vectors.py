"""The examples that the clients of all languages share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from reactive_rpc.client.state import QuerySnapshot, reduce

from .acting import action_of, seen_of

FILE = json.loads((Path(__file__).parents[2] / "vectors/state.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("vector", FILE["vectors"], ids=lambda vector: vector["name"])
def test_the_reducer_does_as_the_vector_says(vector: dict[str, Any]) -> None:
    """After each step, what the vector names shows as it says."""
    snapshot: QuerySnapshot[Any] = QuerySnapshot()
    for number, step in enumerate(vector["steps"]):
        snapshot = reduce(snapshot, action_of(step["do"]))
        seen, wanted = seen_of(snapshot), step.get("then", {})
        assert {name: seen[name] for name in wanted} == wanted, f"step {number}: {step['do']}"
