"""Conditions on a row's parent: `post JOIN users ON post.user_id = users.id WHERE users.team_id = 3` reads team 3's.

No column of a post says which team that is, so the read of posts rests on a *virtual column*
(`dependencies/lookup.py`), which the log adds to the images of posts: the value that the parent has in the snapshot
that shows the change.

**What is claimed.** Take a conjunction T of a body's WHERE, a child p and its parent u, two of the tables it joins,
with p.c = u.k where k is unique, and a condition F on u that T implies. An image x of a row of p is ignored where the
parent that the poll's snapshot P shows for x.c fails F, or where there is none. Let D be any state between the one that
the result was computed on and P; then no row that passes T in D depends on x, unless a change of another row touches
the entry anyway.

1. *What depends on x.* A passing row that x takes part in, and one that an outer join would make or not make because of
   x. Each such row holds a real u with u.k = x.c. Where T itself says p.c = u.k that is plain: a row without p fails T.
   The same follows from an ON in two ways, for an F that NULL fails (`SelectScope.links` lists the equalities, as pairs
   of a right side and what it equals):
   - *p on the right, u on the left* (`users LEFT JOIN post`): x joins with u of that key alone. What x keeps from being
     extended by NULLs holds that u, or is a side that holds u itself: then u is NULL there, and F fails.
   - *u on the right, p on the left* (`post LEFT JOIN users`): F makes u real in every passing row, so its ON has held.
2. *The parents stay.* Let U(D) be the rows of u that satisfy u's read under T, seen through k and F's column, which are
   both rendered. Every u in a passing row is one of them. If no change of u's table touches the entry, U is the same
   in every state from the result's to P's: each change of a member, or to one, would have touched.
3. So, were x part of a passing row in D, some u in U(D) has u.k = x.c and satisfies F; it is in U(P) too, and k is
   unique, so it is the parent that P shows, which fails F: a contradiction.

This needs nothing of u's read but that all who matter satisfy it: it may be wider than F (unknown values, too many).
The image before is looked up in P like the one after; the argument is about any image and any state. A parent that was
deleted, renamed or moved in the same batch, by hand or by a cascade, was in U before or it was not. What the text reads
of u under other aliases has reads of its own.

**Where it would fail.** Step 2 supposes that u's read sees every change of U. That read may itself rest on a parent of
u's, so the steps are an induction, and parents must not lead back to a child: with p resting on u and u on p, a batch
that changes both would show each the other's new state, and neither change would touch. `usable` refuses the look-up
that closes a circle. An F that was only carried to u over a link does not hold in every passing row, and is not used.

**Images of other times.** A history holds images that were looked up at an older poll: a state between the result's and
now, or one from before the result, whose changes the result has seen. Read backwards, from a live entry to the cursor
of a client, steps 1 to 3 are the same. Images looked up in a snapshot *after* the version that they are told for
would not do; a log leaves the virtual columns out there. What an image lacks, because nobody wanted it when the log
looked or because it is not exact, matches every condition.

Left out: parents of parents (one look-up a column), parents in an enclosing query's other conjunctions, EXISTS about a
parent, and children whose own unique column is given.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from reactive_rpc.dependencies.lookup import Lookup
from reactive_rpc.dependencies.schema import ColumnKind, Schema
from reactive_rpc.statements.predicates import Comparison, Field, Nullness, Term
from reactive_rpc.statements.propagation import equalities
from reactive_rpc.statements.template import ParentAtom, Read, RowAtom

__all__ = ["parent_atoms", "usable"]

_KEY_KINDS: Final[frozenset[ColumnKind]] = frozenset({"integer", "text", "label", "uuid"})
"""Kinds of keys that are equal in an image exactly where the database joins them."""


def parent_atoms(
    term: Term, facts: Iterable[Comparison], links: Iterable[tuple[Field, Field]]
) -> dict[int, tuple[ParentAtom, ...]]:
    """Return `{child: what is known of its parents}`, whether or not the parents' keys are unique.

    Args:
        term: a conjunction of the WHERE.
        facts: the comparisons that hold where it does.
        links: `SelectScope.links` of the body.
    """
    nullness = [atom for atom in term if isinstance(atom, Nullness)]
    of_parents = _by_source([*facts, *nullness])
    failing_null = _by_source([*facts, *(atom for atom in nullness if not atom.null)])
    found: dict[int, dict[ParentAtom, None]] = {}
    for pairs, known in (
        (equalities(term), of_parents),
        ([pair for link in links for pair in (link, link[::-1])], failing_null),
    ):
        for child, key in pairs:
            for atom in known.get(key.source, ()) if child.source != key.source else ():
                if atom.field.name != key.name:
                    found.setdefault(child.source, {})[ParentAtom(child, key, atom)] = None
    return {child: tuple(atoms) for child, atoms in found.items()}


def usable(reads: Iterable[Read], schema: Schema) -> dict[ParentAtom, Lookup]:
    """Return the look-ups that the parents' atoms of `reads` may rest on: of exact columns, and without a circle."""
    found: dict[ParentAtom, Lookup] = {}
    rests_on: dict[int, set[int]] = {}
    for read in reads:
        for atom in read.parents if not _is_one_row(read, schema) else ():
            child, parent = atom.column.source, atom.key.source
            lookup = None if _leads_to(child, parent, rests_on) else _lookup(atom, schema)
            if lookup is not None:
                rests_on.setdefault(child, set()).add(parent)
                found[atom] = lookup
    return found


def _by_source(atoms: Iterable[RowAtom]) -> dict[int, list[RowAtom]]:
    grouped: dict[int, list[RowAtom]] = {}
    for atom in atoms:
        grouped.setdefault(atom.field.source, []).append(atom)
    return grouped


def _is_one_row(read: Read, schema: Schema) -> bool:
    """Tell whether the read names its rows by a unique column: a look-up would cost more than it spares."""
    return any(
        isinstance(atom, Comparison) and atom.operator in ("eq", "in") and _unique(atom.field, schema)
        for atom in read.atoms
    )


def _leads_to(target: int, start: int, rests_on: Mapping[int, Iterable[int]]) -> bool:
    return start == target or any(_leads_to(target, each, rests_on) for each in rests_on.get(start, ()))


def _lookup(atom: ParentAtom, schema: Schema) -> Lookup | None:
    table, parent = schema.table(atom.column.table), schema.table(atom.key.table)
    if table is None or parent is None or not _unique(atom.key, schema):
        return None
    kind = schema.kind(table, atom.column.name)
    if kind not in _KEY_KINDS or kind != schema.kind(parent, atom.key.name):
        return None
    names = (atom.column.name, atom.key.name, atom.atom.field.name)
    # A name that holds the marks of a virtual column's name could be taken for another one.
    if any(mark in name for name in names for mark in (".", "->")):
        return None
    return Lookup(table, atom.column.name, parent, atom.key.name, atom.atom.field.name)


def _unique(field: Field, schema: Schema) -> bool:
    table = schema.table(field.table)
    return table is not None and schema.is_unique(table, field.name)
