"""What needs an extra that is not installed says which, and is no traceback where it is a command."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

BLOCKER = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == {missing!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.path.insert(0, {root!r})
sys.meta_path.insert(0, Blocker())
"""
COMMAND = "from reactive_rpc.cli import main; main()"
IMPORTS = {
    "the server": ("fastapi", "from reactive_rpc import ReactiveRPC", "reactive_rpc.ReactiveRPC", "server"),
    "a database's driver": ("asyncpg", "from reactive_rpc import ReactiveRPC", "reactive_rpc.ReactiveRPC", "server"),
    "the decorator": (
        "sqlalchemy", "from reactive_rpc import define_reactive_function", "reactive_rpc.define_reactive_function",
        "server",
    ),
    "servers for tests": ("uvicorn", "from reactive_rpc.testing import running", "reactive_rpc.testing", "server"),
    "the generator": (
        "datamodel_code_generator", "from reactive_rpc.codegen import generate", "reactive_rpc.codegen", "cli",
    ),
    "migrations": ("alembic", "import reactive_rpc.alembic", "reactive_rpc.alembic", "alembic"),
}  # fmt: skip
MAIN = """
from sqlmodel.ext.asyncio.session import AsyncSession
from sqlmodel import Field, SQLModel, select
from reactive_rpc import ReactiveRPC, define_reactive_function

class Note(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)

@define_reactive_function
async def get_all(db: AsyncSession) -> list[int | None]:
    return list((await db.exec(select(Note.id))).all())

rpc = ReactiveRPC("sqlite:///notes.db", functions={"notes": {"get_all": get_all}}, metadata=SQLModel.metadata)
"""


def run(missing: str, code: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a process in which one distribution cannot be imported."""
    blocked = BLOCKER.format(missing=missing, root=str(ROOT)) + code
    return subprocess.run(
        [sys.executable, "-c", blocked, *arguments],
        cwd=folder, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(("missing", "code", "part", "extra"), IMPORTS.values(), ids=IMPORTS)
def test_an_import_says_which_extra_it_needs(missing: str, code: str, part: str, extra: str, tmp_path: Path) -> None:
    """What was asked for, what is missing, what to type; also to who catches ImportError."""
    caught = f"try:\n    {code}\nexcept ImportError as exc:\n    print(type(exc).__name__, exc.name, exc)"
    done = run(missing, caught, tmp_path)
    assert done.stdout == f"MissingExtraError {missing} {part} needs {missing}: pip install 'reactive-rpc[{extra}]'\n"


@pytest.mark.parametrize("missing", ["typer", "rich", "fastapi"])
def test_the_command_says_what_it_needs(missing: str, tmp_path: Path) -> None:
    """The script is there after a plain install, too."""
    done = run(missing, COMMAND, tmp_path, "--help")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"error reactive-rpc needs {missing}: pip install 'reactive-rpc[server,cli]'\n"


def test_check_says_what_it_needs_to_move_the_clock(tmp_path: Path) -> None:
    """One sentence on stderr; with it, the same command finds nothing wrong."""
    (tmp_path / "main.py").write_text(MAIN, encoding="utf-8")
    done = run("time_machine", COMMAND, tmp_path, "check", "main:rpc")
    assert done.returncode == 1
    assert done.stderr == "error trying a query by another clock needs time_machine: pip install 'reactive-rpc[cli]'\n"
    assert run("nothing", COMMAND, tmp_path, "check", "main:rpc").returncode == 0


def test_what_is_not_our_dependency_is_an_ordinary_error(tmp_path: Path) -> None:
    """A module of the application's that is not there is named by Python, and no extra would bring it."""
    (tmp_path / "main.py").write_text("import no_such_module", encoding="utf-8")
    done = run("nothing", COMMAND, tmp_path, "doctor", "main:rpc")
    assert done.stderr == "error main:rpc: No module named 'no_such_module'\n"
