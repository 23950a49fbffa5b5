"""Every wrong definition fails at start: the message names the function, the fault and the way out."""

from __future__ import annotations

import re
import sys
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from ipaddress import IPv4Network
from pathlib import Path
from typing import Annotated, Any
from typing import TypedDict as TypingTypedDict

import pytest
from fastapi import FastAPI
from pydantic import VERSION, BaseModel, ConfigDict, FailFast, PostgresDsn, RootModel, WithJsonSchema
from pydantic import Field as Bounded
from pydantic.json_schema import SkipJsonSchema
from sqlalchemy.orm import registry
from sqlmodel import Field, Session, SQLModel
from sqlmodel.ext.asyncio.session import AsyncSession

from reactive_rpc import Context, DefinitionError, NotFoundError, ReactiveRPC, define_reactive_function
from reactive_rpc.dependencies.change import Change
from reactive_rpc.procedures.canonical import canonical
from reactive_rpc.procedures.procedure import Procedure
from reactive_rpc.procedures.registry import Registry

SINCE_2_14 = tuple(map(int, VERSION.split(".")[:2])) >= (2, 14)


class Base(SQLModel, registry=registry()):
    """Keeps these tables out of the shared metadata."""


class Item(Base, table=True):
    id: int | None = Field(default=None, primary_key=True)
    name: str


class Ref(BaseModel):
    id: int


class Number(RootModel[int]):
    """One number."""


class OldTypedDict(TypingTypedDict):
    """Before Python 3.12, pydantic wants the one of typing_extensions."""

    x: int


class Opaque:
    """What pydantic makes no schema of."""


async def get_item(input: Ref, db: AsyncSession) -> str:
    return ""


async def unannotated_input(input, db: AsyncSession) -> str:  # type: ignore[no-untyped-def]  # the fault
    return ""


async def plain_input(input: int, db: AsyncSession) -> str:
    return ""


async def unannotated_db(input: Ref, db) -> str:  # type: ignore[no-untyped-def]  # the fault
    return ""


async def async_with_sync(input: Ref, db: Session) -> str:
    return ""


def sync_with_async(input: Ref, db: AsyncSession) -> str:
    return ""


async def other_parameter(input: Ref, session: AsyncSession) -> str:
    return ""


async def other_session(s: Annotated[AsyncSession, "given"]) -> str:
    return ""


async def bare_session(session) -> str:  # type: ignore[no-untyped-def]  # the fault
    return ""


async def other_context(user: Opaque) -> str:
    return ""


async def annotated_context(who: Context) -> str:
    return ""


async def other_input(data: Ref) -> str:
    return ""


async def scalar(agent_id: int) -> str:
    return ""


async def no_result(input: Ref):  # type: ignore[no-untyped-def]  # the fault
    return ""


async def strange_result(input: Ref) -> Opaque:
    return Opaque()


async def unresolved(input: Missing) -> str:  # type: ignore[name-defined]  # noqa: F821  # the fault
    return ""


async def broken_annotation(db: AsyncSession) -> list[str]:
    return []


broken_annotation.__annotations__["return"] = "list["


async def missing_attribute(db: AsyncSession) -> list[str]:
    return []


missing_attribute.__annotations__["return"] = "re.Missing"


async def table_input(input: Item, db: AsyncSession) -> str:
    return ""


async def root_input(input: Number) -> int:
    return input.root


async def with_context(input: Ref, ctx: Context) -> str:
    return ""


async def with_any_context(ctx: Opaque) -> str:
    return ""


def never(_change: Change, _input: Ref) -> bool:
    return False


decorate: Callable[..., Any] = define_reactive_function

AT_DECORATION: dict[str, tuple[Callable[[], object], tuple[str, ...]]] = {
    "unannotated input": (lambda: decorate(unannotated_input), ("unannotated_input", "input: AgentRef")),
    "input that is no model": (lambda: decorate(plain_input), ("plain_input", "int", "pydantic model")),
    "unannotated session": (lambda: decorate(unannotated_db), ("unannotated_db", "AsyncSession", "Session (def)")),
    "sync session in async def": (
        lambda: decorate(async_with_sync), ("async_with_sync", "sync session", "async def with AsyncSession"),
    ),
    "async session in def": (
        lambda: decorate(sync_with_async), ("sync_with_async", "async session", "def with Session"),
    ),
    "a session by another name": (
        lambda: decorate(other_parameter), ("other_parameter", "'session'", "input, db and ctx", "call the session db"),
    ),
    "a session by its annotation": (lambda: decorate(other_session), ("'s'", "call the session db")),
    "a session without annotation": (lambda: decorate(bare_session), ("'session'", "call the session db")),
    "a context by another name": (lambda: decorate(other_context), ("'user'", "call the context ctx")),
    "a context by its annotation": (lambda: decorate(annotated_context), ("'who'", "call the context ctx")),
    "an input by another name": (lambda: decorate(other_input), ("'data'", "call what clients pass input")),
    "a scalar": (lambda: decorate(scalar), ("'agent_id'", "in the fields of input")),
    "no result type": (lambda: decorate(no_result), ("no_result", "-> list[Agent]")),
    "result without a schema": (lambda: decorate(strange_result), ("strange_result", "Opaque")),
    "unresolved annotation": (lambda: decorate(unresolved), ("unresolved", "'Missing'", "run time")),
    "an annotation that is no Python": (
        lambda: decorate(broken_annotation), ("broken_annotation", "cannot be resolved", "'list['"),
    ),
    "an annotation that names nothing": (
        lambda: decorate(missing_attribute), ("missing_attribute", "cannot be resolved", "'Missing'"),
    ),
    "a table as input": (
        lambda: decorate(kind="mutation")(table_input), ("table_input", "Item", "a model without table=True"),
    ),
    "a root model as input": (lambda: decorate(root_input), ("root_input", "Number", "by name")),
    "a kind that is none": (lambda: decorate(kind="mutatoin")(get_item), ("get_item", "'mutatoin'", "say 'query' or")),
    "a scope that is none": (lambda: decorate(scope="tennant")(get_item), ("get_item", "'tennant'", "'tenant'")),
    "dependencies that are no list": (
        lambda: decorate(dependencies=Item)(get_item), ("get_item", "Item", "write dependencies=[Agent, Message]"),
    ),
    "dependencies that are a string": (
        lambda: decorate(dependencies="item")(get_item), ("get_item", "'item'", "write dependencies=[Agent, Message]"),
    ),
    "a predicate that is no function": (
        lambda: decorate(invalidate_when={Item: True})(get_item), ("get_item", "Item", "no function of change"),
    ),
    "public with ctx": (
        lambda: decorate(scope="public")(with_context), ("with_context", "scope='public'", "drop one"),
    ),
    "mutation with dependencies": (
        lambda: decorate(kind="mutation", dependencies=[Item])(get_item), ("get_item", "mutation", "for queries"),
    ),
    "mutation with a predicate": (
        lambda: decorate(kind="mutation", invalidate_when={Item: never})(get_item), ("get_item", "for queries"),
    ),
    "mutation with a scope": (
        lambda: decorate(kind="mutation", scope="tenant")(get_item), ("get_item", "for queries"),
    ),
    "predicate for no dependency": (
        lambda: decorate(dependencies=["other"], invalidate_when={Item: never})(get_item),
        ("get_item", "'item'", "declared: other", "add it to dependencies"),
    ),
    "dependency that is no table": (lambda: decorate(dependencies=[Ref])(get_item), ("get_item", "Ref", "table=True")),
    "a class": (lambda: decorate(Ref), ("Ref", "no function", "decorate a def")),
}  # fmt: skip


@pytest.mark.parametrize("fault", AT_DECORATION)
def test_a_wrong_function_is_refused_when_it_is_decorated(fault: str) -> None:
    """The message names the function, what is wrong, and what to write instead."""
    define, words = AT_DECORATION[fault]
    with pytest.raises(DefinitionError) as raised:
        define()
    missing = [word for word in words if word not in str(raised.value)]
    assert not missing, str(raised.value)


def test_the_message_says_where_the_function_stands() -> None:
    """File and line, because names repeat."""
    with pytest.raises(DefinitionError, match=r"no_result \(test_procedure_definitions\.py:\d+\)"):
        decorate(no_result)


good = define_reactive_function(get_item)
context_taker = define_reactive_function(with_context)

AT_REGISTRATION: dict[str, tuple[Callable[[], object], tuple[str, ...]]] = {
    "two of one name": (
        lambda: Registry({"a": {"b": good}, "a.b": good}, context=None), ("'a.b'", "rename one"),
    ),
    "a function that is a group": (
        lambda: Registry({"notes": {"all": good, "all.new": good}}, context=None),
        ("'notes.all'", "group of 'notes.all.new'", "rename one"),
    ),
    "no group": (lambda: Registry({"get": good}, context=None), ("'get'", "group")),
    "not decorated": (lambda: Registry({"a": {"b": get_item}}, context=None), ("'a.b'", "decorate")),
    "a hyphen": (lambda: Registry({"my-group": {"b": good}}, context=None), ("my-group", "letters, digits and _")),
    "a keyword": (lambda: Registry({"a": {"class": good}}, context=None), ("a.class", "spell")),
    "a leading underscore": (lambda: Registry({"a": {"_b": good}}, context=None), ("a._b", "spell")),
    "an empty name": (lambda: Registry({"a": {"": good}}, context=None), ("spell",)),
    "ctx without a context": (
        lambda: Registry({"a": {"b": context_taker}}, context=None),
        ("with_context", "a.b", "ReactiveRPC(context=...)"),
    ),
    "tenant without a context": (
        lambda: Registry({"a": {"b": decorate(scope="tenant")(get_item)}}, context=None),
        ("get_item", "scope='tenant'", "ReactiveRPC(context=...)"),
    ),
    "a context that cannot be compared": (
        lambda: Registry({"a": {"b": decorate(with_any_context)}}, context=Context),
        ("with_any_context", "Opaque", "frozen dataclass", "scope="),
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", AT_REGISTRATION)
def test_a_wrong_registration_is_refused(fault: str) -> None:
    """The message names the path, what is wrong, and the way out."""
    define, words = AT_REGISTRATION[fault]
    with pytest.raises(DefinitionError) as raised:
        define()
    missing = [word for word in words if word not in str(raised.value)]
    assert not missing, str(raised.value)


AT_START: dict[str, tuple[dict[str, Any], dict[str, Any], tuple[str, ...]]] = {
    "unknown dependency": ({"dependencies": ["itme"]}, {}, ("get_item", "a.b", "'itme'", "item", "Correct the name")),
    "unknown table of a predicate": ({"invalidate_when": {"itme": never}}, {}, ("get_item", "'itme'", "item")),
    "relation of an unknown table": ({}, {"relations": {"itme": ["item"]}}, ("relations", "'itme'", "item")),
    "relation to an unknown table": ({}, {"relations": {"item": ["itme.id"]}}, ("relations", "'itme.id'", "item")),
    "relation by an unknown column": (
        {}, {"relations": {"item": ["item.nmae"]}}, ("'item.nmae'", "no column 'nmae'", "id, name"),
    ),
}  # fmt: skip


@pytest.mark.anyio
@pytest.mark.parametrize("fault", AT_START)
async def test_a_declaration_that_the_database_contradicts_fails_the_start(tmp_path: Path, fault: str) -> None:
    """Against the real tables; what was opened before the fault is closed again, so a second start says the same."""
    options, arguments, words = AT_START[fault]
    rpc = ReactiveRPC(
        f"sqlite:///{tmp_path / 'a.db'}",
        functions={"a": {"b": decorate(**options)(get_item)}},
        metadata=Base.metadata,
        **arguments,
    )
    for _ in range(2):
        with pytest.raises(DefinitionError) as raised:
            await rpc.open()
        missing = [word for word in words if word not in str(raised.value)]
        assert not missing, str(raised.value)
    await rpc.aclose()


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("nonsense", "no database URL"),
        ("mysql://u:secret@h/d", r"Capture\(mode='session'\)"),
        ("postgresql+psycopg2://u:secret@h/d", "psycopg2 is not supported"),
        ("sqlite://", "in memory"),
        ("sqlite:///:memory:", "in memory"),
    ],
)
def test_a_wrong_url_is_refused_without_its_password(url: str, words: str) -> None:
    """It fails where it is given, and a password in it is not repeated."""
    with pytest.raises(DefinitionError, match=words) as raised:
        ReactiveRPC(url, functions={"a": {"b": good}})
    assert "secret" not in str(raised.value)


def test_a_procedure_is_still_its_function() -> None:
    """Calling it calls the function; its name, its docstring and its kind can be read."""

    @define_reactive_function(kind="mutation")
    def shout(input: Ref) -> str:
        """Shout the id.

        Loudly.
        """
        return f"{input.id}!"

    assert isinstance(shout, Procedure)
    assert shout(Ref(id=1)) == "1!"
    assert (shout.name, shout.kind, shout.summary) == ("shout", "mutation", "Shout the id.")
    assert shout.description == "Shout the id.\n\nLoudly."


def test_tables_are_named_by_model_table_or_name() -> None:
    """Three spellings of one dependency."""
    for table in (Item, "item", Item.__table__):  # type: ignore[attr-defined]  # SQLAlchemy's
        assert decorate(dependencies=[table])(get_item).dependencies == {"item"}


def test_names_nest() -> None:
    """Groups within groups, or dots, are one path."""
    registry = Registry({"a": {"b": {"c": good}}, "x.y": good}, context=None)
    assert list(registry) == ["a.b.c", "x.y"]
    assert (registry.find("x.y"), len(registry)) == (good, 2)
    with pytest.raises(NotFoundError, match="nope"):
        registry.find("nope")


@dataclass(frozen=True)
class Own:
    name: str


@pytest.mark.parametrize("kind", [Context, Own, Ref, str])
def test_a_context_may_be_the_applications_own(kind: Any) -> None:
    """A dataclass, a pydantic model or a plain value."""

    async def whoami(ctx) -> str:  # type: ignore[no-untyped-def]  # annotated below
        return ""

    whoami.__annotations__["ctx"] = kind
    assert len(Registry({"a": {"whoami": decorate(whoami)}}, context=Context)) == 1


class Unspelled(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)
    inner: list[Opaque]


class Bytes(BaseModel):
    name: str
    content: bytes


class Looking(BaseModel):
    model_config = ConfigDict(regex_engine="python-re")
    code: str = Bounded(pattern="^(?=a)ab$")


class Networks(BaseModel):
    network: IPv4Network
    dsn: PostgresDsn
    turn: complex


class Collected(BaseModel):
    parts: deque[int]


class Counted(BaseModel):
    ratio: Fraction


class Raising:
    """Whose schema fails in a way of its own."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        raise ValueError("not today")


class Failing(BaseModel):
    """Whose JSON schema fails in a way of its own."""

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: Any, handler: Any) -> Any:
        raise ValueError("not today")


class Hidden(BaseModel):
    shown: int
    hidden: SkipJsonSchema[int]


class Undocumented(BaseModel):
    plain: int
    odd: int = Bounded(json_schema_extra={"x": object()})  # type: ignore[dict-item]  # the fault


class Unhashable(dict[str, int]):
    """Metadata without a hash."""


class Upload(BaseModel):
    file: Annotated[int, WithJsonSchema({"type": "file"})]


class Titled(BaseModel):
    a: Annotated[int, WithJsonSchema({"title": 3})]


def with_text_of_an_annotation() -> Annotated[list[int], FailFast()] | None: ...


def taking(model: Any) -> Callable[..., Any]:
    async def take(input: Any) -> None: ...

    take.__annotations__ = {"input": model, "return": None}
    return take


def giving(annotation: Any) -> Callable[..., Any]:
    async def give() -> Any: ...

    give.__annotations__ = {"return": annotation}
    return give


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (taking(Unspelled), r"take \(.*\): input\.inner\[\]: pydantic does not know how it is spelled in JSON: use"),
        (taking(Bytes), r"take \(.*\): input\.content: bytes are spelled as UTF-8.*ser_json_bytes='base64'"),
        (
            giving(dict[str, re.Pattern[str]]),
            r"give \(.*\): the result\[\.\.\.\]: JSON does not carry all.*use str",
        ),
        (giving(list[set[int] | list[int]]), r"the result\[\]: JSON spells list and set alike"),
        (giving(dict[tuple[int, int], str]), r"the result: JSON's keys are texts.*use a list of pairs"),
        (giving(Annotated[str, Bounded(pattern="(?=a)")]), r"the result: no schema can be made of it: .*"),
        (giving(OldTypedDict) if sys.version_info < (3, 12) else giving(Opaque), r"the result: no schema can be made"),
        (giving(Raising), r"give \(.*\): the result: no schema can be made of it: not today"),
        (
            giving(Annotated[list[int], FailFast()]),
            r"give \(.*: the result: .* no hash .*'FailFast'.* field of a",
        ),
        (giving(dict[str, list[Annotated[set[int], FailFast()]]]), r"no hash \(unhashable type: 'FailFast'\)"),
        (giving(Annotated[int, {"unit": "m"}]), r"no hash \(unhashable type: 'dict'\)"),
        (giving(SkipJsonSchema[int]), r"the result: it is left out of the OpenAPI document.*take away SkipJsonSchema"),
        (taking(Hidden), r"take \(.*\): input\.hidden: it is left out of the OpenAPI document"),
        (taking(Undocumented), r"input\.odd: it has no place in an OpenAPI document: .*'object'>; .* must be JSON"),
        (
            giving(Undocumented),
            r"the result\.odd: it has no place in an OpenAPI document: .*'object'>; .* must be JSON",
        ),
        (giving(Annotated[int, WithJsonSchema({"x": object()})]), r"the result: it has no place .*must be JSON"),
        (giving(Failing), r"the result: it has no place in an OpenAPI document: not today"),
        (
            with_text_of_an_annotation,
            r"unhashable type: 'FailFast'.* to a field of a model",
        ),
    ],
)
def test_types_that_cannot_be_carried_stop_at_the_definition(function: Callable[..., Any], message: str) -> None:
    """The function, the field, the fault and the way out; not a library's error, and not a 500 on each call."""
    with pytest.raises(DefinitionError, match=message):
        define_reactive_function(kind="mutation")(function)


WRONGLY_DOCUMENTED: dict[str, tuple[Callable[..., Any], str]] = {
    "a type that JSON Schema has not": (
        taking(Upload),
        r"take \(.*\): input: FastAPI cannot document it: properties\.file\.type.*; put right what Field",
    ),
    "a title that is no text": (
        giving(list[Titled]),
        r"give \(.*\): the result: FastAPI cannot document it: \$defs\.Titled\.properties\.a\.title: Input should be",
    ),
}


@pytest.mark.parametrize(("function", "message"), WRONGLY_DOCUMENTED.values(), ids=WRONGLY_DOCUMENTED)
def test_what_fastapi_cannot_document_stops_the_start(
    tmp_path: Path, function: Callable[..., Any], message: str
) -> None:
    """And not everybody's `/openapi.json`, whenever somebody asks for it."""
    procedure = define_reactive_function(kind="mutation")(function)
    with pytest.raises(DefinitionError, match=message):
        ReactiveRPC(f"sqlite+aiosqlite:///{tmp_path}/x.db", functions={"a": {"b": procedure}})


class Quick(BaseModel):
    """What cannot stand at the result itself, where it can."""

    ids: Annotated[list[int], FailFast()]
    odd: Annotated[int, Unhashable()]
    limit: float = float("inf")
    cursor: int | SkipJsonSchema[None] = None


def test_the_ways_out_are_documented(tmp_path: Path) -> None:
    """Metadata without a hash in a field of a model, a None that clients need not know of, an infinite default."""
    functions = {
        "a": {"give": define_reactive_function(giving(Quick)), "take": define_reactive_function(taking(Quick))}
    }
    rpc = ReactiveRPC(f"sqlite+aiosqlite:///{tmp_path}/x.db", functions=functions)
    app = FastAPI(lifespan=rpc.lifespan)
    app.include_router(rpc.router)
    assert app.openapi()["components"]["schemas"]["Quick"]["properties"]["ids"]["type"] == "array"


def test_types_that_only_the_cache_did_not_know_are_taken(tmp_path: Path) -> None:
    """A pattern that looks ahead, networks, DSNs: each can be part of a key and of a document."""
    given = {"network": "10.0.0.0/8", "dsn": "postgres://a@b/c", "turn": "1j"}
    other = {**given, "turn": "2j"}
    for model in (Looking, Networks):
        function = define_reactive_function(taking(model))
        ReactiveRPC(f"sqlite+aiosqlite:///{tmp_path}/x.db", functions={"a": {"take": function}})
    assert canonical(Networks.model_validate(given)) != canonical(Networks.model_validate(other))


@pytest.mark.parametrize(
    ("model", "given", "other"),
    [(Collected, {"parts": [1]}, {"parts": [2]}), (Counted, {"ratio": "1/3"}, {"ratio": "2/3"})],
)
def test_types_that_pydantic_has_since_2_14_are_taken_from_then_on(model: Any, given: Any, other: Any) -> None:
    """Deques and fractions: part of a key where pydantic itself carries them, and else refused with the version."""
    if SINCE_2_14:
        define_reactive_function(kind="mutation")(taking(model))
        assert canonical(model.model_validate(given)) != canonical(model.model_validate(other))
    else:
        with pytest.raises(DefinitionError, match=r"input\.\w+: it needs pydantic 2\.14"):
            define_reactive_function(kind="mutation")(taking(model))
