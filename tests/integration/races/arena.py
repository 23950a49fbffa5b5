"""Two servers, two writers, readers and watchers on one database; what any of them saw too late is counted."""

from __future__ import annotations

import json
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from reactive_rpc.protocol.sse import SSEDecoder
from tests.support.accounts import fill
from tests.support.processes import Conversation, Uvicorn
from tests.support.waiting import became_true, idle_thread, wait_until

from .database import ACCOUNTS, GROUPS, QUIET_GROUP, QUIET_ROW, ROWS, truth_of
from .places import Crash

__all__ = ["Arena", "Report"]

READERS = 3
CALM_SECONDS = 30.0
"""How long all may take to be right once nobody writes; they need a fraction of one."""


@dataclass(slots=True)
class Report:
    """What was seen.

    Attributes:
        stale: `who asked: what it missed`, of answers that lacked a write acknowledged before they were asked for.
        behind: watchers that still showed the past when all was quiet.
        counts: of `commits`, `reads`, `told`, `crashes`.
    """

    stale: list[str] = field(default_factory=list)
    behind: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)


class Node(Uvicorn):
    """A server, always at the same port."""

    def __init__(self, url: str, *, naive: bool) -> None:
        environment = {"RACES_URL": url} | ({"RACES_NAIVE": "1"} if naive else {})
        super().__init__(
            "tests.integration.races.served:make_app", "--factory",
            asks="/rpc/accounts.of_group?g=0", log_level="critical", log=Path(os.devnull), environment=environment,
        )  # fmt: skip


class Arena:
    """The players on the database at `url`, which `served.py` fills with `ROWS` accounts."""

    def __init__(self, url: str, *, seed: int, naive: bool = False) -> None:
        self.report = Report()
        self._url = url
        self._naive = naive
        self._random = random.Random(seed)
        self._acknowledged: Counter[int] = Counter()
        self._over = threading.Event()
        self._settled = threading.Event()
        self._shown: dict[tuple[int, int], dict[int, int]] = {}
        self._nodes: list[Node] = []
        # One for all: making one for each request would take longer than the request.
        self._http = httpx.Client(verify=False, timeout=CALM_SECONDS, limits=httpx.Limits(max_connections=None))

    def play(
        self, seconds: float, *, crashes: Sequence[Crash] = (), until: Callable[[Report], object] = lambda report: True
    ) -> Report:
        """Play for so long, until servers were killed at each of these places, and until the report is as it should be.

        Then see who is behind.

        Raises:
            AssertionError: the report never was what `until` waits for.
        """
        watchers = [(number, group) for number in (0, 1) for group in range(GROUPS)]
        self._nodes = [Node(self._url, naive=self._naive) for _ in range(2)]
        try:
            self._nodes[0].start()
            fill(self._url, ACCOUNTS)
            self._nodes[1].start()
            with self._threads(self._watch, watchers):
                try:
                    with self._writers(), self._threads(self._read, [(seed,) for seed in range(READERS)]):
                        self._play(seconds, crashes, until)
                    self._settle()
                finally:
                    self._over.set()
                    self._settled.set()
                    for node in self._nodes:
                        node.close()
        finally:
            for node in self._nodes:
                node.close()
            self._http.close()
        return self.report

    def _play(self, seconds: float, crashes: Sequence[Crash], until: Callable[[Report], object]) -> None:
        try:
            wait_until(lambda: self.report.counts["commits"] > 0, "the writers do not write")
            end = time.monotonic() + seconds
            for place in crashes:
                self._crash(place)
            idle_thread(max(0.0, end - time.monotonic()), because="all play for so long")
            wait_until(lambda: until(self.report), f"too little was seen: {self.report.counts}")
        finally:
            self._over.set()

    def _read(self, seed: int) -> None:
        choices = random.Random(seed)
        while not self._over.is_set():
            self._ask(choices.choice(self._nodes).url, choices.randrange(GROUPS), "reader")

    def _watch(self, number: int, group: int) -> None:
        """Show a group as a client does: fetch what `connected` lists as stale, and whatever one is told of.

        It is fetched from the other server, which may not have heard of the write yet.
        """
        url, other = self._nodes[number].url, self._nodes[1 - number].url
        body: dict[str, Any] = {"queries": [{"path": "accounts.of_group", "input": {"g": group}}]}
        while not self._settled.is_set():
            try:
                with self._http.stream("POST", f"{url}/rpc/events", json=body) as response:
                    decoder = SSEDecoder()
                    for chunk in response.iter_bytes():
                        for event in decoder.feed(chunk):
                            if "cursor" not in body or event.event != "connected" or json.loads(event.data)["stale"]:
                                self._show(number, group, (other, url))
                            body["cursor"] = event.id
            except httpx.HTTPError:
                continue

    def _show(self, number: int, group: int, urls: tuple[str, str]) -> None:
        self.report.counts["told"] += 1
        while not self._settled.is_set():
            for url in urls:
                answer = self._ask(url, group, f"watcher {number}")
                if answer is not None:
                    self._shown[number, group] = answer
                    return

    def _ask(self, url: str, group: int, who: str) -> dict[int, int] | None:
        expected = {row: self._acknowledged[row] for row in range(group, ROWS, GROUPS)}
        answer = _answer(self._http, url, group)
        if answer is not None:
            self.report.counts["reads"] += 1
            missed = {row: (value, answer.get(row)) for row, value in expected.items() if answer.get(row, -1) < value}
            if missed:
                self.report.stale.append(f"{who}: {missed}")
        return answer

    def _crash(self, at: Crash) -> None:
        """Have a server kill itself at a place, and start it again."""
        node = self._random.choice(self._nodes)
        row = QUIET_ROW if at == "storing" else self._random.randrange(ROWS)
        with suppress(httpx.HTTPError):
            order = {"id": row, "crash": at}
            answer = self._http.post(f"{node.url}/rpc/accounts.add", json=order).raise_for_status()
            self._acknowledge(row, answer.json())
            if at == "storing":  # and no writer overtakes the result
                self._http.get(f"{node.url}/rpc/accounts.of_group", params={"g": QUIET_GROUP})
        node.wait()
        self.report.counts["crashes"] += 1
        node.start()

    def _acknowledge(self, row: int, value: int) -> None:
        self._acknowledged[row] = max(self._acknowledged[row], value)
        self.report.counts["commits"] += 1

    @contextmanager
    def _writers(self) -> Iterator[None]:
        arguments = ["-m", "tests.integration.races.writer", self._url]
        writers = [Conversation(*arguments, str(seed), str(ROWS)) for seed in (1, 2)]
        try:
            with self._threads(self._listen, [(writer,) for writer in writers]):
                try:
                    yield
                finally:
                    for writer in writers:
                        writer.kill()
        finally:
            for writer in writers:
                writer.close()

    def _listen(self, writer: Conversation) -> None:
        for line in writer.lines:
            row, value = line.split()
            self._acknowledge(int(row), int(value))

    def _settle(self) -> None:
        """Wait until every watcher shows the truth, or long enough; note who does not, and which server is wrong."""
        truth = truth_of(self._url)
        became_true(lambda: not self._late(truth), within_seconds=2.0 if self._naive else CALM_SECONDS)
        self.report.behind += self._late(truth)
        for node in self._nodes:
            wrong = [group for group in range(GROUPS) if _answer(self._http, node.url, group) != truth[group]]
            self.report.behind += [f"{node.url} answers the past of group {group}" for group in wrong]

    def _late(self, truth: dict[int, dict[int, int]]) -> list[str]:
        return [
            f"watcher {number} of group {group} shows {self._shown.get((number, group))}, not {truth[group]}"
            for number in (0, 1)
            for group in range(GROUPS)
            if self._shown.get((number, group)) != truth[group]
        ]

    @contextmanager
    def _threads(self, play: Callable[..., None], parts: Sequence[tuple[Any, ...]]) -> Iterator[None]:
        threads = [threading.Thread(target=play, args=arguments) for arguments in parts]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            for thread in threads:
                thread.join()


def _answer(http: httpx.Client, url: str, group: int) -> dict[int, int] | None:
    """Return what a server answers; None where it is down."""
    try:
        response = http.get(f"{url}/rpc/accounts.of_group", params={"g": group})
    except httpx.HTTPError:
        return None
    if response.status_code == httpx.codes.SERVICE_UNAVAILABLE:
        return None
    return {int(row): value for row, value in response.raise_for_status().json().items()}
