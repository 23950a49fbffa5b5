"""Small projects of front-end frameworks, in a folder of their own: built and served as their users would do it.

Their packages are those of `tests/typescript/examples/package-lock.json`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from reactive_rpc.testing import serving
from reactive_rpc.testing.ports import free_port, listens
from tests.support.node import NODE, TYPESCRIPT
from tests.support.processes import Process, answers, script
from tests.support.proxies import Caddy

__all__ = ["EXAMPLES", "Project", "at_one_address", "beside_its_application", "run"]

EXAMPLES = TYPESCRIPT / "examples"

PATIENCE_SECONDS = 300.0
"""How long a build may take on a machine that does other work too."""


class Project:
    """A project that finds the packages, beside the application whose client it has.

    Args:
        folder: the one of the project.
        server: the folder with the application, `main.py`.
        modules: the packages, `node_modules`.
    """

    def __init__(self, folder: Path, server: Path, *, modules: Path = EXAMPLES / "node_modules") -> None:
        self.folder = folder
        self.server = server
        self.modules = modules
        assert modules.exists(), f"{modules} is missing: make setup installs it"
        if not (folder / "node_modules").exists():
            (folder / "node_modules").symlink_to(modules)

    @classmethod
    def copied(cls, name: str, into: Path) -> Project:
        """Return an example, and the application of the examples, in a new folder."""
        ignored = shutil.ignore_patterns("node_modules")
        folder = Path(shutil.copytree(EXAMPLES / name, into / name, ignore=ignored))
        modules, own = EXAMPLES / "node_modules", EXAMPLES / name / "node_modules"
        if (EXAMPLES / name / "package-lock.json").exists():
            modules = own
        elif own.exists():  # other releases than those of all examples, of some packages
            (folder / "node_modules").symlink_to(own)
            (into / "node_modules").symlink_to(modules)
        server = into / "server"
        server.mkdir()
        shutil.copy(EXAMPLES / "main.py", server)
        return cls(folder, server, modules=modules)

    def generate(self, target: str) -> None:
        """Write the client of the application into a folder of the project."""
        document = self.server / "openapi.json"
        command = [script("reactive-rpc"), "export-openapi", "main:app", "--out", str(document)]
        run(*command, folder=self.server)
        options = ["--typescript", "--openapi", str(document), "--out", str(self.folder / target)]
        run(script("reactive-rpc"), "generate", *options, folder=self.folder)

    def run(self, program: str, *arguments: str) -> str:
        """Return what a command of a package prints: what `npx` would run."""
        return run(self.command(program), *arguments, folder=self.folder)

    def command(self, program: str) -> str:
        """Return the path of a command of a package."""
        return str(self.modules / ".bin" / program)

    @contextmanager
    def serving(self, *command: str, environment: Mapping[str, str]) -> Iterator[int]:
        """Serve the project while the block runs, and give the port, which is in the variable PORT."""
        port = free_port()
        variables = {**_PATHS, "PORT": str(port), "HOST": "127.0.0.1", **environment}
        process = Process(
            *command,
            log=self.folder / "server.log", environment=variables, works=lambda: listens(port), cwd=self.folder,
        )  # fmt: skip
        with process:
            yield port

    @contextmanager
    def serving_at(self, *command: str) -> Iterator[str]:
        """Run a command of a package whose last argument is the port, and give the address."""
        port = free_port()
        [npx, program, *arguments] = command
        assert npx == "npx"
        # Whether it answers, and not whether somebody listens: Vite tries the port before it takes it.
        process = Process(
            self.command(program), *arguments, str(port), "--host", "127.0.0.1", "--strictPort",
            log=self.folder / "server.log", environment=_PATHS, works=lambda: answers(port, "/"), cwd=self.folder,
        )  # fmt: skip
        with process:
            yield f"http://127.0.0.1:{port}"


@contextmanager
def at_one_address(project: Project, *command: str) -> Iterator[str]:
    """Serve a project and its application behind a proxy, and give the address of both."""
    with ExitStack() as stack:
        api = stack.enter_context(serving("main:app", folder=project.server))
        port = stack.enter_context(project.serving(*command, environment={"API_URL": api}))
        backend = api.removeprefix("http://")
        routes = (
            f"@application path /rpc/* /trpc/*\nhandle @application {{\nreverse_proxy {backend}\n}}\n"
            f"handle {{\nreverse_proxy 127.0.0.1:{port}\n}}"
        )
        yield stack.enter_context(Caddy(project.folder, routes)).url


STRICT = "default-src 'none'; script-src 'self'; connect-src 'self'; img-src data:"
SERVED = """
from fastapi import Request, Response
from fastapi.staticfiles import StaticFiles

from main import app

@app.middleware("http")
async def strict(request: Request, call_next) -> Response:
    response = await call_next(request)
    response.headers["content-security-policy"] = {policy!r}
    return response

app.mount("/", StaticFiles(directory={folder!r}, html=True))
"""


@contextmanager
def beside_its_application(project: Project, folder: str) -> Iterator[str]:
    """Serve the files of a project by its application, under a strict Content-Security-Policy, and give the address."""
    served = SERVED.format(folder=str(project.folder / folder), policy=STRICT)
    (project.server / "served.py").write_text(served, encoding="utf-8")
    with serving("served:app", folder=project.server) as url:
        yield url


def run(*command: str, folder: Path) -> str:
    """Return what a command prints.

    Raises:
        AssertionError: it fails; the message has its output.
    """
    environment = {**os.environ, **_PATHS}
    ran = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=PATIENCE_SECONDS,
    )  # fmt: skip
    assert ran.returncode == 0, f"{command} ended with {ran.returncode}\n{ran.stdout}{ran.stderr}"
    return ran.stdout


_PATHS = {"PATH": f"{NODE.parent}:{Path(sys.executable).parent}:{os.environ['PATH']}"}
"""Where programs find Node, and the commands of Python's packages."""
