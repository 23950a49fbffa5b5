"""What stands in the log, and in answers, of what went wrong: no values of the database's, of inputs or of outputs."""

from __future__ import annotations

import json
import logging
import traceback
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError, field_validator
from sqlalchemy import text
from sqlalchemy.exc import StatementError
from sqlmodel import Session
from sqlmodel.ext.asyncio.session import AsyncSession

from reactive_rpc import define_reactive_function
from reactive_rpc.statements.concealment import concealed

from .postgresql_rooms import DRIVERS, with_driver
from .postgresql_rooms import serving as serving_on_postgresql
from .rooms import ROOMS, Note, error_of, serving

pytestmark = pytest.mark.anyio

SECRET = "hunter2-and-some-more"


class Word(BaseModel):
    word: str


class Checked(BaseModel):
    words: list[int] | None = None
    word: str = ""

    @field_validator("word")
    @classmethod
    def _is_short(cls, word: str) -> str:
        if len(word) > 5:
            raise ValueError(f"{word!r} is too long")
        return word


@define_reactive_function
async def names_nothing(db: AsyncSession, input: Word) -> str:
    """A wrong column, and a parameter."""
    await (await db.connection()).execute(text("SELECT nonsense FROM note WHERE text = :word"), {"word": input.word})
    return ""


@define_reactive_function
def names_nothing_sync(db: Session, input: Word) -> str:
    """The same, in a thread."""
    db.connection().execute(text("SELECT nonsense FROM note WHERE text = :word"), {"word": input.word})
    return ""


@define_reactive_function
async def no_number(db: AsyncSession, input: Word) -> str:
    """A value that the driver, or the server, refuses; on SQLite, what is nothing to it."""
    statement = text("SELECT id FROM note WHERE id = CAST(:word AS int) + 1")
    await (await db.connection()).execute(statement, {"word": input.word})
    return db.get_bind().nonsense  # type: ignore[no-any-return, union-attr]  # SQLite comes here


@define_reactive_function.mutation
async def twice(db: AsyncSession, input: Word) -> str:
    """A unique constraint."""
    for _ in range(2):
        db.add(Note(room=input.word, text=input.word))
        await db.flush()
    return ""


@define_reactive_function
async def says(db: AsyncSession, input: Word) -> dict[str, int]:
    """An output that does not fit its annotation."""
    return {"places": input.word}  # type: ignore[dict-item]  # that is the fault


@define_reactive_function
async def never_checked(db: AsyncSession, input: Word) -> Note:
    """A field that nobody ever validated."""
    return Note(id=1, room="a", text=[input.word])  # type: ignore[arg-type]  # that is the fault


@define_reactive_function
async def checks(db: AsyncSession, input: Checked) -> str:
    """Nothing wrong but the input."""
    return input.word


FUNCTIONS: Mapping[str, Any] = {
    **ROOMS,
    "bad": {
        "names_nothing": names_nothing, "names_nothing_sync": names_nothing_sync, "no_number": no_number,
        "twice": twice, "says": says, "never_checked": never_checked, "checks": checks,
    },
}  # fmt: skip
FAILING = ["names_nothing", "names_nothing_sync", "no_number", "twice", "says", "never_checked"]


@pytest.fixture(params=["sqlite", *DRIVERS])
async def server(request: pytest.FixtureRequest, tmp_path: Path, anyio_backend: str) -> AsyncIterator[Any]:
    if request.param == "sqlite":
        async with serving(tmp_path / "rooms.db", FUNCTIONS) as opened:
            yield opened
    else:
        url = with_driver(request.getfixturevalue("postgresql_url"), request.param)
        async with serving_on_postgresql(url, FUNCTIONS) as opened_there:
            yield opened_there


async def test_no_value_is_logged_or_answered(server: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever fails, by call or by subscription: the log says where and what kind, with the traceback."""
    caplog.set_level(logging.DEBUG, logger="reactive_rpc")
    for name in FAILING:
        answer = await server.call(f"bad.{name}", {"word": SECRET})
        assert answer.status_code in (409, 500), (name, answer.text)
        assert SECRET not in answer.text, name
    queries = [{"path": f"bad.{name}", "input": {"word": SECRET}} for name in FAILING if name != "twice"]
    polled = await server.call("events/poll", {"queries": queries})
    errors = polled.json()["events"][0]["data"]["errors"]
    assert len(errors) == len(queries)
    assert all(SECRET not in json.dumps(refused["error"]) for refused in errors)
    logged = "\n".join([caplog.text, *(_formatted(record) for record in caplog.records)])
    assert SECRET not in logged
    for expected in ("nonsense", "bad.says failed, request", "places: int_parsing", "names_nothing", "Traceback"):
        assert expected in logged, expected


def _formatted(record: logging.LogRecord) -> str:
    """Return what a tracker of errors would keep: the exception with its chain."""
    error = record.exc_info[1] if record.exc_info else None
    return "" if error is None else "".join(traceback.format_exception(error)) + repr(error.__dict__)


async def test_a_validators_words_go_to_the_caller_cut(tmp_path: Path) -> None:
    """They are the application's own; neither they nor a list of faults makes a large answer of a small fault."""
    async with serving(tmp_path / "rooms.db", FUNCTIONS) as server:
        [fault] = error_of(await server.call("bad.checks", {"word": "too long"}))["details"]
        assert fault == {"loc": ["word"], "message": "Value error, 'too long' is too long", "type": "value_error"}
        [fault] = error_of(await server.call("bad.checks", {"word": "x" * 100_000}))["details"]
        assert len(fault["message"]) == 300
        answer = await server.call("bad.checks", {"words": ["x"] * 100_000})
        assert (answer.status_code, len(error_of(answer)["details"])) == (400, 100)
        answer = await server.call("events/poll", {"queries": ["x"] * 100_000})
        assert (answer.status_code, len(error_of(answer)["details"])) == (400, 100)


def test_what_holds_no_values_is_logged_as_it_is() -> None:
    """An application's own exceptions are its own affair; a likeness keeps type, place, traceback and chain."""
    plain = ValueError(SECRET)
    assert concealed(plain) is plain
    try:
        try:
            Checked.model_validate({"word": SECRET})
        except ValidationError as exc:
            raise RuntimeError("while reading") from exc
    except RuntimeError as exc:
        formatted = "".join(traceback.format_exception(concealed(exc)))
    assert SECRET not in formatted
    assert "RuntimeError: while reading" in formatted
    assert "ValidationError: word: value_error" in formatted
    assert "model_validate" in formatted
    odd = StatementError("a bind parameter", "SELECT 1", {"word": SECRET}, ValueError(SECRET))
    assert SECRET not in str(concealed(odd))
