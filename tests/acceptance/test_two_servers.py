"""Two servers on one file: what one has acknowledged, the other answers, and tells its streams."""

from __future__ import annotations

import random
import re
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx

from reactive_rpc.testing import serving

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
WRITES = 120
WRITERS = 3


def test_an_acknowledged_write_is_seen_by_every_server(tmp_path: Path) -> None:
    """After each acknowledgement the writer asks a random server, which has cached the room, and finds its note."""
    (tmp_path / "main.py").write_text(re.findall(r"```python\n(# main\.py\n.*?)```", README, re.DOTALL)[0])

    def write_and_ask(seed: int, urls: list[str]) -> int:
        choices = random.Random(seed)
        with ExitStack() as stack:
            servers = [stack.enter_context(httpx.Client(base_url=url, timeout=20)) for url in urls]
            for number in range(WRITES):
                text = f"{seed}:{number}"
                note = {"room": "kitchen", "text": text}
                choices.choice(servers).post("/rpc/notes.add", json=note).raise_for_status()
                answer = choices.choice(servers).get("/rpc/notes.get_all", params={"room": "kitchen"})
                assert text in {found["text"] for found in answer.json()}, f"stale: seed {seed}, write {number}"
        return WRITES

    with ExitStack() as stack:
        urls = [stack.enter_context(serving("main:app", folder=tmp_path)) for _ in range(2)]
        with ThreadPoolExecutor(WRITERS) as pool:
            assert sum(pool.map(lambda seed: write_and_ask(seed, urls), range(WRITERS))) == WRITES * WRITERS
