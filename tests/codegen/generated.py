"""A generated package: imported beside the application that it calls, and read by type checkers."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from fastapi import FastAPI

from reactive_rpc.codegen import generate
from reactive_rpc.testing import running

ROOT = Path(__file__).parents[2]


@contextmanager
def importable(folder: Path) -> Iterator[None]:
    """Have the packages in a folder found."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


@contextmanager
def served(app: FastAPI, folder: Path, package: str) -> Iterator[tuple[str, ModuleType]]:
    """Serve an application, and give its URL and its client, generated into a folder and imported."""
    generate(app.openapi(), folder / package)
    with importable(folder), running(app) as url:
        yield url, importlib.import_module(package)


class TypeCheckers:
    """mypy, strict, and pyright, as they read generated packages and programs that use them.

    Args:
        cache: of mypy, kept between runs and shared with `tests/typing`: what is not ours is checked once.
    """

    def __init__(self, cache: Path) -> None:
        self._mypy = ["mypy", "--strict", "--config-file=", "--no-error-summary", "--cache-dir", str(cache)]
        self._pyright = ["pyright", "--pythonpath", sys.executable]

    def faults_of(self, client: ModuleType, use: str = "") -> str:
        """Return what they say of a package, and of a program that uses it as it should; empty if nothing."""
        folder = _folder_of(client)
        (folder / "use.py").write_text(use)
        name = client.__name__
        return "".join((
            _said(folder, *self._mypy, "-p", name, "-m", "use"),
            _said(folder, *self._pyright, name, "use.py"),
        ))  # fmt: skip

    def said_of_misuse(self, client: ModuleType, misuse: str) -> tuple[str, str]:
        """Return what each says of a program that uses a package as it should not."""
        folder = _folder_of(client)
        (folder / "misuse.py").write_text(misuse)
        return _said(folder, *self._mypy, "-m", "misuse"), _said(folder, *self._pyright, "misuse.py")


def _folder_of(client: ModuleType) -> Path:
    return Path(str(client.__file__)).parents[1]


def _said(folder: Path, *command: str) -> str:
    environment = {**os.environ, "MYPYPATH": f"{folder}:{ROOT}"}
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    return "" if done.returncode == 0 else done.stdout + done.stderr
