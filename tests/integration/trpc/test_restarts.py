"""Official clients that listen, while their server is killed and started again, cut off, and while it says nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.support.node import TYPESCRIPT, node_command
from tests.support.processes import Process, Uvicorn
from tests.support.waiting import wait_until
from tests.support.ways import Way

LISTENERS = {"newest": "trpc/listen_newest.ts", "11.22.1": "trpc_11_22/listen_pinned.ts"}
HOOKS = TYPESCRIPT / "trpc_11_22/hooks_listening.ts"


class Listener:
    """A client that listens, and what it has heard."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._read = 0

    def hears(self, line: str) -> None:
        """Wait until it has heard something after all that it was asked for before."""

        def has_heard() -> bool:
            lines = self._log.read_text().splitlines()
            if line not in lines[self._read :]:
                return False
            self._read = lines.index(line, self._read) + 1
            return True

        wait_until(has_heard, lambda: f"{line!r} is not in\n{self._log.read_text()}")

    def hears_all(self, *lines: str) -> None:
        """Wait until it has heard all of these, in any order, after all that it was asked for before."""

        def has_heard() -> bool:
            heard = self._log.read_text().splitlines()
            if not set(lines) <= set(heard[self._read :]):
                return False
            self._read = max(heard.index(line, self._read) for line in lines) + 1
            return True

        wait_until(has_heard, lambda: f"{lines!r} are not in\n{self._log.read_text()}")

    def has_heard_since(self, first: str, line: str) -> None:
        """Wait until it has heard something after the last time that it heard something else."""

        def has_heard() -> bool:
            lines = self._log.read_text().splitlines()
            return line in lines[len(lines) - lines[::-1].index(first) :]

        wait_until(has_heard, lambda: f"{line!r} is not in\n{self._log.read_text()}")


@contextmanager
def listening(client: str, url: str, folder: Path) -> Iterator[Listener]:
    with running(TYPESCRIPT / LISTENERS[client], url, folder=folder) as listener:
        yield listener


@contextmanager
def running(script: Path, url: str, *, folder: Path) -> Iterator[Listener]:
    log = folder / "listener.log"
    log.touch()
    program = Process(*node_command(script, url), log=log, cwd=TYPESCRIPT)
    with program:
        yield Listener(log)


def add(server: Uvicorn, text: str) -> None:
    answer = httpx.post(
        f"{server.url}/trpc/desk.add", json={"desk": "a", "text": text}, headers={"authorization": "Bearer ada"}
    )
    assert answer.status_code == 200, answer.text


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Uvicorn]:
    application = "tests.integration.trpc.served_desk:make_app"
    served = Uvicorn(application, "--factory", environment={"DESK_DB": str(tmp_path / "desk.db")})
    with served:
        yield served


@pytest.mark.parametrize("client", LISTENERS)
def test_a_listener_goes_on_after_the_server_was_killed(client: str, server: Uvicorn, tmp_path: Path) -> None:
    """It comes back by itself, with its last ids: no memo is lost or told twice, and no invalidation is missed."""
    with listening(client, f"{server.url}/trpc", tmp_path) as listener:
        listener.hears("reactive.events 1 affected")
        add(server, "one")
        listener.hears_all("desk.added one", "reactive.events 1 affected")
        server.close()
        server.start()
        add(server, "two")
        listener.hears("desk.added two")
        listener.has_heard_since("reactive.events connecting", "reactive.events 1 affected")
    said = (tmp_path / "listener.log").read_text().splitlines()
    assert [line for line in said if line.startswith("desk.added ") and line.split()[1] in ("one", "two")] == [
        "desk.added one",
        "desk.added two",
    ]
    assert not [line for line in said if "ended" in line or "complete" in line]


@pytest.mark.parametrize("client", LISTENERS)
def test_a_listener_goes_on_after_its_connection_was_cut(client: str, server: Uvicorn, tmp_path: Path) -> None:
    """However often; of what was written meanwhile it hears each, once."""
    with Way(server.port) as way, listening(client, f"{way.url}/trpc", tmp_path) as listener:
        listener.hears("reactive.events 1 affected")
        for text in ("one", "two", "three"):
            way.cut()
            listener.hears("desk.added connecting")
            add(server, text)
            way.mend()
            listener.hears(f"desk.added {text}")
        listener.has_heard_since("reactive.events connecting", "reactive.events 1 affected")
    said = (tmp_path / "listener.log").read_text().splitlines()
    assert [line for line in said if line in ("desk.added one", "desk.added two", "desk.added three")] == [
        "desk.added one",
        "desk.added two",
        "desk.added three",
    ]
    assert not [line for line in said if "ended" in line or "complete" in line]


@pytest.mark.parametrize("client", LISTENERS)
def test_a_listener_leaves_a_server_that_says_nothing(client: str, server: Uvicorn, tmp_path: Path) -> None:
    """After the time that `connected` names it connects anew, and hears what it has missed."""
    with listening(client, f"{server.url}/trpc", tmp_path) as listener:
        listener.hears("desk.added pending")
        add(server, "one")
        listener.hears("desk.added one")
        server.pause()
        listener.hears("desk.added connecting")
        server.resume()
        listener.hears("desk.added pending")
        add(server, "two")
        listener.hears("desk.added two")


def test_a_page_of_hooks_is_right_again_after_each_of_these(server: Uvicorn, tmp_path: Path) -> None:
    """Rendered by React with `@trpc/tanstack-react-query`; what is written while it hears nothing shows, too."""
    with Way(server.port) as way, running(HOOKS, f"{way.url}/trpc", folder=tmp_path) as page:
        page.hears("stream pending")
        add(server, "one")
        page.hears("shown one")
        server.close()
        server.start()
        add(server, "two")
        page.hears("shown one two")
        way.cut()
        page.hears("stream connecting")
        add(server, "three")
        way.mend()
        page.hears("shown one two three")
        server.pause()
        page.hears("stream connecting")
        server.resume()
        add(server, "four")
        page.hears("shown one two three four")
