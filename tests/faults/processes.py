"""The processes of a trial, and the signals that they are sent."""

from __future__ import annotations

import json
import random
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import IO, Any, Literal

import psutil  # type: ignore[import-untyped]  # it ships no types

from tests.support.processes import environment_with
from tests.support.waiting import wait_until

from .books import Commit

__all__ = ["Balancer", "Links", "Process", "Relay", "Worker", "Writer", "free_port", "send_to_all"]

START_SECONDS = 60.0
"""How long a process may take to start, or to end, on a machine that many share."""

STOP_SECONDS = 15.0

_PORTS = range(10_000, 30_000)
"""Below those that a system gives to connections that go out: a port must still be free after a restart."""


def free_port() -> int:
    """Return a port of this machine that nobody listens on."""
    while True:
        port = random.SystemRandom().choice(_PORTS)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


def send_to_all(pid: int, number: signal.Signals) -> None:
    """Send a signal to a process and to all that it has started."""
    with suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        for process in [root, *root.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)


class Process:
    """A process of ours, which may be killed, paused and started again."""

    def __init__(self, command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None) -> None:
        self._command = list(command)
        self._environment = environment_with(**(environment or {}))
        self._process: subprocess.Popen[str] | None = None
        self.log = log

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process is not None, f"{self.log.stem} does not run"
        return self._process.pid

    def start(self) -> None:
        """Start it, and return once it works."""
        with self.log.open("a") as output:
            self._process = subprocess.Popen(
                self._command, env=self._environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output, text=True
            )
        wait_until(lambda: self._has_ended() or self._works(), f"{self.log.stem} does not start")
        assert not self._has_ended(), f"{self.log.stem} does not start: {self.log.read_text()[-2000:]}"

    def kill(self) -> None:
        """End it with SIGKILL."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it with SIGTERM."""
        self._end(signal.SIGTERM)

    def pause(self) -> None:
        """Stop it in its tracks."""
        send_to_all(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        send_to_all(self.pid, signal.SIGCONT)

    def _end(self, number: signal.Signals) -> None:
        """Send a signal and wait for the end; idempotent.

        Raises:
            AssertionError: it had ended by itself, or does not end.
        """
        process, self._process = self._process, None
        if process is None:
            return
        assert process.poll() is None, f"{self.log.stem} has ended by itself: {self.log.read_text()[-2000:]}"
        process.send_signal(number)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise AssertionError(f"{self.log.stem} did not end within {STOP_SECONDS:g} s of {number.name}") from None

    def _has_ended(self) -> bool:
        return self._process is None or self._process.poll() is not None

    def _works(self) -> bool:
        return True


class Worker(Process):
    """One server of the application, always at the same port."""

    def __init__(self, name: str, folder: Path, environment: Mapping[str, str]) -> None:
        self.port = free_port()
        command = [sys.executable, "-m", "uvicorn", "tests.faults.served:app", "--port", str(self.port)]
        super().__init__([*command, "--log-level", "warning"], folder / f"{name}.log", environment)

    def _works(self) -> bool:
        return _is_ready(self.port)


class Relay(Process):
    """One candidate for the relay, beside the workers."""

    def __init__(self, name: str, folder: Path, environment: Mapping[str, str]) -> None:
        command = [str(Path(sys.executable).with_name("reactive-rpc")), "relay", "tests.faults.served:rpc"]
        super().__init__(command, folder / f"{name}.log", environment)


class Balancer(Process):
    """Caddy, in front of the workers in turn; it leaves out those that are not ready."""

    def __init__(self, folder: Path, ports: Sequence[int]) -> None:
        self.port = free_port()
        workers = " ".join(f"127.0.0.1:{port}" for port in ports)
        configuration = folder / "Caddyfile"
        configuration.write_text(
            "{\n admin off\n auto_https off\n persist_config off\n grace_period 1s\n log {\n  level ERROR\n }\n}\n"
            f"http://127.0.0.1:{self.port} {{\n bind 127.0.0.1\n reverse_proxy {workers} {{\n  lb_policy round_robin\n"
            "  lb_try_duration 2s\n  fail_duration 1s\n  health_uri /rpc/health/ready\n  health_interval 500ms\n"
            "  health_timeout 1s\n }\n}\n"
        )
        command = [str(Path(sys.executable).with_name("caddy")), "run", "--config", str(configuration)]
        super().__init__([*command, "--adapter", "caddyfile"], folder / "balancer.log", {"HOME": str(folder)})

    def _works(self) -> bool:
        return _is_ready(self.port)


class Obedient:
    """A process that takes a line at a time."""

    def __init__(self, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", *arguments],
            env=environment_with(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    @property
    def output(self) -> IO[str]:
        """What it prints."""
        assert self._process.stdout is not None
        return self._process.stdout

    def send(self, line: str) -> None:
        """Give it a line."""
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with suppress(BrokenPipeError):
                    stream.close()


class Links(Obedient):
    """The links between the parts, see `links.py`. One order at a time."""

    def __init__(self) -> None:
        super().__init__("tests.faults.links")

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
        answer: dict[str, Any] = json.loads(self.output.readline())
        return answer


class Writer(Obedient):
    """A process that writes and tells what was committed, see `writer.py`."""

    def __init__(self, url: str, number: int, of: int) -> None:
        super().__init__("tests.faults.writer", url, str(number), str(of))
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
        self._process.kill()
        self._listening.join()
        super().close()

    def _listen(self) -> None:
        for line in self.output:
            reported = json.loads(line)
            if reported:
                self.commits.append(Commit(**reported))
            else:
                self._rests.set()


def _is_ready(port: int) -> bool:
    """Ask a server; by the standard library, as making a client of httpx's each time would starve those who listen."""
    with suppress(OSError, HTTPException), closing(HTTPConnection("127.0.0.1", port, timeout=2)) as connection:
        connection.request("GET", "/rpc/health/ready")
        return connection.getresponse().status == HTTPStatus.OK
    return False
