"""Canonical texts read back losslessly, and no other text is read."""

from __future__ import annotations

import random

import pytest

from reactive_rpc.records.rules import RuleError, anyone, bind
from reactive_rpc.records.rules.expressions import AllOf, AnyOf
from reactive_rpc.records.rules.sql import condition_of
from tests.integration.records.rule_drawing import USER_ATTRIBUTES, draw_rule, draw_user
from tests.integration.records.rule_models import Item
from tests.unit.records.rules.models import USER, Job

TRIES = 300


def test_every_text_reads_back() -> None:
    """To a residual with the same text, and the same condition to the last parameter."""
    for at in range(TRIES):
        rng = random.Random(at)
        policy = bind(draw_rule(rng).rule, Item, USER_ATTRIBUTES)
        residual = policy.fold(draw_user(rng))
        again = policy.read(residual.text)
        assert again.text == residual.text, f"seed {at}"
        one, other = residual.condition().compile(), again.condition().compile()
        assert (str(one), one.params) == (str(other), other.params), f"seed {at}"


def test_nothing_of_the_user_is_left_in_a_text() -> None:
    """It is read by a policy that knows no attributes at all."""
    for at in range(TRIES):
        rng = random.Random(at)
        text = bind(draw_rule(rng).rule, Item, USER_ATTRIBUTES).fold(draw_user(rng)).text
        assert bind(anyone, Item, {}).read(text).text == text, f"seed {at}"


FORGED = [
    "",
    "1",
    "null",
    "[]",
    "{}",
    '["eq"]',
    '["eq",{"0":"title"}]',
    '["eq",{"0":"nothing"},"a"]',
    '["eq",{"1":"title"},"a"]',
    '["eq",{"-1":"title"},"a"]',
    '["eq",{"0":"title"},1]',
    '["eq",{"0":"title"},null]',
    '["eq",{"0":"title"},["a"]]',
    '["eq",{"0":"title"},{"0":"priority"}]',
    '["eq",{"0":"priority"},true]',
    '["eq",{"0":"priority"},1.0]',
    '["eq",{"0":"priority"},"1"]',
    '["eq",{"0":"status"},"open"]',
    '["eq",{"0":"due"},"2026-1-1"]',
    '["eq",{"0":"at"},"2026-01-01 12:00:00"]',
    '["eq",{"0":"ref"},"ABCDEF00-0000-0000-0000-000000000000"]',
    '["eq",{"0":"data"},"a"]',
    '["in",{"0":"title"},"ab"]',
    '["in",{"0":"title"},{"0":"title"}]',
    '["like",{"0":"title"},"a%"]',
    '["null",{"0":"title"},true]',
    '["some",0,"nothing",true]',
    '["some",1,"tasks",true]',
    '["some",0,"tasks",["eq",{"2":"user_id"},"a"]]',
    '["custom","drop",0,{}]',
    '["eq", {"0":"title"}, "a"]',
    "[" * 5_000,
    '["or"]',
    '["and"]',
    '["and",true]',
    '["and",["null",{"0":"at"}]]',
    '["or",false,["null",{"0":"at"}]]',
    '["or",["null",{"0":"due"}],["null",{"0":"at"}]]',
    '["or",["null",{"0":"at"}],["null",{"0":"at"}]]',
    '["or",["null",{"0":"at"}],["or",["null",{"0":"due"}],["null",{"0":"ref"}]]]',
    '["some",0,"tasks",false]',
    '["some",0,"tasks",["and",true,true]]',
    '["in",{"0":"title"},[]]',
    '["not_in",{"0":"title"},[]]',
    '["in",{"0":"title"},["a"]]',
    '["in",{"0":"title"},["b","a"]]',
    '["in",{"0":"title"},["a","a","b"]]',
    '["eq",{"0":"user_id"},{"0":"title"}]',
]


def test_a_join_of_nothing_is_no_condition() -> None:
    """SQLAlchemy would leave it out of the statement, and open every row."""
    for join in (AllOf, AnyOf):
        with pytest.raises(AssertionError, match="joins nothing"):
            condition_of(join(()), Job)


@pytest.mark.parametrize("text", FORGED, ids=range(len(FORGED)))
def test_no_other_text_is_read(text: str) -> None:
    """Another spelling of a value, a name that is not the model's, or what is no rule at all."""
    with pytest.raises(RuleError):
        bind(anyone, Job, USER).read(text)
