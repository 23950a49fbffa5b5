"""The client's runtime, and what is generated for it, run where no server is installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

BLOCKER = """
import sys

SERVER = {"fastapi", "starlette", "sqlalchemy", "sqlmodel", "aiosqlite", "uvicorn", "orjson", "redis", "sse_starlette",
          "pydantic_settings", "fastapi_offline", "typer", "rich", "datamodel_code_generator"}

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in SERVER:
            raise ImportError(f"{name} is not installed here")

sys.meta_path.insert(0, Blocker())
"""


def run(code: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a process in which the server's dependencies cannot be imported."""
    return subprocess.run(
        [sys.executable, "-c", BLOCKER + code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("module", ["reactive_rpc", "reactive_rpc.client", "reactive_rpc.errors", "generated_client"])
def test_a_client_needs_no_server(module: str) -> None:
    """It is imported, with every public name it has, without FastAPI and SQLAlchemy."""
    names = "" if module == "reactive_rpc" else f"for name in {module}.__all__: getattr({module}, name)"
    done = run(f"import {module}\n{names}")
    assert done.returncode == 0, done.stderr


def test_the_server_does_need_it() -> None:
    """The blocker blocks: the same process cannot import the server."""
    done = run("import reactive_rpc.app")
    assert done.returncode != 0
    assert "is not installed here" in done.stderr
