"""A condition of an application's own opens no rows but those of which it is true, on SQLite."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import Boolean, create_engine, insert, literal_column, or_, select, text, true, type_coerce

from reactive_rpc.records.rules import RuleError, bind, custom, record
from tests.unit.records.rules.models import USER, Base, Job, Person

OPENING: dict[str, Any] = {
    "literal_column": lambda person: literal_column("kind = 'x' OR 1 = 1"),
    "a label": lambda person: literal_column("kind = 'x' OR 1 = 1").label("x"),
    "another type": lambda person: type_coerce(literal_column("kind = 'x' OR 1 = 1"), Boolean),
    "or_": lambda person: or_(person.kind == "x", true()),
    "True": lambda person: True,
    "a column": lambda person: person.id,
}


@pytest.mark.parametrize("kind", OPENING)
def test_a_custom_condition_opens_no_other_rows(kind: str) -> None:
    """It is true of all rows; an OR in it ends where it does, and NOT is of the whole."""
    opening = custom(sql=OPENING[kind], name="opening")
    engine = create_engine("sqlite://")
    Base.metadata.create_all(engine, tables=[Base.metadata.tables["person"]])
    with engine.begin() as connection:
        connection.execute(insert(Person), [{"kind": "person", "user_id": user} for user in ("ada", "bob", "bob")])
        for rule, expected in (((record.user_id == "ada") & opening, [1]), (~opening, []), (opening, [1, 2])):
            statement = bind(rule, Person, {}).filter(select(Person.id).where(Person.id != 3), {})
            assert list(connection.scalars(statement)) == expected


@pytest.mark.parametrize(
    "made", [text("1 = 1 OR 1 = 1"), None, "1 = 1", select(Job.id)], ids=["text", "None", "str", "select"]
)
@pytest.mark.parametrize("negate", [False, True])
def test_what_is_no_condition_is_refused(made: object, negate: bool) -> None:
    """A text has no brackets, and cannot be negated."""
    rule = custom(sql=lambda job: made, name="made")
    with pytest.raises(RuleError, match=r"custom\(sql=made\) returned .*and_\(\).*literal_column\("):
        bind(~rule if negate else rule, Job, USER).filter(select(Job.id), {})
