"""`docs/explanation/events.md`: its commands are run, in order, and answer what the page says."""

from __future__ import annotations

import os
import re
import subprocess
import threading
from pathlib import Path

import httpx

from reactive_rpc.testing import serving

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/explanation/events.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")

DEADLINE_SECONDS = 20.0

DIFFERENT_EACH_TIME = [
    (r"[\w-]{16}:\d+", "<cursor>"),
    (r"retry: \d+", "retry: <milliseconds>"),
    (r'"(stream|event_id|request_id)":"[\w-]{16}"', r'"\1":"<id>"'),
    (r'"[0-9a-f]{32}"', '"<set>"'),
    (r'"[0-9a-f]{24}"', '"<key>"'),
    (r'"ticket":"[\w-]{43}"', '"ticket":"<ticket>"'),
]


def normal(text: str) -> str:
    """Return the text without what differs from one run to the next."""
    for pattern, name in DIFFERENT_EACH_TIME:
        text = re.sub(pattern, name, text)
    return text.strip()


def examples() -> list[tuple[str, str]]:
    """Return each command with what the page says that it answers."""
    return re.findall(r"```sh\n(.*?)```\n```text\n(.*?)```", PAGE, re.DOTALL)


def answered(command: str, expected: str, environment: dict[str, str], url: str) -> str:
    """Run a command until it has said as many lines as expected; write a note once a stream is connected."""
    process = subprocess.Popen(["bash", "-c", command], stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    impatience = threading.Timer(DEADLINE_SECONDS, process.kill)
    impatience.start()
    lines: list[str] = []
    try:
        for line in process.stdout:
            lines.append(line)
            if line.startswith("data: ") and "event: invalidation" in expected and len(lines) < 5:
                httpx.post(f"{url}/rpc/notes.add", json={"room": "kitchen", "text": "buy milk"}).raise_for_status()
            if len("".join(lines).strip().splitlines()) >= len(expected.strip().splitlines()):
                break
    finally:
        impatience.cancel()
        process.kill()
        process.stdout.close()
        process.wait()
    return "".join(lines)


def test_every_command_answers_what_the_page_says(tmp_path: Path) -> None:
    """Streams, sets, tickets, polls and acknowledgements, as a reader would try them."""
    (program,) = re.findall(r"```python\n(# main\.py\n.*?)```", README, re.DOTALL)
    (tmp_path / "main.py").write_text(program, encoding="utf-8")
    tried = examples()
    assert len(tried) == PAGE.count("```sh") == 9
    with serving("main:app", folder=tmp_path) as url:
        environment = {**os.environ, "URL": url}
        for command, expected in tried:
            answer = answered(command, expected, environment, url)
            assert normal(answer) == normal(expected), command
            for name, value in re.findall(r'"(set|ticket|cursor)":"([^"]+)"', answer):
                environment[name.upper()] = value
