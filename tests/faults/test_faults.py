"""The matrix of faults on every tier; `make test` plays each cell once, `make faults` all of them on every tier.

`REACTIVE_FAULT_TRIALS` is how often each cell is played, `REACTIVE_FAULT_PAUSE_SECONDS` how long a part stays stopped
or cut off, `REACTIVE_FAULT_SEED` what everything random is made of.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

from .books import Verdict
from .deployment import FAULTS, Component, Fault, Tier, components, deployed
from .trial import LIE_SECONDS, PAUSE_SECONDS, play

TRIALS = int(os.environ.get("REACTIVE_FAULT_TRIALS", "0"))
SEED = os.environ.get("REACTIVE_FAULT_SEED", "1")
TIERS: tuple[Tier, ...] = get_args(Tier)

SHORT: dict[Tier, tuple[Component, ...]] = {
    "sqlite": ("worker", "proxy", "client"),
    "postgresql": ("postgresql",),
    "redis": ("relay", "redis"),
}
"""Where each part is tried in the short run: on the simplest tier that has it."""


def cells(tier: Tier) -> Iterator[tuple[Component, Fault]]:
    """Yield what is to be tried on a tier."""
    for component in components(tier) if TRIALS else SHORT[tier]:
        for fault in FAULTS:
            yield component, fault


def pause_seconds_of(component: Component, fault: Fault) -> float:
    """Return how long a part stays stopped or cut off; where others can still write, long enough for a lie to show."""
    is_cut_off = (component, fault) in (("postgresql", "cut"), ("redis", "cut"))
    return max(PAUSE_SECONDS, LIE_SECONDS + 1.0) if is_cut_off else PAUSE_SECONDS


def print_verdicts(name: str, verdicts: list[Verdict], capsys: pytest.CaptureFixture[str]) -> None:
    """Print what was found where a long run was asked for, to be recorded."""
    if not TRIALS:
        return
    with capsys.disabled():
        sys.stdout.write(
            f"\n| {name} | {len(verdicts)} | {sum(one.commits for one in verdicts)}"
            f" | {sum(one.expected for one in verdicts)} | {sum(one.events for one in verdicts)}"
            f" | {sum(len(one.lost) for one in verdicts)}"
            f" | {max(one.silence_seconds for one in verdicts):.1f} | {max(one.lie_seconds for one in verdicts):.1f} |"
        )


@pytest.mark.parametrize("tier", TIERS)
def test_nothing_is_lost_and_all_end_right(
    tier: Tier, tmp_path: Path, subtests: pytest.Subtests, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever befalls a part while others write: what a stream was owed was told or covered, and all end right."""
    with deployed(tier, tmp_path) as deployment:
        for component, fault in cells(tier):
            verdicts: list[Verdict] = []
            for number in range(TRIALS or 1):
                seed = f"{SEED} {tier} {component} {fault} {number}"
                with subtests.test(seed):
                    pause_seconds = pause_seconds_of(component, fault)
                    verdict = asyncio.run(play(deployment, component, fault, seed=seed, pause_seconds=pause_seconds))
                    verdicts.append(verdict)
                    assert not verdict.faults, f"seed {seed!r}, pause {pause_seconds:g} s"
                    assert verdict.lie_seconds < LIE_SECONDS
                    assert verdict.expected > verdict.commits > 0
            if verdicts:
                print_verdicts(f"{tier}, {component}, {fault}", verdicts, capsys)
