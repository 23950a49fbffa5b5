"""The list of messages in `docs/troubleshooting.md`: whole, and true to what the package says."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest
from pages.messages import FOLLOWED, PLACE, Message, Package
from pages.troubleshooting import SECTIONS, messages_list, our_package
from pydantic import BaseModel, SecretStr

from reactive_rpc import (
    Cache,
    Capture,
    ReactiveRPC,
    ReactiveRPCError,
    RPCError,
    define_reactive_function,
    errors,
    now,
    topic,
)
from reactive_rpc.client import AsyncClient

URL = "sqlite+aiosqlite:////tmp/never-made/team.db"


class Word(BaseModel):
    word: str


@define_reactive_function
async def get_word(input: Word) -> str:
    return input.word


def unannotated() -> None:
    @define_reactive_function
    def nothing(input: Word):  # type: ignore[no-untyped-def]  # which is the fault
        return input


def secret_result() -> None:
    @define_reactive_function
    def secret(input: Word) -> SecretStr:
        return SecretStr(input.word)

    ReactiveRPC(URL, functions={"words": {"secret": secret}})


def not_open() -> None:
    rpc = ReactiveRPC(URL, functions={"words": {"get": get_word}})
    asyncio.run(rpc.admin.try_call("words.get", {"word": "a"}, None))


def no_database() -> None:
    asyncio.run(ReactiveRPC(URL, functions={"words": {"get": get_word}}).admin.open())


def no_client() -> None:
    AsyncClient("http://127.0.0.1:1").watch(None, {})  # type: ignore[arg-type]  # never looked at


WRONG: dict[str, Callable[[], object]] = {
    "a lifetime that is none": lambda: Cache(ttl_seconds=0),
    "a freshness that is none": lambda: Cache(freshness="fresh"),  # type: ignore[arg-type]
    "a tick that is none": lambda: now(every=0),
    "a name that no topic can have": lambda: topic("a b"),
    "a mode that is none": lambda: Capture(mode="x"),  # type: ignore[arg-type]
    "no URL": lambda: ReactiveRPC("nonsense", functions={}),
    "a database in memory": lambda: ReactiveRPC("sqlite+aiosqlite://", functions={}),
    "a function in no group": lambda: ReactiveRPC(URL, functions={"get_word": get_word}),
    "a result without a type": unannotated,
    "a result that cannot be written": secret_result,
    "a server that is not open": not_open,
    "a folder that is not there": no_database,
    "a client that is not open": no_client,
}


def fits(template: str, said: str) -> bool:
    """Tell whether a message may be of a template; templates of hardly more than places fit nothing."""
    literal = template.replace(PLACE, "")
    pattern = ".*".join(map(re.escape, template.split(PLACE)))
    return len(literal.strip(" :.,")) > 5 and re.search(pattern, said, re.DOTALL) is not None


@pytest.fixture(scope="module")
def package() -> Package:
    return our_package()


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_an_error_that_a_user_meets_is_on_the_list(wrong: Callable[[], object], package: Package) -> None:
    """What the package really says is found by its text, and under the class that it is raised as."""
    with pytest.raises((ReactiveRPCError, RuntimeError)) as raised:
        wrong()
    kinds = {error.__name__ for error in type(raised.value).__mro__}
    assert any(fits(found.text, str(raised.value)) for found in package.messages() if found.kind in kinds)


def test_every_kind_of_message_has_a_section(package: Package) -> None:
    """No message is left out of the page because nobody thought of its kind."""
    shown = {kind for _, kinds, _ in SECTIONS for kind in kinds} | {one.__name__ for one in RPCError.by_code.values()}
    assert {message.kind for message in package.messages()} - shown == {"RPCError"}


def test_every_message_is_on_the_page(package: Package) -> None:
    """In one line, as code."""
    page = messages_list()
    assert all(" ".join(found.text.split()) in page for found in package.messages() if found.kind != "RPCError")


def test_what_cannot_be_read_says_what_a_library_or_an_error_of_ours_says(package: Package) -> None:
    """A message that is put together where it cannot be followed would be missing: this names each."""
    package.messages()
    assert {re.sub(r"code=\d", "", call).replace(", )", ")") for call in package.unread} == {
        "HTTPOutcomeError(exc)",  # of the application's own
        "failure(str(exc))",
        "self.fault(fault)",  # of the options: those are read where they are yielded
        "self.fault(str(exc))",
    }
    assert any(found.text.startswith("cache=False keeps no result that") for found in package.messages())


def test_the_names_that_are_followed_are_those_of_the_package() -> None:
    """If one is renamed, its messages would be missing in silence."""
    source = "\n".join(path.read_text(encoding="utf-8") for path in Path(errors.__file__).parent.rglob("*.py"))
    assert [name for name in FOLLOWED if not re.search(rf"^ *(class|def) {name}\b", source, re.MULTILINE)] == []


def sources(folder: Path, source: str) -> Package:
    """Write a package of one module beside the errors."""
    package = folder / "thing"
    package.mkdir()
    (package / "errors.py").write_text("class ReactiveRPCError(Exception): ...\nclass Bad(ReactiveRPCError): ...\n")
    (package / "__init__.py").write_text(dedent(source))
    return Package(package)


@pytest.mark.parametrize(
    ("source", "texts"),
    [
        ("raise Bad('plain')", ["plain"]),
        ("raise Bad(f'the {thing} is {other!r}')", ["the … is …"]),
        ("GONE = 'it is gone'\nraise Bad(GONE)", ["it is gone"]),
        ("def f(now):\n    said = 'late' if now else 'early'\n    raise Bad(said)", ["early", "late"]),
        ("def f():\n    return 'said'\n\nraise Bad(f())", ["said"]),
        ("def f(text='by default'):\n    raise Bad(text)\n\nf('given')", ["by default", "given"]),
        ("SAID = {1: 'one', 2: 'two'}\nraise Bad(SAID[n])", ["one", "two"]),
        ("class Worse(Bad): ...\nraise Worse('a class below')", ["a class below"]),
        ("raise Bad(str(exc) or 'nothing')", ["nothing"]),
    ],
)
def test_a_text_is_followed_to_where_it_is_written(tmp_path: Path, source: str, texts: list[str]) -> None:
    """By name, by call, by condition; and an error of ours is met as the class of `errors.py`."""
    found = sources(tmp_path, f"from thing.errors import Bad\n{source}")
    assert found.messages() == [Message("Bad", text) for text in texts]
    assert found.unread == []


def test_a_text_that_cannot_be_followed_is_reported(tmp_path: Path) -> None:
    """Nothing is left out in silence."""
    found = sources(tmp_path, "from thing.errors import Bad\nraise Bad(library.explain(fault))")
    assert found.messages() == []
    assert found.unread == ["Bad(library.explain(fault))"]
