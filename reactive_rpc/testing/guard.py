"""A guard: what a test process started does not outlive it, however it ends.

A process that is killed runs no `finally`. So a small process of its own session holds the other end of a pipe: when
that is closed without a word, whoever held it is gone, be it by SIGTERM or SIGKILL, and the guard ends what was left.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Final

__all__ = ["ProcessGuard"]

_SCRIPT: Final = """
read -r word
[ "$word" = dismissed ] && exit
kill -CONT "$1"; kill -INT "$1"
for _ in 1 2 3 4 5 6 7 8 9 10; do kill -0 "$1" 2>/dev/null || break; sleep 0.5; done
kill -KILL "$1"
[ -n "$2" ] && rm -rf "$2"
"""
"""SIGINT ends PostgreSQL, Redis and uvicorn cleanly; one that was stopped has to go on for that."""


class ProcessGuard:
    """Ends a process, and removes a folder, should this process end before it dismisses the guard.

    Args:
        pid: of a process that this one has started.
        folder: which is only that process's.
    """

    def __init__(self, pid: int, folder: Path | None = None) -> None:
        self._process = subprocess.Popen(
            ["/bin/sh", "-c", _SCRIPT, "guard", str(pid), "" if folder is None else str(folder)],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/",
            start_new_session=True,
        )  # fmt: skip

    def dismiss(self) -> None:
        """Let it go: the process has been ended."""
        self._process.communicate(b"dismissed\n")
