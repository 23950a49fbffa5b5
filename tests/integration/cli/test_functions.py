"""`reactive-rpc functions`: where each option comes from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from .test_cli import run

MAIN = """
from sqlmodel import Field, SQLModel, select
from sqlmodel.ext.asyncio.session import AsyncSession
from reactive_rpc import Cache, CallInfo, Answered, Login, Next, NotFoundError, ReactiveRPC, Settings, Tenant
from reactive_rpc import by_tenant, define_reactive_function, rate_limit, topic

class Note(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)

async def log(call: CallInfo, next: Next) -> Answered:
    return await next()

def who() -> Login:
    return Login()

base = define_reactive_function.wrap(log).use(rate_limit(600))
base = base.defaults(query={"cache": Cache(push="result")}, tags=["all"])

@base.use(by_tenant).query(
    dependencies=[Note, "agent", topic("weather")], invalidate_when={Note: lambda change, input: True}, tags=["own"]
)
async def get(db: AsyncSession, ctx: Tenant) -> int:
    return 1

@define_reactive_function.query(public=True, cache=False, raises=[NotFoundError])
async def ping() -> str:
    return "pong"

@base.mutation(attempts=1)
async def put(db: AsyncSession) -> int:
    return 1

notes = {"get": get, "put": put}
functions = {"notes": notes, "other": {"ping": ping}}
rpc = ReactiveRPC("sqlite:///notes.db", functions=functions, context=who, settings=Settings(isolation="read_committed"))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with an application."""
    (tmp_path / "main.py").write_text(MAIN, encoding="utf-8")
    return tmp_path


def line_of(text: str) -> str:
    """Return where the first line with a text stands."""
    return f"main.py:{MAIN[: MAIN.index(text)].count(chr(10)) + 1}"


def described(folder: Path, *path: str) -> dict[str, Any]:
    """Return `{path: its description}`."""
    found = run(folder, "functions", "main:rpc", *path, "--format", "json")
    assert found.returncode == 0, found.stderr
    return {each["path"]: each for each in json.loads(found.stdout)["functions"]}


def options_of(function: dict[str, Any]) -> dict[str, tuple[Any, str, list[str]]]:
    """Return `{option: (value, set_by, where)}`."""
    return {each["name"]: (each["value"], each["set_by"], each["where"]) for each in function["options"]}


def test_each_option_is_described_with_what_set_it(folder: Path) -> None:
    """A decorator, a definer, a setting, or nobody; what adds up names each line."""
    functions = described(folder)
    assert list(functions) == ["notes.get", "notes.put", "other.ping"]
    get, put = options_of(functions["notes.get"]), options_of(functions["notes.put"])
    defaults, decorator = line_of("base = base.defaults"), line_of("@base.use(by_tenant)")
    assert get["cache.push"] == ("result", "lines", [defaults])
    assert get["cache.freshness"] == ("strict", "settings", [])
    assert get["tags"] == (["all", "own"], "lines", [defaults, decorator])
    assert get["dependencies"] == (["Note", "agent", "topic weather"], "lines", [decorator])
    assert get["invalidate_when"] == ({"Note": "<lambda>"}, "lines", [decorator])
    assert get["public"] == (False, "default", [])
    assert put["attempts"] == (1, "lines", [line_of("@base.mutation")])
    assert put["isolation"] == ("read_committed", "settings", [])
    ping = options_of(functions["other.ping"])
    assert ping["cache"] == (False, "lines", [line_of("@define_reactive_function.query")])
    assert (ping["tags"], ping["raises"][0]) == ((["other"], "default", []), ["NotFoundError"])
    assert not (folder / "notes.db").exists()


def test_context_and_steps_are_described_in_order(folder: Path) -> None:
    """With the context that each step makes, and the one that the handler gets."""
    functions = described(folder)
    get = functions["notes.get"]
    assert (get["kind"], get["root"], get["context"]) == ("query", "Login", "Tenant")
    assert get["steps"] == [
        "main.log, around each call",
        "reactive_rpc.rate_limit(600, per_seconds=60)",
        "reactive_rpc.procedures.context.by_tenant -> Tenant",
    ]
    assert functions["notes.put"]["context"] is None
    assert functions["other.ping"]["root"] == "nobody (public)"


def test_a_path_chooses_a_procedure_or_a_group(folder: Path) -> None:
    """Another is refused in one sentence that names those that there are."""
    assert list(described(folder, "notes.put")) == ["notes.put"]
    assert list(described(folder, "notes")) == ["notes.get", "notes.put"]
    found = run(folder, "functions", "main:rpc", "note")
    assert found.returncode == 1
    assert "no procedure and no group 'note': it has notes.get, notes.put, other.ping" in found.stderr


def test_people_read_a_table(folder: Path) -> None:
    """The same as text."""
    found = run(folder, "functions", "main:rpc", "notes.put")
    assert found.returncode == 0, found.stderr
    for part in (
        "notes.put  mutation, put (main.py:",
        "Login, of which the handler gets nothing",
        "Settings.isolation",
    ):
        assert part in found.stdout
