"""What the server's tests share: a file each, and the event loop they run on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from .rooms import Server, serving
from .yielding import SEEN


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "rooms.db"


@pytest.fixture
def seen() -> list[str]:
    """Begin anew."""
    SEEN.clear()
    return SEEN


@pytest.fixture
async def server(file: Path, anyio_backend: str) -> AsyncIterator[Server]:
    async with serving(file) as opened:
        yield opened
