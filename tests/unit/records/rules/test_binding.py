"""A rule that some reader could not decide exactly is refused as it is bound, with model, place, fault and way out."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest

from reactive_rpc.records.rules import Rule, RuleError, bind, custom, record, some, user
from tests.unit.records.rules.models import USER, Client, Job, Status

NOON = datetime(2026, 1, 1, 12)

REFUSED: dict[str, tuple[Rule, str]] = {
    "an unknown column": (record.titel == "a", "Job has no column 'titel'; it has "),
    "an association as a column": (record.tasks == "a", "write some('tasks', lambda row: ...)"),
    "an unknown attribute": (record.id == user.identity, "user has no attribute 'identity'; it has admin, client_id"),
    "an unknown association": (some("task", lambda row: row.id == 1), "no relationship 'task'; it has client, tasks"),
    "an unknown column of an association": (some("tasks", lambda row: row.n == 1), "Task has no column 'n'"),
    "an attribute of custom": (custom(sql=lambda job, boss: job.id == boss, name="x"), "user has no attribute 'boss'"),
    "text for a number": (record.priority == "1", "an int is wanted"),
    "a number for text": (record.title == 1, "text is wanted"),
    "a bool for a number": (record.priority == True, "an int is wanted"),  # noqa: E712
    "a number for a bool": (record.archived == 1, "True or False is wanted"),
    "a field that is no bool alone": (record.title & record.archived, "text is wanted"),
    "an integer beyond 64 bits": (record.priority < 2**63, "64 bits"),
    "text with NUL": (record.title == "a\0", "NUL"),
    "half a character": (record.title == "\ud800", "half a character"),
    "a date for a moment": (record.at > date(2026, 1, 1), "a datetime without an offset"),
    "a moment for a date": (record.due > NOON, "a date is wanted"),
    "an offset where none is stored": (record.at > NOON.replace(tzinfo=UTC), "without an offset"),
    "an unknown member": (record.status == "gone", "a member of Status is wanted, or its value, one of 'open', 'done'"),
    "two kinds of fields": (record.title == record.priority, "Job.title is text, and Job.priority is int"),
    "a field and an attribute": (record.priority == user.id, "Job.priority is int, and user.id is text"),
    "two attributes": (user.id == user.level, "user.id is text, and user.level is int"),
    "a list compared": (record.id == user.teams, "user.teams is a list: write x.in_(user.teams)"),
    "no list": (record.id.in_(user.id), "user.id is no list: compare by =="),
    "order of bools": (record.archived < True, "a bool has no order"),
    "order of enums": (record.status < Status.DONE, "a enum has no order"),
    "order of UUIDs": (record.ref < record.ref, "a uuid has no order"),
    "a collation of SQLite": (record.nocase == "m", "NOCASE"),
    "CITEXT": (record.folded == "m", "without regard to case"),
    "CHAR": (record.padded == "m", "blanks at its end"),
    "a float": (record.rough == 1, "floats do not compare alike"),
    "Decimal on SQLite": (record.budget == Decimal(1), "store whole numbers of the smallest unit"),
    "an offset on SQLite": (record.zoned == NOON.replace(tzinfo=UTC), "use a type that stores UTC"),
    "UUIDs as text": (record.spelled == "a", "leave out as_uuid=False"),
    "an Enum without a class": (record.label == "a", "give it an Enum class"),
    "JSON": (record.data == "a", "JSON does not compare alike"),
    "a type of one's own": (record.email == "a", "rule_kind = "),
    "a type that is wrong about itself": (record.alias == "a", "says rule_kind = 'text', but gives 'A' back as 'a'"),
    "two ways to store": (record.status == record.stored_status, "store their values differently"),
    "values alone": (user.level.in_([1]) & (record.id == user.id) & (user.id == 2), "text is wanted"),
}


@pytest.mark.parametrize("rule", REFUSED)
def test_a_rule_that_readers_could_not_decide_alike_is_refused(rule: str) -> None:
    """The message has the model, the comparison, the fault and the way out."""
    written, words = REFUSED[rule]
    with pytest.raises(RuleError) as refused:
        bind(written, Job, USER)
    assert words in str(refused.value)
    assert "Job" in str(refused.value) or "Task" in str(refused.value)


def test_collations_of_postgresql_are_told_apart() -> None:
    """One that comes with it calls only equal texts equal, but orders by its language; of another nobody knows."""
    with pytest.raises(RuleError, match="sv-SE-x-icu orders texts as its language does"):
        bind(record.swedish < "m", Job, USER, databases=["postgresql"])
    with pytest.raises(RuleError, match="whether the collation ignore_case is deterministic"):
        bind(record.lax == "m", Job, USER, databases=["postgresql"])


def test_a_row_outside_of_its_some_is_refused() -> None:
    """A lambda cannot carry its row out."""
    rows: list[Any] = []

    def rule_of(row: Any) -> Any:
        rows.append(row)
        return row.id == 1

    inner = some("tasks", rule_of)
    with pytest.raises(RuleError, match="stands outside of the some"):
        bind(inner & (rows[0].id == 2), Job, USER)


@pytest.mark.parametrize("column", ["data", "email", "rough", "nocase"])
def test_a_column_that_is_not_compared_may_be_asked_whether_it_is_null(column: str) -> None:
    """All databases agree on that."""
    assert "null" in bind(getattr(record, column).is_null(), Job, USER).fold({}).text


def test_a_rule_for_one_database_may_use_what_that_one_compares_exactly() -> None:
    """PostgreSQL has decimal numbers and zones, SQLite has neither."""
    rule = (record.budget < Decimal("0.1")) & (record.zoned > NOON.replace(tzinfo=UTC)) & (record.swedish == "å")
    text = bind(rule, Job, USER, databases=["postgresql"]).fold({}).text
    assert '["lt",{"0":"budget"},"0.1"]' in text
    with pytest.raises(RuleError, match="rules are not decided on 'mysql'"):
        bind(rule, Job, USER, databases=["mysql"])


def test_a_member_may_be_written_by_its_value() -> None:
    """Clients know it by that."""
    by_value = bind(record.status == "open", Job, USER).fold({}).text
    assert by_value == bind(record.status == Status.OPEN, Job, USER).fold({}).text == '["eq",{"0":"status"},"OPEN"]'


def test_a_plain_datetime_of_the_user_is_what_it_is_compared_with() -> None:
    """It is held against the column when the rule is folded."""
    policy = bind(record.at > user.since, Job, USER)
    assert policy.fold({"since": NOON}).text == '["gt",{"0":"at"},"2026-01-01T12:00:00"]'
    with pytest.raises(RuleError, match="without an offset is wanted"):
        policy.fold({"since": NOON.replace(tzinfo=UTC)})


def test_what_is_no_model_is_refused() -> None:
    """By name."""
    with pytest.raises(RuleError, match="no mapped class"):
        bind(record.id == "a", dict, USER)


@pytest.mark.parametrize("annotation", [float, dict[str, str], list[float], str | int, tuple[str, int], bytes])
def test_an_attribute_that_rules_do_not_compare_is_refused(annotation: Any) -> None:
    """Whether or not a rule asks for it."""
    with pytest.raises(RuleError, match=r"user\.x: "):
        bind(record.id == "a", Client, {"x": annotation})
