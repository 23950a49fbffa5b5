"""Processes of the tests' own, which import the tests as a package: they are started, paused, ended, talked to."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing, suppress
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import psutil  # type: ignore[import-untyped]  # it ships no types

from reactive_rpc.testing.guard import ProcessGuard
from reactive_rpc.testing.ports import free_port, listens
from tests.support.waiting import wait_until

__all__ = ["ROOT", "Conversation", "Process", "Uvicorn", "answers", "environment_with", "script", "send_to_all"]

ROOT = Path(__file__).parents[2]
"""The folder that `tests` and `app` are imported from."""

STOP_SECONDS = 60.0
"""How long a process may take to end on a machine that many share."""


def environment_with(**variables: str) -> dict[str, str]:
    """Return this process's environment, with `ROOT` in `PYTHONPATH`, and further variables."""
    return {**os.environ, "PYTHONPATH": str(ROOT), **variables}


def script(name: str) -> str:
    """Return the path of a command that is installed beside Python: `caddy`, `reactive-rpc`."""
    return str(Path(sys.executable).with_name(name))


def send_to_all(pid: int, number: signal.Signals) -> None:
    """Send a signal to a process and to all that it has started."""
    with suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        for process in [root, *root.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)


class Process:
    """A process of ours, with all that it starts: it may be killed, paused and started again.

    As a context manager it runs for as long as the block does.

    Args:
        command: the program and its arguments.
        log: the file that its output is added to; without one, it goes where this process's goes.
        environment: variables beside this process's own.
        works: whether it does by now all that it is there for; asked again and again when it is started.
        options: further ones of `subprocess.Popen`.
    """

    def __init__(
        self,
        *command: str,
        log: Path | None = None,
        environment: Mapping[str, str] | None = None,
        works: Callable[[], bool] = lambda: True,
        **options: Any,
    ) -> None:
        self.log = log
        self._command = command
        self._environment = environment_with(**(environment or {}))
        self._works = works
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process is not None, f"{self._command} does not run"
        return self._process.pid

    def start(self) -> None:
        """Start it, and return once it works.

        Raises:
            AssertionError: it has ended before, or does not work in time.
        """
        with ExitStack() as stack:
            output = None if self.log is None else stack.enter_context(self.log.open("ab"))
            self._process = process = subprocess.Popen(
                self._command, env=self._environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                start_new_session=True, **self._options,
            )  # fmt: skip
        self._guard = ProcessGuard(process.pid)
        try:
            wait_until(lambda: process.poll() is not None or self._works(), lambda: self._fault("does not work"))
            assert process.poll() is None, self._fault("ended before it worked")
        except BaseException:
            self.close()
            raise

    def end(self, number: signal.Signals = signal.SIGTERM, *, within_seconds: float = STOP_SECONDS) -> float:
        """Send a signal, wait for the end, and return how many seconds it took; nothing where it was ended before.

        Raises:
            AssertionError: it had ended by itself, or does not end.
        """
        process = self._process
        if process is None:
            return 0.0
        try:
            assert process.poll() is None, self._fault("has ended by itself")
            began_at = time.monotonic()
            process.send_signal(number)
            try:
                process.wait(within_seconds)
            except subprocess.TimeoutExpired:
                raise AssertionError(self._fault(f"has not ended {within_seconds:g} s after {number.name}")) from None
            return time.monotonic() - began_at
        finally:
            self.close()

    def wait(self) -> int:
        """Return its exit code when it has ended by itself."""
        assert self._process is not None, f"{self._command} does not run"
        code = self._process.wait(STOP_SECONDS)
        self.close()
        return code

    def close(self) -> None:
        """End it by SIGKILL, with all that it has started, even if it is paused or has ended; idempotent."""
        process, self._process = self._process, None
        if process is not None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            self._guard.dismiss()

    def has_ended(self) -> bool:
        """Tell whether it runs no more."""
        return self._process is None or self._process.poll() is not None

    def pause(self) -> None:
        """Stop it in its tracks."""
        send_to_all(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        send_to_all(self.pid, signal.SIGCONT)

    def _fault(self, fault: str) -> str:
        said = "see above" if self.log is None else self.log.read_text(errors="replace")[-2000:]
        return f"{' '.join(self._command)} {fault}: {said}"


class Uvicorn(Process):
    """An application under uvicorn, on a port that stays its own.

    Args:
        application: as uvicorn names it.
        arguments: further ones of uvicorn.
        asks: the path that is answered with 200 once it works; without one, it works once it listens.
        log_level: uvicorn's.
    """

    def __init__(
        self,
        application: str,
        *arguments: str,
        asks: str | None = None,
        log_level: str = "warning",
        log: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        options = ["--port", str(self.port), "--log-level", log_level, *arguments]
        super().__init__(
            sys.executable, "-m", "uvicorn", application, *options,
            log=log, environment=environment,
            works=lambda: listens(self.port) if asks is None else answers(self.port, asks),
        )  # fmt: skip


def answers(port: int, path: str) -> bool:
    """Tell whether a server answers with 200.

    By the standard library, as making a client of httpx's each time would starve those who listen.
    """
    with suppress(OSError, HTTPException), closing(HTTPConnection("127.0.0.1", port, timeout=5)) as connection:
        connection.request("GET", path)
        return connection.getresponse().status == HTTPStatus.OK
    return False


class Conversation:
    """A Python process that is given lines and prints lines.

    Args:
        arguments: of Python.
    """

    def __init__(self, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, *arguments],
            env=environment_with(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def lines(self) -> IO[str]:
        """What it prints; ends with the process."""
        assert self._process.stdout is not None
        return self._process.stdout

    def send(self, line: str) -> None:
        """Give it a line."""
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def receive(self) -> str:
        """Return the next line that it prints.

        Raises:
            AssertionError: it has ended.
        """
        line = self.lines.readline()
        assert line, f"{self._process.args!r} has ended"
        return line.rstrip("\n")

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """End it by a signal; whoever reads its lines comes to their end."""
        self._process.send_signal(number)
        self._process.wait(STOP_SECONDS)

    def close(self) -> None:
        """End it, and read no more of it."""
        self.kill()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with suppress(BrokenPipeError):
                    stream.close()
