"""A virtual column: a value of a row's parents, looked up when the row changes.

`post JOIN users ON post.user_id = users.id WHERE users.team_id = 3` reads the posts of one team, and no column of a
post says which those are. So the constraint on posts may rest on the *virtual column* `user_id->users.id.team_id`,
which the log adds to the images of posts: the parent's value, read in the very snapshot that showed the change. A row
may have many parents: `item JOIN member ON member.project_id = item.project_id` looks up the users of all members.

**Why that is sound.** Take an entry that is live, a post p that changed, and its users as the poll's snapshot shows
them. If none satisfies the virtual condition there, p contributes nothing now. Had p contributed when the result was
computed, some u satisfied every condition on users then; so u has changed since, and the state it left satisfied the
entry's constraint on users: that change touches the entry, and it lies in this batch or in one before. It must be the
same snapshot: a later one could show a change of u that has not been applied yet, and p's change would be lost for as
long.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

__all__ = ["Lookup"]


@dataclass(frozen=True)
class Lookup:
    """The values of `parent.value` in the rows whose `parent.key` equals the child's `column`.

    >>> Lookup("post", "user_id", "users", "id", "team_id").name
    'user_id->users.id.team_id'

    Attributes:
        table: the child, by canonical name.
        column: of the child.
        parent: the table looked into, by canonical name.
        key: of the parent.
        value: of the parent; the virtual column holds the set of it.
        further: leads on from the parents, by `value`, to values of their own parents, which are held instead.
    """

    table: str
    column: str
    parent: str
    key: str
    value: str
    further: Lookup | None = None

    @property
    def hops(self) -> tuple[Lookup, ...]:
        """This look-up and those that lead on, each to a value of one parent."""
        return (self, *(() if self.further is None else self.further.hops))

    @cached_property
    def name(self) -> str:
        """The virtual column's name in images and conditions; no column can be called so by accident."""
        value = self.value if self.further is None else self.further.name
        return f"{self.column}->{self.parent}.{self.key}.{value}"
