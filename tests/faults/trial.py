"""One trial: listeners and writers at work, something befalls one part, all becomes right again; and the verdict."""

from __future__ import annotations

import asyncio
import os
import random
from typing import Final

from tests.support.waiting import became, idle, until

from .audience import SILENCES_MISSED, Audience, audience
from .books import Verdict
from .deployment import HEARTBEAT_SECONDS, Component, Deployment, Fault

__all__ = ["LIE_SECONDS", "PAUSE_SECONDS", "play"]

PAUSE_SECONDS: Final = float(os.environ.get("REACTIVE_FAULT_PAUSE_SECONDS", "1.5"))
"""How long a part is stopped, or cut off."""

CALM_SECONDS: Final = 40.0
"""How long all may take to be right once everything works and nobody writes."""

LIE_SECONDS: Final = SILENCES_MISSED * HEARTBEAT_SECONDS + 5.0
"""How long a watch may show a wrong result as fresh: until missing heartbeats are noticed, and some more."""

COMMITS_BEFORE = 8
COMMITS_AFTER = 15


async def play(
    deployment: Deployment,
    component: Component,
    fault: Fault,
    *,
    seed: str,
    pause_seconds: float = PAUSE_SECONDS,
    calm_seconds: float = CALM_SECONDS,
    commits_after: int = COMMITS_AFTER,
) -> Verdict:
    """Play one trial and return what it found.

    Args:
        seed: what is random is made of it.
        pause_seconds: how long a part stays stopped or cut off.
        calm_seconds: how long all may take to be right in the end.
        commits_after: how many commits there are at least once the part works again.
    """
    rng = random.Random(seed)
    async with audience(deployment.url, rng) as listening:
        await until(listening.is_listening, "nobody listens", within_seconds=CALM_SECONDS)
        for number, writer in enumerate(deployment.writers):
            writer.go(f"{seed} {number}")
        try:
            await _committed(deployment, COMMITS_BEFORE + rng.randrange(COMMITS_BEFORE))
            await _befall(deployment, component, fault, pause_seconds)
            await _committed(deployment, len(deployment.commits()) + commits_after)
        finally:
            for writer in deployment.writers:
                await asyncio.to_thread(writer.rest)
        return await _settled(deployment, listening, calm_seconds)


async def _befall(deployment: Deployment, component: Component, fault: Fault, pause_seconds: float) -> None:
    mend = await asyncio.to_thread(deployment.break_, component, fault)
    try:
        if fault in ("stop", "cut"):
            await idle(pause_seconds, because="the part is gone for so long")
    finally:
        await asyncio.to_thread(mend)


async def _settled(deployment: Deployment, listening: Audience, calm_seconds: float) -> Verdict:
    """Wait until all is right, or long enough; then close the books."""
    commits = deployment.commits()
    truth = await asyncio.to_thread(deployment.truth)
    await became(lambda: not listening.behind(truth, commits), within_seconds=calm_seconds)
    verdict = listening.verdict(commits)
    verdict.behind = listening.behind(truth, commits)
    verdict.undone = [f"{commit} was undone" for commit in commits if truth[commit.row] < commit.n]
    return verdict


async def _committed(deployment: Deployment, how_many: int) -> None:
    await until(lambda: len(deployment.commits()) >= how_many, "the writers do not write", within_seconds=CALM_SECONDS)
