"""Declared errors: made by keywords, validated, frozen, and the same after each copy."""

from __future__ import annotations

import pickle
from copy import deepcopy
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Any, ClassVar

import pytest
from pydantic import BaseModel, Field

from reactive_rpc import (
    ConflictError,
    DeclaredError,
    DefinitionError,
    NotFoundError,
    RPCError,
    define_reactive_function,
)
from reactive_rpc.errors import InternalServerError
from reactive_rpc.procedures.declared_errors import RaisedErrors
from reactive_rpc.procedures.registry import Registry
from reactive_rpc.protocol.envelopes import decode_error, encode_error, http_status


class Side(StrEnum):
    LEFT = "left"
    RIGHT = "right"


class Row(BaseModel):
    number: int


class SeatTaken(DeclaredError, code="CONFLICT"):
    """seat {seat} is taken

    The rest of a docstring is for readers of the code.
    """

    seat: str
    taken_by: str | None = None


class Priced(DeclaredError, code="PAYMENT_REQUIRED"):
    """it costs {price:.2f}, {{net}}"""

    limit: ClassVar[int] = 3
    price: Decimal
    at: datetime
    side: Side = Side.LEFT
    rows: list[Row] = Field(default_factory=list)
    digest: bytes = b""
    copies: Annotated[int, Field(ge=1)] = 1


class WindowTaken(SeatTaken):
    """the window at {seat} is taken"""

    sunny: bool


class Plain(DeclaredError, code="FORBIDDEN"): ...


def priced() -> Priced:
    return Priced(
        price=Decimal("1.50"),
        at=datetime(2026, 1, 2, tzinfo=UTC),
        side=Side.RIGHT,
        rows=[Row(number=1)],
        digest=b"\xff",
    )


def test_fields_message_code_and_details() -> None:
    """The message is the docstring's first line with the fields; details are the fields as JSON has them."""
    error = SeatTaken(seat="4B", taken_by="ada")
    assert (error.seat, error.taken_by) == ("4B", "ada")
    assert (error.code, error.type, error.message) == ("CONFLICT", "SeatTaken", "seat 4B is taken")
    assert error.details == {"seat": "4B", "taken_by": "ada"}
    assert str(error) == "seat 4B is taken [CONFLICT]"
    assert http_status(error) == 409
    assert isinstance(error, RPCError)
    assert SeatTaken(seat="4B").details == {"seat": "4B", "taken_by": None}


def test_an_error_without_a_docstring_says_its_code() -> None:
    """As does any under `python -OO`, which drops docstrings; and a field is nobody's duty."""
    error = Plain()
    assert (error.message, error.details, error.code) == ("forbidden", {}, "FORBIDDEN")


def test_fields_are_carried_as_results_are() -> None:
    """Decimal, datetime, enum, model and bytes: in Python as they are, in details as JSON."""
    error = priced()
    assert error.price == Decimal("1.50")
    assert error.rows == [Row(number=1)]
    assert error.message == "it costs 1.50, {net}"
    assert error.details == {
        "price": "1.50",
        "at": "2026-01-02T00:00:00Z",
        "side": "right",
        "rows": [{"number": 1}],
        "digest": "_w==",
        "copies": 1,
    }


def test_what_fits_is_made_of_its_type() -> None:
    """As a result is: the text of a Decimal, the dict of a model."""
    values: dict[str, Any] = {"price": "2", "at": "2026-01-02T00:00:00Z", "rows": [{"number": 1}]}
    error = Priced(**values)
    assert error.price == Decimal(2)
    assert error.rows == [Row(number=1)]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "SeatTaken: seat: Field required"),
        ({"seat": 4}, "SeatTaken: seat: Input should be a valid string"),
        ({"seat": "4B", "row": 1}, "SeatTaken: row: Extra inputs are not permitted"),
    ],
)
def test_fields_that_do_not_fit_are_a_fault_of_whoever_raises(fields: dict[str, Any], message: str) -> None:
    """The message names the field; its value may be anybody's and is not told."""
    with pytest.raises(TypeError, match=f"^{message}$"):
        SeatTaken(**fields)


def test_the_base_is_not_raised() -> None:
    """It has no code and no fields."""
    with pytest.raises(TypeError, match="extend DeclaredError"):
        DeclaredError()
    with pytest.raises(TypeError, match="positional"):
        SeatTaken("4B")  # type: ignore[call-arg]  # the fault


def test_a_field_that_cannot_be_written_is_a_fault_of_whoever_raises() -> None:
    """As no client could read it."""

    class Tree(DeclaredError, code="CONFLICT"):
        """no"""

        text: str

    with pytest.raises(TypeError, match="Tree: "):
        Tree(text="\ud800")


def test_fields_are_frozen() -> None:
    """What the framework notes of an error, its path for example, is not."""
    error = SeatTaken(seat="4B")
    with pytest.raises(AttributeError, match="cannot assign to field 'seat' of SeatTaken"):
        error.seat = "4C"  # type: ignore[misc]  # the fault
    error.path = "seats.book"
    assert str(error) == "seats.book: seat 4B is taken [CONFLICT]"


def copies(error: DeclaredError) -> list[RPCError]:
    return [error.detached(path="a.b"), deepcopy(error), pickle.loads(pickle.dumps(error))]


def test_each_copy_is_the_same_error() -> None:
    """By `detached`, as the cache hands errors out, by deepcopy and by pickle; and shares nothing that can change."""
    error = priced()
    for copy in copies(error):
        assert type(copy) is Priced
        assert (copy.price, copy.at, copy.side, copy.digest) == (error.price, error.at, error.side, error.digest)
        assert (copy.code, copy.type, copy.message, copy.details) == (
            error.code, error.type, error.message, error.details,
        )  # fmt: skip
        copy.rows.append(Row(number=2))
        copy.details["rows"].clear()
    assert error.rows == [Row(number=1)]
    assert error.details["rows"] == [{"number": 1}]
    assert error.detached(path="a.b").path == "a.b"


def test_an_error_that_extends_another_has_its_fields_and_its_code() -> None:
    """And is caught as the other one; the type is its own."""
    error = WindowTaken(seat="1A", sunny=True)
    assert isinstance(error, SeatTaken)
    assert error.details == {"seat": "1A", "taken_by": None, "sunny": True}
    assert (error.code, error.type, error.message) == ("CONFLICT", "WindowTaken", "the window at 1A is taken")


def test_who_does_not_know_the_type_has_the_codes_class() -> None:
    """The wire tells the code, the type and the fields."""
    error = decode_error(encode_error(SeatTaken(seat="4B")))
    assert type(error) is ConflictError
    assert (error.type, error.details) == ("SeatTaken", {"seat": "4B", "taken_by": None})
    assert decode_error(encode_error(NotFoundError("no"))).type is None


def test_an_error_that_is_not_declared_is_a_fault_in_development() -> None:
    """The message says which, and the way out; one that is declared passes."""
    raised = RaisedErrors(strict=True)
    said = r"a.b raises SeatTaken, .* add it to raises=\[...\]"
    with pytest.raises(InternalServerError, match=said) as found, raised.checked("a.b", (WindowTaken, ConflictError)):
        raise SeatTaken(seat="4B")
    assert isinstance(found.value.__cause__, SeatTaken)
    with pytest.raises(SeatTaken), raised.checked("a.b", (SeatTaken,)):
        raise SeatTaken(seat="4B")
    with pytest.raises(NotFoundError), raised.checked("a.b", ()):
        raise NotFoundError("plain errors need no declaration")


def test_an_error_that_is_not_declared_loses_its_type_in_production(caplog: pytest.LogCaptureFixture) -> None:
    """Code, message, details and headers are sent; it is logged once for each procedure."""
    raised = RaisedErrors(strict=False)
    error = SeatTaken(seat="4B")
    error.headers["retry-after"] = "1"
    for _ in range(2):
        with pytest.raises(ConflictError) as found, raised.checked("a.b", ()):
            raise error
        assert type(found.value) is ConflictError
        assert (found.value.type, found.value.message) == (None, "seat 4B is taken")
        assert found.value.details == {"seat": "4B", "taken_by": None}
        assert found.value.headers == {"retry-after": "1"}
    assert len(caplog.records) == 1
    assert "a.b raises SeatTaken" in caplog.text


def test_two_errors_of_one_name_are_refused() -> None:
    """Clients know them by it."""

    def another() -> type[DeclaredError]:
        class SeatTaken(DeclaredError, code="CONFLICT"):
            """taken"""

        return SeatTaken

    @define_reactive_function(raises=[SeatTaken])
    async def one() -> None: ...

    @define_reactive_function(raises=[another()])
    async def other() -> None: ...

    Registry({"a": {"one": one}, "b": {"other": one}}, context=None)
    with pytest.raises(DefinitionError, match=r"there is another error of that name, .*: rename one of them"):
        Registry({"a": {"one": one, "other": other}}, context=None)
