"""The fault suite can fail: bugs that are put in are found."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from reactive_rpc.client import channels
from reactive_rpc.protocol.events import Event, Gap, decode_event
from reactive_rpc.protocol.sse import ServerSentEvent

from .deployment import Deployment, deployed
from .trial import play

ATTEMPTS = 6
SOON_SECONDS = 3.0
"""How long all may take to be right here; without the bug it takes a fraction of one."""
STALLED_SECONDS = 1.5
"""How long a stream is stalled that must overflow: for a longer silence a client leaves it, and is right on another."""


def find(deployment: Deployment, what: str) -> None:
    """Play until a fault of a kind is found."""
    for number in range(ATTEMPTS):
        verdict = asyncio.run(
            play(deployment, "client", "cut", seed=f"bug {number}", calm_seconds=SOON_SECONDS, commits_after=2)
        )
        if getattr(verdict, what):
            return
    raise AssertionError(f"nothing was {what}")


@pytest.mark.seeded_bug
def test_dropped_invalidations_are_found(tmp_path: Path) -> None:
    """A hub that forgets one in four invalidated results leaves clients behind."""
    with deployed("sqlite", tmp_path, bug="drop") as deployment:
        find(deployment, "behind")


@pytest.mark.seeded_bug
def test_a_resume_that_forgets_is_found(tmp_path: Path) -> None:
    """A server that tells whoever resumes of nothing loses what came in between."""
    with deployed("sqlite", tmp_path, bug="resume") as deployment:
        find(deployment, "lost")


@pytest.mark.seeded_bug
def test_a_client_that_ignores_gaps_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that takes no notice of a gap stays behind after its stream was stalled past its bound."""

    def without_gaps(one: ServerSentEvent) -> Event | None:
        event = decode_event(one)
        return None if isinstance(event, Gap) else event

    monkeypatch.setattr(channels, "decode_event", without_gaps)
    with deployed("sqlite", tmp_path, settings={"REACTIVE_RPC_STREAM_QUEUE_EVENTS": "4"}) as deployment:
        for number in range(ATTEMPTS):
            seed = f"gaps {number}"
            verdict = asyncio.run(
                play(
                    deployment, "client", "stop", seed=seed,
                    pause_seconds=STALLED_SECONDS, calm_seconds=SOON_SECONDS, commits_after=0,
                )
            )  # fmt: skip
            if verdict.behind:
                return
    raise AssertionError("nobody was behind")
