"""A mapped class as context is refused with the lines that adapt it, which run as they stand."""

from __future__ import annotations

import enum
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, cast

import httpx
import pytest
from fastapi import Depends, FastAPI, Header
from sqlalchemy import JSON, Column, Integer, String, Table, Uuid
from sqlalchemy.orm import DeclarativeBase, Mapped, MappedAsDataclass, mapped_column, registry
from sqlmodel import Field, SQLModel

from reactive_rpc import DefinitionError, Login, ReactiveRPC, define_reactive_function
from reactive_rpc.procedures.context import context_fault
from reactive_rpc.procedures.mapped_context import plain_context_code
from tests.support.calls import by_path

pytestmark = pytest.mark.anyio


class SQLModelBase(SQLModel, registry=registry()):
    """Keeps these tables out of the shared metadata."""


class Base(DeclarativeBase):
    pass


class Role(enum.Enum):
    ADMIN = "admin"
    USER = "user"


class Template(SQLModelBase, table=True):
    """The full-stack template's user."""

    id: uuid.UUID = Field(default_factory=uuid.uuid4, primary_key=True)
    email: str
    is_active: bool = True
    is_superuser: bool = False
    full_name: str | None = None
    hashed_password: str = ""


class Member(Base):
    """SQLAlchemy's own, with an organization that may be missing, and an attribute of another name than its column."""

    __tablename__ = "member"
    id: Mapped[int] = mapped_column(primary_key=True)
    org_id: Mapped[int | None]
    role: Mapped[Role] = mapped_column(default=Role.USER)
    plan: Mapped[str | None] = mapped_column("plan_name")


class Plain(Base):
    __tablename__ = "plain"
    username: Mapped[str] = mapped_column(primary_key=True)


class Tagged(MappedAsDataclass, Base):
    __tablename__ = "tagged"
    key: Mapped[uuid.UUID] = mapped_column(Uuid, primary_key=True)
    tenant: Mapped[str] = mapped_column()
    scopes: Mapped[list[str]] = mapped_column(JSON, default_factory=list)


class Imperative:
    def __init__(self, id: int, company: str) -> None:
        self.id = id
        self.company = company


mappers = registry()
mappers.map_imperatively(
    Imperative,
    Table("imperative", mappers.metadata, Column("id", Integer, primary_key=True), Column("company", String)),
)

ID = uuid.UUID(int=7)
USERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "template": (
        Template(id=ID, email="ada@example.org", is_superuser=True),
        {"identity": str(ID), "tenant": None, "is_superuser": True},
    ),
    "member": (
        Member(id=3, org_id=None, role=Role.ADMIN, plan=None),
        {"identity": "3", "tenant": None, "role": Role.ADMIN, "plan": None},
    ),
    "member of one": (
        Member(id=3, org_id=5, role=Role.USER, plan="pro"),
        {"identity": "3", "tenant": "5", "role": Role.USER, "plan": "pro"},
    ),
    "plain": (Plain(username="ada"), {"identity": "ada", "tenant": None}),
    "tagged": (
        Tagged(key=ID, tenant="t", scopes=["read"]),
        {"identity": str(ID), "tenant": "t", "scopes": ("read",)},
    ),
    "imperative": (Imperative(id=1, company="acme"), {"identity": "1", "tenant": "acme"}),
}


@pytest.mark.parametrize("name", USERS)
async def test_the_lines_run_as_they_stand(name: str) -> None:
    """Pasted into an application, they make a context of that very user, which FastAPI resolves."""
    user, expected = USERS[name]

    def get_current_user() -> Any:
        return user

    namespace: dict[str, Any] = {
        "Annotated": Annotated, "Any": Any, "Login": Login, "Depends": Depends, "Role": Role,
        "dataclass": dataclass, "get_current_user": get_current_user, "bool": bool, type(user).__name__: type(user),
    }  # fmt: skip
    lines = plain_context_code(type(user), get_current_user)
    assert len(lines.splitlines()) <= 6
    assert "password" not in lines
    exec(compile(lines, "pasted", "exec", dont_inherit=True), namespace)
    app = FastAPI()
    found = []

    @app.get("/", response_model=None)
    def index(ctx: Any = Depends(namespace["get_context"])) -> None:  # noqa: B008  # FastAPI's own spelling
        found.append(ctx)

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        assert (await client.get("/")).status_code == 200
    [context] = found
    assert isinstance(context, Login)
    assert context_fault(type(context)) is None
    assert vars(context) == {**expected, "expires_at": None}


async def get_user(_token: Annotated[str, Header()]) -> Member:
    raise NotImplementedError


async def yield_user() -> AsyncIterator[Member]:
    raise NotImplementedError
    yield


def generate_user() -> Iterator[Member | None]:
    raise NotImplementedError
    yield


def annotated_user() -> Annotated[Member, "current"]:
    raise NotImplementedError


def silent_user():  # type: ignore[no-untyped-def]  # it does not say what it returns
    raise NotImplementedError


async def of_row(ctx: Member) -> str:
    raise NotImplementedError


async def of_optional_row(user: Member | None) -> str:
    raise NotImplementedError


async def of_template(current_user: Template) -> str:
    raise NotImplementedError


@define_reactive_function
async def with_login(ctx: Login) -> str:
    raise NotImplementedError


@define_reactive_function(public=True)
async def public() -> str:
    raise NotImplementedError


@pytest.mark.parametrize("context", [get_user, yield_user, generate_user, annotated_user])
@pytest.mark.parametrize("procedure", [with_login, define_reactive_function(public.function)])
def test_a_dependency_that_returns_one_is_refused_at_start_with_those_lines(
    tmp_path: Path, procedure: Any, context: Any
) -> None:
    """Whether a handler asks for the context or not; the lines name the dependency as it is called."""
    with pytest.raises(DefinitionError) as raised:
        ReactiveRPC(f"sqlite:///{tmp_path}/x.db", functions={"a": {"b": procedure}}, context=context)
    message = str(raised.value)
    assert f"def get_context(user: Annotated[Member, Depends({context.__name__})]) -> CurrentUser" in message
    assert "role: Role" in message


@pytest.mark.parametrize("function", [of_row, of_optional_row, of_template])
def test_a_handler_that_takes_one_is_refused_when_it_is_decorated(function: Any) -> None:
    """By whatever name; one that a dependency makes is none (test_dependencies.py)."""
    with pytest.raises(DefinitionError, match=r"(Member|Template) is a mapped class"):
        define_reactive_function(function)


def test_it_is_no_fault_where_nobody_asks_who_calls(tmp_path: Path) -> None:
    """A public procedure has no context."""
    ReactiveRPC(f"sqlite:///{tmp_path}/x.db", functions={"a": {"b": public}}, context=cast(Any, get_user))


async def test_what_nobody_announced_is_refused_at_its_first_call(tmp_path: Path) -> None:
    """A dependency that does not say what it returns: the call says the same."""
    rpc = ReactiveRPC(f"sqlite:///{tmp_path}/x.db", functions={"a": {"b": with_login}}, context=silent_user)
    await rpc.admin.open()
    try:
        with pytest.raises(DefinitionError, match="begins with a Login, and was given a Member"):
            await by_path(rpc, Member(id=1, org_id=1, role=Role.USER))("a.b")
    finally:
        await rpc.admin.aclose()
