"""A policy is used in any handler: it filters statements, checks rows, and says what it asks for."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import aliased

from reactive_rpc import Login
from reactive_rpc.records.rules import (
    RuleError,
    anyone,
    attributes_of,
    bind,
    client_member,
    custom,
    nobody,
    owner,
    private,
    record,
    role,
    some,
    user,
)
from tests.unit.records.rules.models import USER, Job, Task

RULE = (role("admin") | client_member()) & ~record.archived


def test_a_statement_is_filtered_for_a_user() -> None:
    """By a mapping or an object with the attributes."""
    policy = bind(RULE, Job, USER)
    filtered = str(policy.filter(select(Job.id), {"role": "user", "client_id": "c1"}))
    assert "job.client_id = :param_1 AND job.archived != :param_2" in filtered.replace("\n", "")
    assert str(policy.filter(select(Job.id), SimpleNamespace(role="user", client_id="c1"))) == filtered


OTHER = aliased(Job)
UNREAD: dict[str, Any] = {
    "an alias": select(OTHER),
    "another model": select(Task),
    "a subquery": select(select(Job.id).subquery().c.id),
    "a subquery as a column": select(select(Job.id).scalar_subquery()),
    "a CTE": select(select(Job.id).cte().c.id),
    "a condition of another": select(Task).where(select(Job.id).where(Job.id == Task.job_id).exists()),
    "a join with an alias": select(Task).join(OTHER, OTHER.id == Task.job_id),
    "nothing": select(func.now()),
    "an update of another": update(Task).values(user_id="a"),
    "an update of an alias": update(OTHER).values(title="a"),
    "a deletion of another": delete(Task),
    "an update by another": update(Task).where(Task.job_id == Job.id).values(user_id="a"),
}


@pytest.mark.parametrize("statement", UNREAD)
def test_a_statement_that_does_not_read_the_model_is_refused(statement: str) -> None:
    """A condition on the model would make a product of tables of it, with all rows of the others."""
    policy = bind(RULE, Job, USER)
    with pytest.raises(RuleError, match=r"Job: .* write statement\.where\(policy\.fold\(user\)\.condition\(alias\)\)"):
        policy.filter(UNREAD[statement], {"role": "user", "client_id": "c1"})


READ: dict[str, Any] = {
    "the model": select(Job),
    "its table": select(Job.__table__.c.id),
    "a count": select(func.count()).select_from(Job),
    "a join": select(Task).join(Job, Job.id == Task.job_id),
    "a join of joins": select(Task).join(Job, Job.id == Task.job_id).join(OTHER, OTHER.id == Job.id, isouter=True),
    "an update": update(Job).values(title="a"),
    "a deletion": delete(Job),
    "a deletion from the table": delete(Job.__table__),  # type: ignore[arg-type]  # it is one
}


@pytest.mark.parametrize("statement", READ)
def test_a_statement_that_reads_the_model_is_filtered(statement: str) -> None:
    """However it names it; no table is added."""
    filtered = bind(record.title == "x", Job, USER).filter(READ[statement], {})
    assert "job.title = " in str(filtered)
    assert "FROM job, " not in str(filtered)
    assert ", job" not in str(filtered).split("WHERE")[0].split("FROM")[-1]


def test_an_alias_has_a_condition_of_its_own() -> None:
    """The way out of the refusal."""
    condition = bind(record.title == "x", Job, USER).fold({}).condition(OTHER)
    assert str(select(OTHER.id).where(condition)).count("FROM job AS job_1") == 1


def test_a_row_is_checked_for_a_user() -> None:
    """A mapping, or an object."""
    policy = bind(RULE, Job, USER)
    row = {"client_id": "c1", "archived": False}
    assert policy.check(row, {"role": "user", "client_id": "c1"})
    assert policy.check(Job(**row), {"role": "admin", "client_id": None})
    assert not policy.check(row, {"role": "user", "client_id": None})


def test_a_user_without_a_value_sees_no_record_without_one() -> None:
    """Null is equal to nothing, not even to null."""
    policy = bind(owner() | (record.user_id != user.id), Job, {"id": str | None})
    assert policy.fold({"id": None}).text == "false"
    assert not policy.check({"user_id": None}, {"id": "a"})


def test_users_whose_residual_is_the_same_share_its_text() -> None:
    """Whatever else differs between them, and in whatever order the rule names its parts."""
    policy = bind(RULE, Job, USER)
    other = bind(~record.archived & (client_member() | role("admin")), Job, USER)
    admins = {policy.fold({"role": "admin", "client_id": client}).text for client in ("c1", "c2", None)}
    assert admins == {'["ne",{"0":"archived"},true]'}
    members = {each.fold({"role": name, "client_id": "c1"}).text for name in ("a", "b") for each in (policy, other)}
    assert len(members) == 1


def test_a_policy_says_what_it_asks_for() -> None:
    """So that residuals can be kept by these attributes alone, and clients know which fields it needs."""
    policy = bind(RULE & some("tasks", lambda task: task.user_id == user.id), Job, USER)
    assert policy.asks_for == {"role", "client_id", "id"}
    assert policy.fields == {"client_id", "archived", "tasks"}


def test_a_missing_or_wrong_attribute_is_an_error() -> None:
    """And never a rule that is simply false: whoever forgot it should hear of it."""
    policy = bind(record.priority < user.level, Job, USER)
    with pytest.raises(RuleError, match="the user has no attribute 'level'"):
        policy.fold({})
    with pytest.raises(RuleError, match=r"user\.level is '1': an int is wanted"):
        policy.fold({"level": "1"})


def test_a_row_that_lacks_what_is_asked_for_is_an_error() -> None:
    """A check never guesses."""
    policy = bind(some("tasks", lambda task: task.user_id == "a"), Job, USER)
    with pytest.raises(RuleError, match="the row has no 'tasks'"):
        policy.check({"id": "a"}, {})
    with pytest.raises(RuleError, match="an int is wanted"):
        bind(record.priority == 1, Job, USER).check({"priority": "1"}, {})


def test_an_inner_rule_may_speak_of_the_record() -> None:
    """By `record`, or by the row of the `some` around it."""
    policy = bind(some("tasks", lambda task: task.user_id != record.user_id), Job, USER)
    assert policy.check({"user_id": "a", "tasks": [{"user_id": "a"}, {"user_id": "b"}]}, {})
    assert not policy.check({"user_id": "a", "tasks": [{"user_id": "a"}, {"user_id": None}]}, {})
    assert policy.read(policy.fold({}).text).text == policy.fold({}).text


def shared_with(job: Any, id: str) -> Any:
    """Return the condition of jobs that have a task of a user's, in SQLAlchemy's own words."""
    return job.id.in_(select(Task.job_id).where(Task.user_id == id))


def test_a_custom_condition_is_sql_and_gets_the_user() -> None:
    """It reads back by its name, with the values that it was folded with; None is never asked."""
    policy = bind(custom(sql=shared_with) | ~custom(sql=lambda job: job.title == "x", name="titled"), Job, {"id": str})
    residual = policy.fold({"id": "ada"})
    assert residual.text == '["or",["custom","shared_with",0,{"id":["text","ada"]}],["not_custom","titled",0,{}]]'
    statement = str(select(Job.id).where(policy.read(residual.text).condition()))
    assert "SELECT task.job_id" in statement
    assert "NOT (job.title = " in statement
    assert policy.fold({"id": None}).text == '["not_custom","titled",0,{}]'
    with pytest.raises(RuleError, match="only a database decides"):
        residual.check({"id": "j1", "title": "y"})


def test_two_custom_conditions_of_one_name_are_refused() -> None:
    """The text would not say which."""
    first = custom(sql=lambda job: job.title == "x", name="same")
    with pytest.raises(RuleError, match="another name="):
        bind(first | custom(sql=lambda job: job.title == "y", name="same"), Job, USER)


def test_clients_get_no_private_part() -> None:
    """Neither names nor values of it."""
    hidden = private(record.client_id == "secret") | custom(sql=shared_with)
    assert bind(hidden & ~record.archived, Job, USER).shipped() == [
        "and",
        ["or", ["ask"], ["ask"]],
        ["ne", "bool", ["field", 0, "archived"], ["value", True]],
    ]


def test_a_private_rule_is_decided_as_it_stands() -> None:
    """On the server nothing of it is private."""
    policy = bind(~private(record.archived), Job, USER)
    assert policy.check({"archived": False}, {})
    assert not policy.check({"archived": True}, {})


def test_anyone_and_nobody() -> None:
    """Constants fold away."""
    assert bind(anyone, Job, USER).fold({}).text == "true"
    assert bind(nobody | ~anyone, Job, USER).fold({}).text == "false"


@dataclass(frozen=True, kw_only=True)
class Member(Login):
    """A context with an attribute that rules do not compare."""

    teams: tuple[str, ...] = ()
    extra: frozenset[tuple[str, int]] = frozenset()


def test_attributes_come_from_a_context() -> None:
    """Those that rules can compare."""
    policy = bind(record.client_id.in_(user.teams) | (record.user_id == user.identity), Job, attributes_of(Member))
    assert policy.fold(Member(identity="a", teams=("c2", "c1", "c2"))).text == (
        '["or",["eq",{"0":"user_id"},"a"],["in",{"0":"client_id"},["c1","c2"]]]'
    )
