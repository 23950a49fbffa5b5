"""The processes of a trial."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from tests.support.processes import Conversation, Process, Uvicorn, script
from tests.support.proxies import Caddy, balancing_among

from .books import Commit

__all__ = ["Balancer", "Links", "Relay", "Worker", "Writer"]

READY = "/rpc/health/ready"

START_SECONDS = 60.0
"""How long a writer may take to come to rest, on a machine that many share."""


class Worker(Uvicorn):
    """One server of the application, always at the same port."""

    def __init__(self, name: str, folder: Path, environment: Mapping[str, str]) -> None:
        log = folder / f"{name}.log"
        super().__init__("tests.faults.served:app", asks=READY, log=log, environment=environment)


class Relay(Process):
    """One candidate for the relay, beside the workers."""

    def __init__(self, name: str, folder: Path, environment: Mapping[str, str]) -> None:
        command = [script("reactive-rpc"), "relay", "tests.faults.served:rpc"]
        super().__init__(*command, log=folder / f"{name}.log", environment=environment)


class Balancer(Caddy):
    """Caddy, in front of the workers in turn; it leaves out those that are not ready."""

    def __init__(self, folder: Path, ports: Sequence[int]) -> None:
        health = [f"health_uri {READY}", "health_interval 500ms", "health_timeout 1s"]
        super().__init__(folder, balancing_among(ports, "lb_try_duration 2s", *health), asks=READY)


class Links(Conversation):
    """The links between the parts, see `links.py`. One order at a time."""

    def __init__(self) -> None:
        super().__init__("-m", "tests.faults.links")

    def open(self, name: str, to: int) -> int:
        """Make a link to a port of this machine and return its own."""
        return int(self._order(do="open", link=name, to=to)["port"])

    def command(self, what: Literal["refuse", "reset", "end", "tear", "stall", "heal"], names: Sequence[str]) -> None:
        """Have some links do something."""
        self._order(do=what, links=names)

    def owner(self, port: int) -> str | None:
        """Return the link that comes from a port."""
        owner: str | None = self._order(do="owner", port=port)["link"]
        return owner

    def _order(self, **order: object) -> dict[str, Any]:
        self.send(json.dumps(order))
        answer: dict[str, Any] = json.loads(self.receive())
        return answer


class Writer(Conversation):
    """A process that writes and tells what was committed, see `writer.py`."""

    def __init__(self, url: str, number: int, of: int) -> None:
        super().__init__("-m", "tests.faults.writer", url, str(number), str(of))
        self.commits: list[Commit] = []
        self._rests = threading.Event()
        self._listening = threading.Thread(target=self._listen)
        self._listening.start()

    def go(self, seed: str) -> None:
        """Begin to write."""
        self.commits = []
        self._rests.clear()
        self.send(f"go {seed}")

    def rest(self) -> None:
        """Have it write no more, and return when it is known what it has written."""
        self.send("rest")
        assert self._rests.wait(START_SECONDS), "a writer does not come to rest"

    def close(self) -> None:
        """End it."""
        self.kill()
        self._listening.join()
        super().close()

    def _listen(self) -> None:
        for line in self.lines:
            reported = json.loads(line)
            if reported:
                self.commits.append(Commit(**reported))
            else:
                self._rests.set()
