"""`reactive-rpc check`, and the fixture `no_drift`: declarations that do not hold are found and named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .test_cli import run

pytest_plugins = ["pytester"]

MAIN = """
import asyncio
from fastapi import FastAPI
from pydantic import BaseModel
from sqlalchemy import func, text
from sqlmodel import Field, SQLModel, select
from sqlmodel.ext.asyncio.session import AsyncSession
from reactive_rpc import Login, Cache, ReactiveRPC, define_reactive_function

class Note(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    room: str
    text: str

class Room(SQLModel, table=True):
    name: str = Field(primary_key=True)

class InRoom(BaseModel):
    room: str

@define_reactive_function(dependencies=[DEPENDENCIES], examples=[{"room": "kitchen"}], invalidate_when=PREDICATE)
async def in_room(db: AsyncSession, room: str) -> list[str]:
    return list((await db.exec(select(Note.text).where(Note.room == room).order_by(Note.id))).all())

@define_reactive_function
async def now(db: AsyncSession) -> str:
    return str((await db.exec(select(func.now(), Note.id))).first())

@define_reactive_function(cache=Cache(ttl_seconds=60))
async def bounded_now(db: AsyncSession) -> str:
    return str((await db.exec(select(func.now(), Note.id))).first())

@define_reactive_function(cache=False)
async def uncached(db: AsyncSession) -> int:
    return 1

@define_reactive_function
async def fails(db: AsyncSession) -> int:
    raise RuntimeError("no such luck")

@define_reactive_function
async def needs(db: AsyncSession, input: InRoom) -> list[str]:
    return []

@define_reactive_function.mutation
async def add(db: AsyncSession, room: str, text: str) -> int:
    note = Note(room=room, text=text)
    db.add(note)
    await db.flush()
    return note.id

FUNCTIONS = {"in_room": in_room, "add": add}
rpc = ReactiveRPC("sqlite:///notes.db", functions={"notes": FUNCTIONS}, metadata=SQLModel.metadata)
app = FastAPI(lifespan=rpc.lifespan)
app.include_router(rpc.router)
"""


def write_main(folder: Path, dependencies: str = "Note", predicate: str = "None", functions: str = "") -> None:
    """Write an application whose declarations are these."""
    text = MAIN.replace("DEPENDENCIES", dependencies).replace("PREDICATE", predicate)
    (folder / "main.py").write_text(text.replace('"add": add}', f'"add": add{functions}}}'), encoding="utf-8")


def test_declarations_that_hold_pass(tmp_path: Path) -> None:
    """What was tried is counted, and the code is 0."""
    write_main(tmp_path)
    found = run(tmp_path, "check", "main:rpc")
    assert found.returncode == 0, found.stdout + found.stderr
    assert "1 queries were tried; every declaration holds" in found.stdout


@pytest.mark.parametrize(
    ("dependencies", "report"),
    [
        ("Room", "notes.in_room reads 'note', which is not among its dependencies"),
        ("Note, Room", "notes.in_room declares 'room' and never read it"),
    ],
)
def test_a_dependency_that_does_not_hold_is_named(tmp_path: Path, dependencies: str, report: str) -> None:
    """Read and not declared, declared and not read: each is one line, and the code is 1."""
    write_main(tmp_path, dependencies)
    found = run(tmp_path, "check", "main:rpc")
    assert found.returncode == 1
    assert report in found.stdout


def test_inputs_come_from_a_file_of_calls(tmp_path: Path) -> None:
    """A query without examples is named as not tried, and tried once a file holds an input for it."""
    write_main(tmp_path, functions=', "needs": needs')
    assert "not tried notes.needs: it needs an input" in run(tmp_path, "check", "main:rpc").stdout
    (tmp_path / "calls.json").write_text(json.dumps({"notes.needs": [{"room": "hall"}]}))
    found = run(tmp_path, "check", "main:rpc", "--calls", "calls.json")
    assert "2 queries were tried" in found.stdout


def test_what_was_not_tried_is_no_success(tmp_path: Path) -> None:
    """Of it nothing can be said: the code is 1, unless that is asked for."""
    write_main(tmp_path, functions=', "needs": needs')
    found = run(tmp_path, "check", "main:rpc")
    assert (found.returncode, "every declaration holds" in found.stdout) == (1, False)
    assert "1 queries were tried and 1 were not, of which nothing can be said" in found.stdout
    allowed = run(tmp_path, "check", "main:rpc", "--allow-untried")
    assert (allowed.returncode, "not tried notes.needs" in allowed.stdout) == (0, True)


def test_findings_are_data_too(tmp_path: Path) -> None:
    """`--format json` prints one document and nothing else, with the codes of the text."""
    write_main(tmp_path, "Note, Room", functions=', "needs": needs, "now": now')
    checked = run(tmp_path, "check", "main:rpc", "--format", "json")
    assert checked.returncode == 1
    assert json.loads(checked.stdout) == {
        "ok": False,
        "tried": 2,
        "drifts": ["notes.in_room declares 'room' and never read it: drop it, or call it so that it does"],
        "errors": {},
        "untried": {"notes.needs": "an input (examples=, or --calls)"},
        "allow_untried": False,
    }
    found = run(tmp_path, "doctor", "main:rpc", "--format", "json")
    assert found.returncode == 0
    report = json.loads(found.stdout)
    procedures = {each["path"]: each for each in report["procedures"]}
    assert procedures["notes.in_room"]["dependencies"] == ["note", "room"]
    assert (procedures["notes.in_room"]["cached"], procedures["notes.now"]["cached"]) == (True, False)
    assert "now()" in procedures["notes.now"]["why"]
    room = {"name": "room", "captured": True, "reason": None, "compared_exactly": ["name"]}
    assert room | {"copied": ["name"], "withheld": [], "read": True} in report["tables"]
    assert report["copies"] == {"outbox": 3600.0}


CLOCKS = """
from datetime import UTC, date, datetime, timedelta
from reactive_rpc import Cache
from reactive_rpc import now as this

class Post(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    at: datetime

RECENT = timedelta(seconds=2)

@define_reactive_function
async def seconds(db: AsyncSession) -> list[int]:
    return list((await db.exec(select(Post.id).where(Post.at > datetime.now(UTC) - RECENT))).all())

@define_reactive_function
async def today(db: AsyncSession) -> list[int]:
    return list((await db.exec(select(Post.id).where(func.substr(Post.at, 1, 10) == str(date.today())))).all())

@define_reactive_function
async def months(db: AsyncSession) -> str:
    await db.exec(select(Post.id))
    return f"{date.today():%Y-%m}"

@define_reactive_function(cache=Cache(ttl_seconds=60))
async def bounded(db: AsyncSession) -> list[int]:
    return list((await db.exec(select(Post.id).where(Post.at > datetime.now(UTC) - RECENT))).all())

@define_reactive_function(cache=False)
async def never(db: AsyncSession) -> list[int]:
    return list((await db.exec(select(Post.id).where(Post.at > datetime.now(UTC) - RECENT))).all())

@define_reactive_function
async def ticking(db: AsyncSession) -> list[int]:
    return list((await db.exec(select(Post.id).where(Post.at > this(every=60) - RECENT))).all())

@define_reactive_function
def timeless(db: Session) -> list[int]:
    return list(db.exec(select(Post.id)).all())

FUNCTIONS = dict(
    seconds=seconds, today=today, months=months, bounded=bounded, never=never, ticking=ticking, timeless=timeless
)
rpc = ReactiveRPC("sqlite:///notes.db", functions={"posts": FUNCTIONS}, metadata=SQLModel.metadata)
"""


def test_what_asks_pythons_clock_is_found(tmp_path: Path) -> None:
    """To the microsecond, by the day, in a parameter or in the result; what says how it depends on the time is not."""
    write_main(tmp_path)
    main = tmp_path / "main.py"
    main.write_text(main.read_text() + "from sqlmodel import Session\n" + CLOCKS)
    found = run(tmp_path, "check", "main:rpc", "--format", "json")
    assert found.returncode == 1, found.stderr
    report = json.loads(found.stdout)
    assert (report["tried"], report["errors"]) == (7, {})
    drifts = {drift.split()[0]: drift for drift in report["drifts"]}
    assert drifts.keys() == {"posts.seconds", "posts.today", "posts.months"}
    assert "post.at moves by itself" in drifts["posts.seconds"]
    assert "a parameter of 'SELECT post.id" in drifts["posts.today"]
    assert "its result moves by itself" in drifts["posts.months"]
    assert all("now(every=...)" in drift and "cache=False" in drift for drift in drifts.values())


ROLES = """
from reactive_rpc import Context, ForbiddenError

CONTEXTS = {"ann": Login(identity="ann"), "bob": Login(identity="bob")}

def get_context() -> Login:
    return CONTEXTS["ann"]

@define_reactive_function
async def mine(db: AsyncSession, ctx: Login) -> list[str]:
    if ctx.identity != "ann":
        raise ForbiddenError("for ann")
    return list((await db.exec(select(Note.text))).all())

rpc = ReactiveRPC(
    "sqlite:///notes.db", functions={"notes": {"mine": mine}}, context=get_context, metadata=SQLModel.metadata
)
"""


@pytest.mark.parametrize(
    ("contexts", "code", "report"),
    [
        ([], 1, "not tried notes.mine: it needs a context"),
        (["main:CONTEXTS"], 0, "1 queries were tried; every declaration holds"),
        (["ann=main:get_context", "main:CONTEXTS"], 1, "two contexts are called 'ann'"),
        (["main:get_context"], 0, "1 queries were tried"),
        (["bob=main:BOB", "cem=main:CEM"], 1, "notes.mine: FORBIDDEN: for ann (as cem)"),
    ],
)
def test_queries_are_tried_for_each_context(tmp_path: Path, contexts: list[str], code: int, report: str) -> None:
    """By role; where one is answered, others may be refused, and where none is, that is told."""
    write_main(tmp_path)
    main = tmp_path / "main.py"
    others = "\nBOB, CEM = Login(identity='bob'), Login(identity='cem')\n"
    main.write_text(main.read_text() + ROLES + others)
    found = run(tmp_path, "check", "main:rpc", *(part for each in contexts for part in ("--context", each)))
    assert found.returncode == code, found.stdout + found.stderr
    assert report in found.stdout + found.stderr


@pytest.mark.parametrize(
    ("calls", "report"),
    [
        ("[1]", "write {"),
        ("{", "calls.json"),
        ('{"notes.add": [{}]}', "is no query with one result"),
        ('{"notes.none": [{}]}', "No procedure found on path 'notes.none'"),
    ],
)
def test_a_wrong_file_of_calls_is_told(tmp_path: Path, calls: str, report: str) -> None:
    """One sentence, code 1, no traceback."""
    write_main(tmp_path)
    (tmp_path / "calls.json").write_text(calls)
    found = run(tmp_path, "check", "main:rpc", "--calls", "calls.json")
    assert found.returncode == 1
    assert report in found.stdout + found.stderr
    assert "Traceback" not in found.stderr


def test_a_query_that_fails_is_told(tmp_path: Path) -> None:
    """The error's type and words stand beside the path."""
    write_main(tmp_path, functions=', "fails": fails')
    found = run(tmp_path, "check", "main:rpc")
    assert found.returncode == 1
    assert "notes.fails: RuntimeError: no such luck" in found.stdout


def test_doctor_says_why_a_query_cannot_be_cached(tmp_path: Path) -> None:
    """Each query is tried where its input is known: the reason names the construct."""
    write_main(tmp_path, functions=', "now": now, "needs": needs, "bounded": bounded_now, "uncached": uncached')
    found = run(tmp_path, "doctor", "main:rpc")
    lines = {line.split()[1]: line for line in found.stdout.splitlines() if "notes." in line}
    assert "no: it calls now()" in lines["notes.now"]
    assert "not tried" in lines["notes.needs"]
    assert "no:" not in lines["notes.bounded"]
    assert "no: cache=False" in lines["notes.uncached"]
    assert "yes" in lines["notes.in_room"]
    assert "capture   triggers see every write" in found.stdout


BY_REQUEST = """
from typing import Annotated

from fastapi import Depends, Request

from main import in_room
from reactive_rpc import Login, ReactiveRPC, define_reactive_function

def address(request: Request) -> str:
    return str(request.client)

@define_reactive_function(cache=False)
async def here(where: Annotated[str, Depends(address)]) -> str:
    return where

def who(request: Request) -> Login:
    return Login()

rpc = ReactiveRPC("sqlite:///notes.db", functions={"notes": {"in_room": in_room, "here": here}}, context=who)
"""


def test_doctor_names_dependencies_that_take_the_request(tmp_path: Path) -> None:
    """With the procedures that they are solved for on every call; without such a dependency nothing is said of any."""
    write_main(tmp_path)
    assert "Solved on every call" not in run(tmp_path, "doctor", "main:rpc").stdout
    (tmp_path / "asking.py").write_text(BY_REQUEST, encoding="utf-8")
    found = run(tmp_path, "doctor", "asking:rpc")
    assert found.returncode == 0, found.stderr
    table = found.stdout.partition("Solved on every call")[2]
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in table.splitlines() if "notes." in line]
    assert rows == [["who", "who calls", "notes.in_room, notes.here"], ["address", "an argument", "notes.here"]]
    as_data = json.loads(run(tmp_path, "doctor", "asking:rpc", "--format", "json").stdout)
    assert [line["dependency"] for line in as_data["solved_per_call"]] == ["who", "address"]


WATCHED = """
import asyncio
import pytest
from main import rpc

def test_writes_between_reads(no_drift):
    no_drift(rpc)
    async def play():
        await rpc.admin.open()
        try:
            call = rpc.caller()
            in_room = rpc.functions["notes.in_room"]
            assert await call(in_room, room="kitchen") == []
            await call(rpc.functions["notes.add"], room="kitchen", text="x")
            await call(in_room, room="kitchen")
        finally:
            await rpc.admin.aclose()
    asyncio.run(play())
"""


@pytest.mark.parametrize(
    ("dependencies", "predicate", "report"),
    [
        ("Note", "None", None),
        ("Note, Room", "None", "declares 'room' and never read it"),
        (
            "Note",
            "{Note: lambda change, input: False}",
            "invalidate_when['note'] ignored a change that altered the result",
        ),
    ],
)
def test_the_fixture_fails_a_test_on_drift(
    pytester: pytest.Pytester, dependencies: str, predicate: str, report: str | None
) -> None:
    """Declarations that hold pass; others fail the test at its end, in so many words."""
    write_main(pytester.path, dependencies, predicate)
    pytester.makepyfile(test_watched=WATCHED)
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "-p", "no:xdist")
    if report is None:
        result.assert_outcomes(passed=1)
    else:
        result.assert_outcomes(passed=1, errors=1)
        result.stdout.fnmatch_lines([f"*notes.in_room {report.replace('[', '[[]')}*"])


CLOCKED = """
import asyncio
import main
from reactive_rpc import ReactiveRPC

def test_reads(no_drift):
    no_drift(main.rpc)
    async def play():
        await main.rpc.admin.open()
        try:
            for _ in range(2):
                await main.rpc.caller()(main.rpc.functions["posts.seconds"])
        finally:
            await main.rpc.admin.aclose()
    asyncio.run(play())
"""


def test_the_fixture_fails_a_test_that_asks_pythons_clock(pytester: pytest.Pytester) -> None:
    """What a test's calls hit is computed again, and the column that is compared with another value is named."""
    write_main(pytester.path)
    main = pytester.path / "main.py"
    main.write_text(main.read_text() + "from sqlmodel import Session\n" + CLOCKS)
    pytester.makepyfile(test_clocked=CLOCKED)
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "-p", "no:xdist")
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*posts.seconds asks Python's clock, or chance, and is cached: post.at moves*"])
