"""Relations: as which changes of other rows a change counts, too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from reactive_rpc.dependencies.change import Change
from reactive_rpc.dependencies.read_set import Constraint, Equals, ReadSet
from reactive_rpc.dependencies.relations import parse_relations, widen
from reactive_rpc.dependencies.schema import ColumnKind


@dataclass(frozen=True)
class Columns:
    """A table of a relation."""

    columns: tuple[str, ...]
    primary_key: tuple[str, ...] = ("id",)
    foreign_keys: tuple[tuple[str, str, str], ...] = ()
    kinds: Mapping[str, ColumnKind | None] = field(default_factory=dict)


def test_a_relation_between_columns_of_two_kinds_widens() -> None:
    """`message.ref` is text and `agent.id` a number: a change of agent 5 counts as one of the messages of '5'."""
    tables = {
        "agent": Columns(("id", "n"), kinds={"id": "integer"}),
        "message": Columns(("id", "ref"), kinds={"ref": "text"}),
    }
    relations = parse_relations({"agent": ["message.ref"]}, tables)
    change = Change(table="agent", operation="update", before={"id": 5}, after={"id": 5}, changed=frozenset({"n"}))
    read = ReadSet((Constraint("message", None, {"ref": Equals(frozenset({"5"}))}),))
    assert read.touched_by(widen([change], relations))
