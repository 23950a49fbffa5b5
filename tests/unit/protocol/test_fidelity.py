"""Values that JSON cannot tell apart are found before they are sent; texts beside dates stay texts."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from math import inf, nan
from typing import Annotated, Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, TypeAdapter
from pydantic_core import to_jsonable_python

from reactive_rpc.protocol.fidelity import AsSpelled, Inspector, is_same

MOMENT = datetime | str
VALUES = st.text(max_size=4) | st.from_regex(r"\A[0-9]{4}(-[0-9]{2}){0,2}\Z") | st.datetimes() | st.datetimes().map(str)


def test_a_text_beside_dates_stays_a_text() -> None:
    """Pydantic alone makes a moment of 1970 of "2020"; a moment is one still, as it is written."""
    spelled: TypeAdapter[Any] = TypeAdapter(Annotated[MOMENT, AsSpelled()])
    assert TypeAdapter(MOMENT).validate_json('"2020"') != "2020"
    assert spelled.validate_json('"2020"') == "2020"
    assert spelled.validate_json('"2020-01-02T00:00:00Z"') == datetime(2020, 1, 2, tzinfo=UTC)


@given(VALUES)
def test_what_is_not_refused_comes_back(value: Any) -> None:
    """For any text and any moment: it is refused, or arrives as it was."""
    spelled: TypeAdapter[Any] = TypeAdapter(Annotated[MOMENT, AsSpelled()])
    if Inspector(TypeAdapter(MOMENT).core_schema).unfit(value) is None:
        assert is_same(spelled.validate_json(spelled.dump_json(value)), value)


@pytest.mark.seeded_bug
def test_the_property_can_fail() -> None:
    """Without `AsSpelled`, the same look finds what arrives as another value."""
    plain: TypeAdapter[Any] = TypeAdapter(MOMENT)
    assert not is_same(plain.validate_json(plain.dump_json("2020")), "2020")


class Holder(BaseModel):
    at: date | str = ""
    ratios: list[float] = []
    anything: Any = None
    inner: Holder | None = None


class Written(BaseModel):
    model_config = ConfigDict(ser_json_inf_nan="strings")
    ratio: float


@pytest.mark.parametrize(
    ("value", "where"),
    [
        (Holder(at="2020"), None),
        (Holder(at=date(2020, 1, 2)), None),
        (Holder(at="2020-01-02"), "at"),
        (Holder(ratios=[1.0, nan]), "ratios[1]"),
        (Holder(inner=Holder(ratios=[inf])), "inner.ratios[0]"),
        (Holder(anything={"a": [1, None, "x"]}), None),
        (Holder(anything={"a": [Decimal(1)]}), "anything['a'][0]"),
        (Holder(anything={1: 2}), "anything"),
        (Written(ratio=nan), None),
    ],
)
def test_the_place_of_what_would_arrive_otherwise_is_named(value: BaseModel, where: str | None) -> None:
    """Inside lists, dicts and models that hold themselves; a model that spells NaN as text is taken at its word."""
    unfit = Inspector(type(value).__pydantic_core_schema__).unfit(value)
    assert (unfit and unfit.where) == where


class Loose(BaseModel):
    data: dict[str, Any]


def test_what_stands_where_anything_may_is_told_two_ways_out() -> None:
    """A moment in a `dict[str, Any]` is refused with both: annotate it, or make it JSON's own, which then passes."""
    loose = Loose(data={"rows": [{"at": datetime(2020, 1, 2, tzinfo=UTC)}]})
    inspector = Inspector(Loose.__pydantic_core_schema__)
    unfit = inspector.unfit(loose)
    assert unfit is not None
    assert unfit.where == "data['rows'][0]['at']"
    assert "annotate it as datetime" in unfit.message
    assert "pydantic_core.to_jsonable_python" in unfit.message
    assert inspector.unfit(Loose(data=to_jsonable_python(loose.data))) is None


def test_equality_is_of_types_too() -> None:
    """1 is not True, a tuple is no list, and -0.0 is not 0.0; two NaN are one."""
    assert not any(is_same(one, other) for one, other in [(1, True), ((), []), (0.0, -0.0), ({1}, {True}), (1, 1.0)])
    assert is_same({"a": [nan, UUID(int=1)]}, {"a": [nan, UUID(int=1)]})
