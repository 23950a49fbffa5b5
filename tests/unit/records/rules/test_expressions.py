"""Wrong spellings of rules are refused as they are written, each with the way out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from reactive_rpc.records.rules import RuleError, custom, private, record, role, some, user

REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "== None": (lambda: record.owner == None, "record.owner.is_null()"),  # noqa: E711
    "!= None": (lambda: user.id != None, "user.id.not_null()"),  # noqa: E711
    "< None": (lambda: record.n < None, "NoneType"),
    "a float": (lambda: record.n > 0.5, "use an int or a Decimal"),
    "a float in a list": (lambda: record.n.in_([1, 2.0]), "use an int or a Decimal"),
    "None in a list": (lambda: record.n.not_in([1, None]), "record.n.is_null() beside it"),
    "an operand in a list": (lambda: record.n.in_([user.n]), "== user.n"),
    "text for a list": (lambda: record.n.in_("abc"), "give a list"),
    "a field for a list": (lambda: record.n.in_(record.others), "only an attribute of the user's is a list"),
    "== a list": (lambda: record.n == [1, 2], ".in_([1, 2])"),
    "another type": (lambda: record.n == object(), "cannot stand in a rule"),
    "and": (lambda: (record.a == 1) and (record.b == 2), "& | ~"),
    "or": (lambda: record.a or record.b, "& | ~"),
    "not": (lambda: not record.a, "& | ~"),
    "if": (lambda: 1 if record.a == 1 else 2, "& | ~"),
    "a chained comparison": (lambda: 1 < record.a < 3, "(a < b) & (b < c)"),
    "in": (lambda: record.a in [1, 2], "& | ~"),
    "in an attribute": (lambda: 1 in user.teams, ".in_(user.teams)"),
    "a loop over an attribute": (lambda: list(user.teams), ".in_(user.teams)"),
    "& without brackets": (lambda: record.a == 1 & record.b, "put brackets"),
    "& with a value": (lambda: (record.a == 1) & 1, "put brackets"),
    "a rule compared": (lambda: (record.a == 1) == (record.b == 1), "a rule is not compared"),
    "a rule as a value": (lambda: record.a == (record.b == 1), "put brackets"),
    "no role": (role, "at least one role"),
    "some of a value": (lambda: some(3, lambda row: row.a == 1), "name of a relationship"),  # type: ignore[arg-type]
    "some without a rule": (lambda: some("tasks", lambda row: 1), "1 is no rule"),
    "private without a rule": (lambda: private("all"), "'all' is no rule"),
    "custom with nothing": (custom, "give a rule, or sql="),
    "custom with both": (lambda: custom(record.a == 1, sql=lambda job: job.a == 1), "give one of them"),
    "custom with text": (lambda: custom(sql="a = 1"), "give a function"),  # type: ignore[arg-type]
    "custom without a name": (lambda: custom(sql=lambda job: job.a == 1), 'name="..."'),
    "custom without the model": (lambda: custom(sql=lambda: True, name="x"), "first parameter gets the model"),
    "custom with stars": (lambda: custom(sql=lambda job, **who: True, name="x"), "name each attribute"),
}


@pytest.mark.parametrize("spelling", REFUSED)
def test_a_wrong_spelling_is_refused_with_the_way_out(spelling: str) -> None:
    """Not one of them becomes a rule that means something else."""
    write, way_out = REFUSED[spelling]
    with pytest.raises(RuleError) as refused:
        write()
    assert way_out in str(refused.value)


def test_names_of_pythons_own_are_no_fields() -> None:
    """Tools that ask an object for `__wrapped__`, or `_repr_html_`, do not take a field for an answer."""
    assert not hasattr(record, "__wrapped__")
    assert not hasattr(user, "_repr_html_")
