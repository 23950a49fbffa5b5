"""`make setup` in a checkout of its own, with a package that needs nothing from an index: ended anywhere, it heals."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PATIENCE_SECONDS = 120
OF_AN_OUTER_MAKE = ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")
"""What `make test` hands on: with it, an inner make speaks of the directories that it enters."""

PYPROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
[project]
name = "stand-in"
version = "1"
"""
BACKEND = """
import os, pathlib, zipfile

INFO = "stand_in-1.dist-info"
METADATA = "Metadata-Version: 2.1\\nName: stand-in\\nVersion: 1\\nProvides-Extra: dev\\n"

def build_editable(folder, config_settings=None, metadata_directory=None):
    here = pathlib.Path(__file__).parent
    with (here / "builds").open("a") as builds:
        builds.write("x")
    if (here / "refuse").exists():
        raise SystemExit("refused")
    while (here / "hold").exists():
        pass
    with zipfile.ZipFile(pathlib.Path(folder) / "stand_in-1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("stand_in.py", "def main(): print('whole')")
        wheel.writestr(f"{INFO}/METADATA", METADATA)
        wheel.writestr(f"{INFO}/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr(f"{INFO}/entry_points.txt", "[console_scripts]\\nstand-in = stand_in:main\\n")
        wheel.writestr(f"{INFO}/RECORD", "")
    return "stand_in-1-py3-none-any.whl"
"""


def _hear_interrupts() -> None:
    """Undo what a shell does to a job in its background: it has it ignore SIGINT."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Checkout:
    """A folder with our Makefile, and a package that builds itself."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.python = folder / ".venv/bin/python"
        self.debris = folder / ".venv/debris"

    @classmethod
    def make(cls, folder: Path) -> Checkout:
        (folder / ".ci").mkdir(parents=True)
        for name in ("Makefile", ".ci/setup"):
            shutil.copy(ROOT / name, folder / name)
        (folder / "pyproject.toml").write_text(PYPROJECT, encoding="utf-8")
        (folder / "backend.py").write_text(BACKEND, encoding="utf-8")
        (folder / "constraints.txt").touch()
        return cls(folder)

    def start(self) -> subprocess.Popen[str]:
        """Start `make setup` as the leader of a process group, as a terminal does."""
        return subprocess.Popen(
            ["make", "setup"],
            cwd=self.folder,
            env={name: value for name, value in os.environ.items() if name not in OF_AN_OUTER_MAKE},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_hear_interrupts,  # noqa: PLW1509  # nothing else runs in this process meanwhile
        )

    def setup(self) -> tuple[int, str]:
        """Return the exit status of `make setup`, and what it said."""
        running = self.start()
        said, _ = running.communicate(timeout=PATIENCE_SECONDS)
        return running.returncode, said

    def end(self, having: Callable[[], bool], how: signal.Signals) -> None:
        """Start `make setup` and end all of it as soon as `having` holds."""
        running = self.start()
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not having():
            assert running.poll() is None, running.communicate()[0]
            assert time.monotonic() < deadline
        os.killpg(running.pid, how)
        try:
            running.communicate(timeout=PATIENCE_SECONDS)
        finally:  # a build that is held would be so for ever
            with suppress(ProcessLookupError):
                os.killpg(running.pid, signal.SIGKILL)

    def builds(self) -> int:
        """Return how often pip has built the package."""
        builds = self.folder / "builds"
        return len(builds.read_text(encoding="utf-8")) if builds.exists() else 0

    def change(self) -> None:
        """Change what is required."""
        with (self.folder / "constraints.txt").open("a", encoding="utf-8") as file:
            file.write("# more\n")

    def is_whole(self) -> bool:
        """Tell whether what is installed runs, by the Python of this very folder."""
        script = self.folder / ".venv/bin/stand-in"
        done = subprocess.run([script], capture_output=True, text=True, check=False)
        return done.stdout == "whole\n" and str(self.folder) in script.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A checkout whose very first `make setup` was killed while it made .venv, and then called again."""
    checkout = Checkout.make(tmp_path_factory.mktemp("setup") / "checkout")
    checkout.end(checkout.python.exists, signal.SIGKILL)
    assert not (checkout.folder / ".venv/bin/pip").exists(), "it was ended too late to show anything"
    status, said = checkout.setup()
    assert status == 0, said
    assert checkout.is_whole()
    return checkout


@pytest.fixture
def checkout(made: Checkout) -> Checkout:
    """That checkout, with a file in its .venv by which one sees whether .venv was made anew."""
    made.debris.touch()
    return made


def test_it_does_nothing_where_nothing_has_changed(checkout: Checkout) -> None:
    """Each target begins with it."""
    before = checkout.builds()
    assert checkout.setup() == (0, "")
    assert checkout.builds() == before
    assert checkout.debris.exists()


def test_a_change_of_the_requirements_is_installed_into_the_same_environment(checkout: Checkout) -> None:
    """And a refusal by pip leaves .venv what it was: without network one goes on with what there is."""
    before = checkout.builds()
    checkout.change()
    (checkout.folder / "refuse").touch()
    assert checkout.setup()[0] != 0
    (checkout.folder / "refuse").unlink()
    assert checkout.setup()[0] == 0
    assert checkout.builds() == before + 2
    assert checkout.debris.exists()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_an_environment_that_was_being_changed_is_made_anew(checkout: Checkout, how: signal.Signals) -> None:
    """Nobody knows what pip had got to."""
    before = checkout.builds()
    checkout.change()
    (checkout.folder / "hold").touch()
    checkout.end(lambda: checkout.builds() > before, how)
    (checkout.folder / "hold").unlink()
    assert checkout.setup()[0] == 0
    assert checkout.is_whole()
    assert not checkout.debris.exists()


def test_an_environment_whose_python_is_gone_is_made_anew(checkout: Checkout) -> None:
    """An upgrade of Python takes the old one away, and .venv links to it."""
    checkout.python.unlink()
    checkout.python.symlink_to(checkout.folder / "python-of-yesterday")
    assert checkout.setup()[0] == 0
    assert checkout.is_whole()
    assert not checkout.debris.exists()


def test_an_environment_from_elsewhere_is_made_anew(checkout: Checkout, tmp_path: Path) -> None:
    """A moved checkout, or a copy: its scripts would run the Python, and the code, of the folder that it comes from."""
    copy = Checkout(tmp_path / "copy")
    shutil.copytree(checkout.folder, copy.folder, symlinks=True)
    assert not copy.is_whole()
    assert copy.setup()[0] == 0
    assert copy.is_whole()
    assert not copy.debris.exists()
    assert checkout.setup() == (0, "")
