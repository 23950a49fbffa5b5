"""What goes into a URL comes back equal, or the query is a POST."""

from __future__ import annotations

from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from typing import Annotated, Any, Literal
from uuid import UUID

import anyio
import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, BeforeValidator, ConfigDict, create_model, model_validator

from reactive_rpc.client import Procedure
from reactive_rpc.client.model import Model
from reactive_rpc.client.transport import Transport
from reactive_rpc.procedures.wire_codec import InputCodec
from reactive_rpc.protocol.fidelity import is_same
from reactive_rpc.web.routing.dispatcher import parameters_of
from reactive_rpc.web.routing.query_string import fits_query_string


class Color(StrEnum):
    RED = "red"


class Level(IntEnum):
    LOW = 1


class Number(Enum):
    ONE = 1


class Mixed(Enum):
    ONE = 1
    TEXT = "1"


class Nothing(Enum):
    NOTHING = None


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")
    value: int


class Prepared(BaseModel):
    value: int

    @model_validator(mode="before")
    @classmethod
    def prepare(cls, given: Any) -> Any:
        """See the input before it is validated."""
        return given


TYPES: dict[Any, st.SearchStrategy[Any]] = {
    str: st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    int: st.integers(),
    float: st.floats(allow_nan=False, allow_infinity=False),  # JSON has neither: the client refuses them
    bool: st.booleans(),
    Decimal: st.decimals(allow_nan=False, allow_infinity=False),
    datetime: st.datetimes(),
    date: st.dates(),
    time: st.times(),
    timedelta: st.timedeltas(),
    UUID: st.uuids(),
    Color: st.sampled_from(Color),
    Level: st.sampled_from(Level),
    Literal["a", "1"]: st.sampled_from(["a", "1"]),
}
POSTED = [
    Number, Mixed, Nothing, Literal[1, "1"], int | str, list[int], Any, tuple[int, int], dict[str, int], Open,
    Annotated[int, BeforeValidator(lambda value: value * 2)], int | None, bytes,
]  # fmt: skip


def taking(kind: Any, *, model: type[BaseModel] = BaseModel, default: Any = ...) -> type[BaseModel]:
    """Return a model with one field."""
    config = {} if model is Model else {"__config__": ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")}
    made: type[BaseModel] = create_model(
        "In", **({"__base__": model} if model is Model else config), value=(kind, default)
    )
    return made


async def sent(procedure: Procedure[None], arguments: dict[str, Any]) -> bytes:
    """Return the query string that the client sends."""
    queries: list[bytes] = []

    def answer(request: httpx.Request) -> httpx.Response:
        queries.append(request.url.query)
        return httpx.Response(200, json=None)

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as http:
        await Transport(http, "http://x", "/rpc", {}).call(procedure, procedure.encode_input(arguments))
    return queries[0]


@given(st.sampled_from(list(TYPES)).flatmap(lambda kind: st.tuples(st.just(kind), TYPES[kind])))
def test_what_goes_into_a_url_comes_back(drawn: tuple[Any, Any]) -> None:
    """For any value of any type that is documented as GET: what the client writes, the server reads."""
    kind, value = drawn
    taken = InputCodec(taking(kind))
    assert fits_query_string(taken)
    procedure: Procedure[None] = Procedure(
        path="a.b", url="/a.b", method="GET", input=taking(kind, model=Model), output=None
    )
    query = anyio.run(sent, procedure, {"value": value})
    read = taken.model.model_validate_strings(parameters_of(query))
    assert is_same(getattr(read, "value"), value)  # noqa: B009  # the model is made here


@pytest.mark.parametrize("kind", POSTED)
def test_what_would_come_back_as_something_else_is_posted(kind: Any) -> None:
    """Enums whose values are no texts, unions, None that is not left out, and what a validator sees first."""
    model = kind if isinstance(kind, type) and issubclass(kind, BaseModel) else taking(kind)
    assert not fits_query_string(InputCodec(model))


def test_a_model_that_prepares_its_input_is_posted() -> None:
    """It would see texts in one case and numbers in the other."""
    assert not fits_query_string(InputCodec(Prepared))
    assert fits_query_string(InputCodec(taking(int | None, default=None)))
    assert fits_query_string(None)
