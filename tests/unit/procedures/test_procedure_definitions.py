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
from types import ModuleType
from typing import Annotated, Any, cast
from typing import TypedDict as TypingTypedDict

import pytest
from fastapi import FastAPI
from pydantic import VERSION, BaseModel, ConfigDict, FailFast, PostgresDsn, RootModel, WithJsonSchema
from pydantic import Field as Bounded
from pydantic.json_schema import SkipJsonSchema
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel
from sqlmodel.ext.asyncio.session import AsyncSession

from reactive_rpc import DefinitionError, Login, NotFoundError, ReactiveRPC, by_tenant, define_reactive_function
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


async def get_item(db: AsyncSession, input: Ref) -> str:
    return ""


def never(_change: Change, _input: Ref) -> bool:
    return False


decorate: Any = define_reactive_function


def test_the_message_says_where_the_function_stands() -> None:
    """File and line, because names repeat."""
    with pytest.raises(DefinitionError, match=r"get_item \(test_procedure_definitions\.py:\d+\)"):
        decorate(dependencies="item")(get_item)


async def with_context(ctx: Login, input: Ref) -> str:
    return ""


@dataclass(frozen=True, kw_only=True)
class Member(Login):
    role: str = "user"


async def as_member(ctx: Member) -> str:
    return ""


def unknown_context() -> str:
    return ""


good = define_reactive_function(get_item)
context_taker = define_reactive_function(with_context)
member_taker = define_reactive_function.context(Member)(as_member)
no_procedures = ModuleType("no_procedures")

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
    "a list of procedures": (
        lambda: Registry(cast(Any, [good]), context=None), ("get_item", "list modules, or give"),
    ),
    "a module without procedures": (
        lambda: Registry([no_procedures], context=None), ("no_procedures", "defines no procedure"),
    ),
    "a context that nothing tells": (
        lambda: Registry({"a": {"b": context_taker}}, context=None),
        ("with_context", "a.b", "ReactiveRPC(context=...)"),
    ),
    "a step that asks for a context that nothing tells": (
        lambda: Registry({"a": {"b": decorate.use(by_tenant)(get_item)}}, context=None),
        ("get_item", "a.b", "ReactiveRPC(context=...)"),
    ),
    "a context that the application does not return": (
        lambda: Registry({"a": {"b": member_taker}}, context=Login),
        ("as_member", "begins with a Member", "returns a Login", "let the dependency return that"),
    ),
    "a context that says nothing of who calls": (
        lambda: Registry({"a": {"b": context_taker}}, context=unknown_context),
        ("unknown_context", "frozen dataclass of yours that extends it"),
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
            await rpc.admin.open()
        missing = [word for word in words if word not in str(raised.value)]
        assert not missing, str(raised.value)
    await rpc.admin.aclose()


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

    @define_reactive_function.mutation
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


def test_a_module_is_a_group_of_the_procedures_that_it_defines() -> None:
    """What it imports is another's, and a name that begins with an underscore is its own."""
    module = ModuleType("app.notes")
    vars(module).update(get_item=good, other=context_taker, _hidden=good, ref=Ref)
    good.function.__module__, before = "app.notes", good.function.__module__
    try:
        assert list(Registry([module], context=None)) == ["notes.get_item"]
        assert list(Registry({"v2": {"notes": module}}, context=None)) == ["v2.notes.get_item"]
    finally:
        good.function.__module__ = before


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
        define_reactive_function.mutation(function)


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
    procedure = define_reactive_function.mutation(function)
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
        define_reactive_function.mutation(taking(model))
        assert canonical(model.model_validate(given)) != canonical(model.model_validate(other))
    else:
        with pytest.raises(DefinitionError, match=r"input\.\w+: it needs pydantic 2\.14"):
            define_reactive_function.mutation(taking(model))
