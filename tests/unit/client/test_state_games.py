"""Thousands of games against the client's reducer; `REACTIVE_STATE_GAMES` plays more of them."""

from __future__ import annotations

import os
from typing import Final

import pytest

from .games import FAULTS, WrongError, play

GAMES: Final = int(os.environ.get("REACTIVE_STATE_GAMES", "1500"))
MAX_GAMES: Final = 3000


def test_every_frame_is_true_and_the_last_is_the_truth() -> None:
    """Whatever the order of answers, events, own mutations and failures."""
    for seed in range(GAMES):
        play(seed)


@pytest.mark.seeded_bug
@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault])
def test_a_seeded_fault_is_found(fault: str) -> None:
    """The games can fail."""
    with pytest.raises(WrongError):
        _play_many(fault)


def _play_many(fault: str) -> None:
    for seed in range(MAX_GAMES):
        play(seed, fault)
