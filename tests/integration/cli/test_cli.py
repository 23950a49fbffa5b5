"""The commands, as a shell runs them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

MAIN = """
from fastapi import FastAPI
from sqlmodel import Field, SQLModel, select
from sqlmodel.ext.asyncio.session import AsyncSession
from reactive_rpc import ReactiveRPC, define_reactive_function

class Note(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    text: str

@define_reactive_function(dependencies=[{dependency}])
async def get_all(db: AsyncSession) -> list[Note]:
    return list((await db.exec(select(Note))).all())

rpc = ReactiveRPC("sqlite:///notes.db", functions={{"notes": {{"get_all": get_all}}}}, metadata=SQLModel.metadata)
app = FastAPI(title="Notebook", lifespan=rpc.lifespan)
app.include_router(rpc.router)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with an application."""
    (tmp_path / "main.py").write_text(MAIN.format(dependency="Note"), encoding="utf-8")
    return tmp_path


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `reactive-rpc` in `folder`, its words piped."""
    command = [sys.executable, "-c", "from reactive_rpc.cli import main; main()", *arguments]
    environment = os.environ | {"COLUMNS": "80", "NO_COLOR": "1"}
    return subprocess.run(
        command, check=False, cwd=folder, env=environment, capture_output=True, text=True, timeout=120
    )


def test_export_and_generate_write_what_check_then_accepts(folder: Path) -> None:
    """A fresh export and a fresh client are current; neither needs the database."""
    for command in (["export-openapi", "main:app"], ["generate"], ["generate", "--typescript"]):
        assert run(folder, *command, "--check").returncode == 1
        assert run(folder, *command).returncode == 0
        assert run(folder, *command, "--check").returncode == 0
    assert (folder / "generated_client" / "client.py").is_file()
    assert (folder / "generated_client" / "typescript" / "api.ts").is_file()
    assert not (folder / "notes.db").exists()


def test_check_tells_what_is_out_of_date_and_the_command_that_mends_it(folder: Path) -> None:
    """A changed application is found, by the file's name."""
    run(folder, "export-openapi", "main:app")
    main = folder / "main.py"
    main.write_text(main.read_text().replace("async def get_all(db", "async def get_all(db").replace("Notebook", "Pad"))
    found = run(folder, "export-openapi", "main:app", "--check")
    assert found.returncode == 1
    assert "openapi.json is not current" in found.stderr
    assert "reactive-rpc export-openapi main:app" in found.stderr


def test_doctor_tells_what_is_captured_and_what_is_cached(folder: Path) -> None:
    """Every table and every procedure has a line; all is well, so the code is 0."""
    found = run(folder, "doctor", "main:rpc")
    assert found.returncode == 0, found.stderr
    assert "note" in found.stdout
    assert "id, text" in found.stdout
    assert "notes.get_all" in found.stdout


def test_doctor_cuts_no_name_where_it_is_piped(folder: Path) -> None:
    """However narrow the terminal was: programs look for names, and people paste them."""
    main, name, table = folder / "main.py", "n" * 120, "t" * 120
    text = main.read_text().replace("get_all", name)
    main.write_text(text.replace("    id: int", f'    __tablename__ = "{table}"\n    id: int', 1), encoding="utf-8")
    found = run(folder, "doctor", "main:rpc")
    assert found.returncode == 0, found.stderr
    assert f"notes.{name}" in found.stdout
    assert table in found.stdout


def test_doctor_tells_a_wrong_definition(folder: Path) -> None:
    """An unknown table is one sentence that names function, fault and way out; no traceback."""
    (folder / "main.py").write_text(MAIN.format(dependency='"memo"'), encoding="utf-8")
    found = run(folder, "doctor", "main:rpc")
    assert found.returncode == 1
    assert "Traceback" not in found.stderr
    for part in ("get_all", "unknown table 'memo'", "the database has note", "Correct the name"):
        assert part in found.stderr


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["doctor", "main"], "no module:name"),
        (["doctor", "nothing:rpc"], "nothing"),
        (["doctor", "main:nothing"], "nothing"),
        (["doctor", "main:app"], "not a ReactiveRPC"),
        (["generate", "--openapi", "nowhere.json"], "nowhere.json is not there"),
    ],
)
def test_a_wrong_argument_is_told(folder: Path, arguments: list[str], fault: str) -> None:
    """One sentence, code 1, no traceback."""
    found = run(folder, *arguments)
    assert found.returncode == 1
    assert fault in found.stderr
    assert "Traceback" not in found.stderr


def test_a_file_that_nobody_generated_is_never_written_over(folder: Path) -> None:
    """Hand-written modules, a folder, a link, a foreign document: each is named, exit 2, and nothing changes."""
    run(folder, "export-openapi", "main:app")
    (folder / "app").mkdir()
    (folder / "app" / "models.py").write_text("class Mine: ...\n", encoding="utf-8")
    (folder / "elsewhere.py").write_text("x = 1\n", encoding="utf-8")
    (folder / "linked").mkdir()
    (folder / "linked" / "client.py").symlink_to(folder / "elsewhere.py")
    (folder / "nested" / "models.py").mkdir(parents=True)
    (folder / "settings.json").write_text('{"debug": true}', encoding="utf-8")
    before = {path: path.is_file() and path.read_bytes() for path in folder.rglob("*")}
    for target, named in [("app", "models.py"), ("linked", "client.py"), ("nested", "models.py"), ("elsewhere.py", "")]:
        done = run(folder, "generate", "--out", target)
        assert (done.returncode, named in done.stderr) == (2, True), done.stderr
    done = run(folder, "export-openapi", "main:app", "--out", "settings.json")
    assert (done.returncode, "settings.json was not generated" in done.stderr) == (2, True), done.stderr
    assert {path: path.is_file() and path.read_bytes() for path in folder.rglob("*")} == before
