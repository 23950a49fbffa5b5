"""Each shape that a handler, a step, a wrapper or a definer cannot have, and the message that it is refused with.

The messages stand in `refused_shapes.txt`, to be read as somebody reads them who has just made the mistake. After a
change, write it anew: `REACTIVE_WRITE_GOLDEN=1 pytest tests/unit/procedures/test_handler_refused_shapes.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from functools import partial
from pathlib import Path
from typing import Annotated, Any, TypeVar

import pytest
from fastapi import BackgroundTasks, Body, Cookie, Depends, File, Form, Header, Query, Request, Response, UploadFile
from fastapi import Path as FromPath
from fastapi.responses import FileResponse
from fastapi.security import APIKeyQuery
from fastapi.security.base import SecurityBase
from pydantic import BaseModel, RootModel, SecretStr
from pydantic import Field as PydanticField
from sqlalchemy.engine import Connection
from sqlalchemy.orm import registry
from sqlmodel import Field, Session, SQLModel
from sqlmodel.ext.asyncio.session import AsyncSession

from reactive_rpc import (
    Answered,
    Cache,
    CallInfo,
    Context,
    DeclaredError,
    DefinitionError,
    Login,
    Next,
    Tenant,
    by_tenant,
    define_reactive_function,
)
from tests.support.golden import check_messages, message_of

GOLDEN = Path(__file__).with_name("refused_shapes.txt")

define: Any = define_reactive_function
C = TypeVar("C", bound=Context)


class Base(SQLModel, registry=registry()):
    """Keeps the table out of the shared metadata."""


class Item(Base, table=True):
    id: int | None = Field(default=None, primary_key=True)
    role: str = "user"


class Ref(BaseModel):
    id: int


class Number(RootModel[int]):
    """One number."""


class Opaque:
    """What pydantic makes no schema of."""


@dataclass(frozen=True, kw_only=True)
class Member(Login):
    role: str = "user"


@dataclass(frozen=True, kw_only=True)
class Roles(Login):
    roles: list[str]


class Undecorated(Login):
    """No dataclass of its own."""


@dataclass(frozen=True, kw_only=True)
class OfRow(Login):
    item: Item


async def no_result(db: AsyncSession):  # type: ignore[no-untyped-def]
    ...


async def result_without_schema() -> Opaque:
    raise NotImplementedError


async def unresolved(item: Missing) -> None: ...  # type: ignore[name-defined]  # noqa: F821


async def broken_annotation(db: AsyncSession) -> list[str]:
    return []


broken_annotation.__annotations__["return"] = "list["


async def missing_attribute(db: AsyncSession) -> list[str]:
    return []


missing_attribute.__annotations__["return"] = "Path.Missing"


async def unannotated_input(item_id) -> None: ...  # type: ignore[no-untyped-def]


async def unannotated_model(input) -> None: ...  # type: ignore[no-untyped-def]


async def unannotated_session(db) -> None: ...  # type: ignore[no-untyped-def]


async def unannotated_context(ctx) -> None: ...  # type: ignore[no-untyped-def]


async def sync_session(db: Session) -> None: ...


def async_session(db: AsyncSession) -> None: ...


async def connection(db: Connection) -> None: ...


async def optional_session(db: AsyncSession | None = None) -> None: ...


async def optional_context(ctx: Login | None = None) -> None: ...


async def text_for_a_session(session: str) -> None: ...


async def two_sessions(db: AsyncSession, other: AsyncSession) -> None: ...


async def two_contexts(ctx: Login, other: Tenant) -> None: ...


async def context_first(ctx: Login, db: AsyncSession) -> None: ...


async def input_first(item_id: int, db: AsyncSession) -> None: ...


async def input_before_context(db: AsyncSession, item_id: int, ctx: Login) -> None: ...


async def dict_for_a_context(ctx: dict[str, str]) -> None: ...


async def row_for_a_context(current_user: Item) -> None: ...


async def mutable_context(ctx: Roles) -> None: ...


async def undecorated_context(ctx: Undecorated) -> None: ...


async def row_in_a_context(ctx: OfRow) -> None: ...


async def another_context(ctx: Tenant) -> None: ...


async def positional(item_id: int, /) -> None: ...


async def variadic(*item_ids: int) -> None: ...


async def keywords(**fields: int) -> None: ...


async def model_and_field(input: Ref, limit: int) -> None: ...


async def scalar_model(input: int) -> None: ...


async def table_model(input: Item) -> None: ...


async def root_model(input: Number) -> None: ...


async def private_field(_id: int) -> None: ...


async def pydantics_field(model_dump: int) -> None: ...


async def opaque_field(value: Opaque) -> None: ...


def get_db() -> AsyncSession:
    raise NotImplementedError


def of_request(request: Request) -> str:
    return str(request.url)


def by_nested(inner: Annotated[str, Depends(of_request)]) -> str:
    return inner


def of_answer(response: Response, seen: Annotated[str, Cookie()] = "") -> None: ...


def of_query(page: Annotated[int, Query()] = 1) -> int:
    return page


def of_body(title: Annotated[str, Body()]) -> str:
    return title


def of_path(tenant: Annotated[str, FromPath()]) -> str:
    return tenant


def of_background(tasks: BackgroundTasks) -> None: ...


class Scheme(SecurityBase):
    """A scheme of an application's own, of which nobody knows what it reads."""

    scheme_name = "own"

    def __call__(self, request: Request) -> str:
        return request.headers["x-own"]


def taking_plainly(db: AsyncSession) -> None: ...


def taking_opaque(value: Opaque) -> None: ...


def taking_async(db: Annotated[AsyncSession, Depends(get_db)]) -> None: ...


async def taking_sync(db: Annotated[Session, Depends(get_db)]) -> None: ...


class Rolled(AsyncSession):
    """A session of an application's own."""


class Other(AsyncSession):
    """Another one."""


def taking_other(db: Annotated[Other, Depends(get_db)]) -> None: ...


async def depends_on_the_request(url: Annotated[str, Depends(by_nested)]) -> None: ...


async def depends_on_the_request_by_default(item_id: int, url: str = Depends(by_nested)) -> None: ...


async def depends_on_the_response(done: Annotated[None, Depends(of_answer)]) -> None: ...


async def depends_on_the_query(page: Annotated[int, Depends(of_query)]) -> None: ...


async def depends_on_a_key_in_the_query(key: Annotated[str, Depends(APIKeyQuery(name="key"))]) -> None: ...


async def depends_on_the_body(title: Annotated[str, Depends(of_body)]) -> None: ...


async def depends_on_the_background(tasks: Annotated[None, Depends(of_background)]) -> None: ...


async def depends_on_an_unknown_scheme(key: Annotated[str, Depends(Scheme())]) -> None: ...


async def depends_on_the_path(tenant: Annotated[str, Depends(of_path)]) -> None: ...


async def takes_the_request(request: Request) -> None: ...


async def takes_the_response(response: Response) -> None: ...


async def takes_background_tasks(tasks: BackgroundTasks) -> None: ...


def of_form(title: Annotated[str, Form()]) -> str:
    return title


def of_file(plan: UploadFile) -> None: ...


async def depends_on_a_form(title: Annotated[str, Depends(of_form)]) -> None: ...


async def depends_on_a_file(plan: Annotated[None, Depends(of_file)]) -> None: ...


class WithFile(BaseModel):
    plan: UploadFile


class WithTitle(BaseModel):
    title: str


async def file_in_a_query(plan: UploadFile) -> None: ...


async def file_in_the_input(input: WithFile) -> None: ...


async def file_called_input(input: UploadFile) -> None: ...


async def file_and_field(title: UploadFile, input: WithTitle) -> None: ...


async def files_by_name(plans: dict[str, UploadFile]) -> None: ...


async def file_or_text(plan: UploadFile | str) -> None: ...


async def optional_file_without_default(plan: UploadFile | None) -> None: ...


async def bytes_of_a_file(plan: Annotated[bytes, File()]) -> None: ...


async def file_with_alias(plan: Annotated[UploadFile, File(alias="thePlan")]) -> None: ...


async def file_after_input_and_context(plan: UploadFile, db: AsyncSession) -> None: ...


async def header_as_input(lang: Annotated[str, Header()]) -> None: ...


async def query_as_input(page: int = Query(1)) -> None: ...


async def dependency_after_input(item_id: int, greeting: Annotated[str, Depends(of_query)]) -> None: ...


async def dependency_before_session(greeting: Annotated[str, Depends(of_query)], db: AsyncSession) -> None: ...


async def dependency_with_a_plain_session(value: Annotated[None, Depends(taking_plainly)]) -> None: ...


async def dependency_that_fastapi_does_not_know(value: Annotated[None, Depends(taking_opaque)]) -> None: ...


def dependency_with_an_async_session(db: Session, value: Annotated[None, Depends(taking_async)]) -> None: ...


async def async_dependency_with_a_sync_session(value: Annotated[None, Depends(taking_sync)]) -> None: ...


async def dependency_with_another_session(db: Rolled, value: Annotated[None, Depends(taking_other)]) -> None: ...


async def with_context(ctx: Login) -> None: ...


async def plain(db: AsyncSession) -> None: ...


def plain_sync(db: Session) -> None: ...


async def step_of_nothing() -> None: ...


async def step_of_a_text(ctx: str) -> None: ...


async def step_of_any(ctx: C) -> C: ...  # type: ignore[empty-body]


async def truthy(ctx: Login) -> bool:
    raise NotImplementedError


async def giving_a_dict(ctx: Login) -> dict[str, str]:
    raise NotImplementedError


async def unsaid(ctx: Login): ...  # type: ignore[no-untyped-def]


async def step_with_input(ctx: Login, item_id: int) -> None: ...


async def step_with_sync_session(ctx: Login, db: Session) -> None: ...


async def giving_roles(ctx: Login) -> Roles:
    raise NotImplementedError


async def of_member(ctx: Member) -> None: ...


async def with_session(ctx: Login, db: AsyncSession) -> None: ...


def no_coroutine(call: CallInfo, next: Next) -> Answered: ...  # type: ignore[empty-body]


async def too_few(call: CallInfo) -> Answered:
    raise NotImplementedError


async def wraps(call: CallInfo, next: Next) -> Answered:
    raise NotImplementedError


async def returns_a_response() -> FileResponse:
    raise NotImplementedError


async def maybe_a_response() -> Response | None: ...


async def several_responses() -> dict[str, list[FileResponse]]:
    raise NotImplementedError


def mutation(function: Callable[..., Any]) -> object:
    return define.mutation(function)


def declared(
    name: str, annotations: Any, *members: Mapping[str, Any], code: str | None = "CONFLICT", doc: str = "no"
) -> object:
    """Return the declared error of these fields."""
    body = {"__annotations__": annotations, "__doc__": doc, "__module__": __name__, **dict(*members)}
    return type(name, (DeclaredError,), body, **({} if code is None else {"code": code}))


SHAPES: dict[str, Callable[[], object]] = {
    **{
        f"handler: {function.__name__}": lambda function=function: define(function)  # type: ignore[misc]  # bound here
        for function in (
            no_result, result_without_schema, unresolved, broken_annotation, missing_attribute,
            unannotated_input, unannotated_model, unannotated_session,
            unannotated_context, sync_session, async_session, connection, optional_session, optional_context,
            text_for_a_session, two_sessions, two_contexts, context_first, input_first, input_before_context,
            dict_for_a_context, row_for_a_context, mutable_context, undecorated_context,
            row_in_a_context, another_context, positional, variadic, keywords, model_and_field, scalar_model,
            table_model, root_model, private_field, pydantics_field, opaque_field, Ref,
            depends_on_the_request, depends_on_the_request_by_default, depends_on_the_response, depends_on_the_query,
            depends_on_a_key_in_the_query, depends_on_the_body, depends_on_the_background,
            depends_on_an_unknown_scheme, depends_on_the_path, takes_the_request, takes_the_response,
            takes_background_tasks, header_as_input, query_as_input, dependency_after_input,
            dependency_before_session, dependency_with_a_plain_session,
            dependency_that_fastapi_does_not_know, dependency_with_an_async_session,
            async_dependency_with_a_sync_session, dependency_with_another_session,
        )
    },
    "mutation: depends_on_the_path": lambda: define.mutation(depends_on_the_path),
    **{
        f"step: {function.__name__}": lambda function=function: define.use(function)  # type: ignore[misc]  # bound here
        for function in (
            step_of_nothing, step_of_a_text, step_of_any, truthy, giving_a_dict, unsaid, step_with_input,
            step_with_sync_session, giving_roles, of_member, Member,
        )
    },
    "step: result of a call": lambda: define.use(by_tenant(Login(tenant="t"))),
    "step: tenants have no login": lambda: define.use(by_tenant).use(with_session),
    "wrapper: no_coroutine": lambda: define.wrap(no_coroutine),
    "wrapper: too_few": lambda: define.wrap(too_few),
    "wrapper: on what": lambda: define.wrap(wraps, on="hit"),
    "definer: context after a step": lambda: define.use(with_session).context(Member),
    "definer: context that is no login": lambda: define.context(Tenant),
    "definer: default of another kind": lambda: define.defaults(mutation={"cache": False}),
    "option: unknown": lambda: define(depends=[Item])(plain),
    "option: of a mutation": lambda: define(isolation="serializable")(plain),
    "option: of a query": lambda: define.mutation(cache=Cache())(plain),
    "option: dependencies that are no list": lambda: define(dependencies=Item)(plain),
    "option: dependencies that are a text": lambda: define(dependencies="item")(plain),
    "option: a dependency that is no table": lambda: define(dependencies=[Ref])(plain),
    "option: a predicate that is no function": lambda: define(invalidate_when={Item: True})(plain),
    "option: a predicate for no dependency": lambda: define(
        dependencies=["other"], invalidate_when={Item: lambda change, input: False}
    )(plain),
    "option: cache=True": lambda: define(cache=True)(plain),
    "option: predicates and no cache": lambda: define(
        cache=False, invalidate_when={Item: lambda change, input: False}
    )(plain),
    "option: raises an exception of Python": lambda: define(raises=[ValueError])(plain),
    "option: raises that is no list": lambda: define(raises=DefinitionError)(plain),
    "option: raises the base of declared errors": lambda: define(raises=[DeclaredError])(plain),
    "error: WithoutCode": lambda: declared("WithoutCode", {}, code=None),
    "error: WithCodeInside": lambda: declared("WithCodeInside", {}, {"code": "CONFLICT"}, code=None),
    "error: WithUnknownCode": lambda: declared("WithUnknownCode", {}, code="TAKEN"),
    "error: WithOpaqueField": lambda: declared("WithOpaqueField", {"value": Opaque}),
    "error: WithFunction": lambda: declared("WithFunction", {"value": Callable[[], int]}),
    "error: WithSecret": lambda: declared("WithSecret", {"value": SecretStr}),
    "error: WithUnresolved": lambda: declared("WithUnresolved", {"value": "Missing"}),
    "error: WithTakenName": lambda: declared("WithTakenName", {"message": str}),
    "error: WithType": lambda: declared("WithType", {"type": str}),
    "error: WithPrivateField": lambda: declared("WithPrivateField", {"_seat": str}),
    "error: WithPydanticsField": lambda: declared("WithPydanticsField", {"model_dump": str}),
    "error: WithAlias": lambda: declared("WithAlias", {"seat": str}, {"seat": PydanticField(alias="seatNumber")}),
    "error: WithDataclassField": lambda: declared("WithDataclassField", {"a": str}, {"a": dataclass_field(default="")}),
    "error: WithConstructor": lambda: declared("WithConstructor", {}, {"__init__": lambda self: None}),
    "error: WithUnknownPlace": lambda: declared("WithUnknownPlace", {"seat": str}, doc="{row} is taken"),
    "error: WithAttributePlace": lambda: declared("WithAttributePlace", {"seat": str}, doc="{seat.row} is taken"),
    "error: WithBrokenPlace": lambda: declared("WithBrokenPlace", {"seat": str}, doc="{seat is taken"),
    "option: attempts": lambda: define.mutation(attempts=0)(plain),
    "option: isolation": lambda: define.mutation(isolation="snapshot")(plain),
    "option: public with a context": lambda: define(public=True)(with_context),
    "option: public with a guard": lambda: define.use(with_session)(public=True)(plain),
    **{
        f"mutation: {each.__name__}": partial(mutation, each)
        for each in (
            depends_on_a_form, depends_on_a_file, file_in_the_input, file_called_input, file_and_field, files_by_name,
            file_or_text, optional_file_without_default, bytes_of_a_file, file_with_alias,
            file_after_input_and_context,
        )
    },
    "query: file_in_a_query": lambda: define(file_in_a_query),
    "uncached query: file_in_a_query": lambda: define(cache=False)(file_in_a_query),
    "query: returns_a_response": lambda: define(returns_a_response),
    "uncached query: maybe_a_response": lambda: define(cache=False)(maybe_a_response),
    "mutation: several_responses": lambda: define.mutation(several_responses),
    "mutation: a plain function and a coroutine step": lambda: define.use(with_session).mutation(plain_sync),
}  # fmt: skip


def test_each_shape_is_refused_with_its_message() -> None:
    """And no message has changed without somebody reading it."""
    check_messages(GOLDEN, {name: message_of(make, __name__) for name, make in SHAPES.items()})


@pytest.mark.parametrize("name", SHAPES)
def test_each_message_names_what_is_wrong(name: str) -> None:
    """The function, the step or the option."""
    what = name.partition(": ")[2]
    message = message_of(SHAPES[name], __name__)
    assert what in message or name.startswith(("option", "definer", "wrapper", "step: ", "mutation")), message
