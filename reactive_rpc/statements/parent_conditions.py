"""Conditions on a row's parent: `post JOIN users ON post.user_id = users.id WHERE users.team_id = 3` reads team 3's.

No column of a post says which team that is, so the read of posts rests on a *virtual column*
(`dependencies/lookup.py`), which the log adds to the images of posts: the value that the parent has in the snapshot
that shows the change. A change of a post is ignored if its parents all fail the condition there, or if there is none.

`docs/internals/read-sets.md` argues why no change is overlooked; the INVARIANT comments mark the lines that it rests
on. A parent's own parent is looked up, too (`items -> orders -> customers`). Left out: parents in an enclosing query's
other conjunctions, and children that the query names by their own unique column.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from reactive_rpc.dependencies.lookup import Lookup
from reactive_rpc.dependencies.schema import ColumnKind, Schema
from reactive_rpc.statements.explanation import Unused
from reactive_rpc.statements.formulas import is_null_of_null
from reactive_rpc.statements.predicates import Comparison, Field, Nullness, Term
from reactive_rpc.statements.propagation import equalities
from reactive_rpc.statements.template import ParentAtom, Read, RowAtom, RowFormula

__all__ = ["judged", "parent_atoms", "usable"]

MAX_HOPS: Final = 3
"""So many parents one after the other are looked up."""

MAX_ATOMS: Final = 32
"""So many conditions on parents a row of one table may have; the rest say nothing, which is wider."""

_KEY_KINDS: Final[frozenset[ColumnKind]] = frozenset({"integer", "text", "label", "uuid"})
"""Kinds of keys that are equal in an image exactly if the database joins them."""


def parent_atoms(
    term: Term, facts: Iterable[Comparison], formulas: Iterable[RowFormula], *, links: Iterable[tuple[Field, Field]]
) -> dict[int, tuple[ParentAtom, ...]]:
    """Return `{child: the atoms about its parents}`, whether or not the parents can be looked up.

    Args:
        term: a conjunction of the WHERE.
        facts: the comparisons that hold if it does.
        formulas: what else holds then.
        links: `SelectScope.links` of the body.
    """
    links = list(links)
    nullness = [atom for atom in term if isinstance(atom, Nullness)]
    of_parents = _by_source([*facts, *nullness, *formulas])
    # INVARIANT (over a link only conditions that NULL fails): an outer join keeps a row whose parent is missing, and
    # there the parent's columns are NULL.
    failing_null = _by_source(
        [
            *facts,
            *(atom for atom in nullness if not atom.null),
            *(each for each in formulas if is_null_of_null(each.formula)),
        ]
    )
    equal, both_ways = equalities(term), [pair for left, right in links for pair in ((left, right), (right, left))]
    # INVARIANT (a condition that a parent has by its own parent holds in every passing row): that parent's parent is
    # then on the right of the link, and real, so its ON has held. A missing row has no parent: NULL fails it.
    held: dict[int, dict[ParentAtom, None]] = {}
    right = [(left, right) for right, left in links]
    for _ in range(MAX_HOPS - 1):
        _lead(held, equal, [of_parents, held])
        _lead(held, right, [failing_null, held])
    found: dict[int, dict[ParentAtom, None]] = {}
    _lead(found, equal, [of_parents, held])
    _lead(found, both_ways, [failing_null, held])
    return {child: tuple(atoms) for child, atoms in found.items()}


def _lead(
    found: dict[int, dict[ParentAtom, None]],
    pairs: Iterable[tuple[Field, Field]],
    known: Iterable[Mapping[int, Iterable[RowAtom | RowFormula | ParentAtom]]],
) -> None:
    """Add to `found` what is `known` of each key's row, as conditions of the rows that lead there."""
    for child, key in pairs:
        atoms = [atom for each in known for atom in each.get(key.source, ())]
        for atom in atoms if child.source != key.source else ():
            if isinstance(atom, ParentAtom):
                of_interest = child.source not in atom.parents and len(atom.parents) < MAX_HOPS
            else:
                of_interest = atom.field.name != key.name
            if of_interest and len(found.get(child.source, ())) < MAX_ATOMS:
                found.setdefault(child.source, {})[ParentAtom(child, key, atom)] = None


def usable(reads: Iterable[Read], schema: Schema) -> dict[ParentAtom, Lookup]:
    """Return the look-ups that the parents' atoms of `reads` may rest on: by an index, and without a circle."""
    return {atom: found for atom, found in judged(reads, schema).items() if isinstance(found, Lookup)}


def judged(reads: Iterable[Read], schema: Schema) -> dict[ParentAtom, Lookup | Unused]:
    """Return for each atom about a parent its look-up, or why it may rest on none."""
    found: dict[ParentAtom, Lookup | Unused] = {}
    rests_on: dict[int, set[int]] = {}
    atoms: dict[ParentAtom, None] = {}
    for read in reads:
        if read.parents and not _is_one_row(read, schema):
            atoms.update(dict.fromkeys(read.parents))
    for atom in sorted(atoms, key=lambda each: _rank(each, schema)):
        child = atom.column.source
        # INVARIANT (no child leads back to itself): the argument is an induction from parents to children. In a
        # circle, a batch that changes both rows would show each the other's new state, and neither would touch.
        if any(_leads_to(child, parent, rests_on) for parent in atom.parents):
            found[atom] = Unused.CIRCLE
            continue
        found[atom] = _lookup(atom, schema)
        if isinstance(found[atom], Lookup):
            rests_on.setdefault(child, set()).update(atom.parents)
    return found


def _rank(atom: ParentAtom, schema: Schema) -> int:
    """Return which look-up goes before another one that would close a circle with it.

    Where two rows lead to each other by keys that are not unique, the one of which a value is asked for is the parent:
    `item JOIN member ON member.project_id = item.project_id WHERE member.user_id = 3`.
    """
    if _leads_by_unique_keys(atom, schema):
        return 0
    return 1 if isinstance(atom.last, Comparison) and atom.last.operator in ("eq", "in") else 2


def _leads_by_unique_keys(atom: ParentAtom, schema: Schema) -> bool:
    further = not isinstance(atom.atom, ParentAtom) or _leads_by_unique_keys(atom.atom, schema)
    return further and _unique(atom.key, schema)


def _by_source(atoms: Iterable[RowAtom | RowFormula]) -> dict[int, list[RowAtom | RowFormula]]:
    grouped: dict[int, list[RowAtom | RowFormula]] = {}
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


def _lookup(atom: ParentAtom, schema: Schema) -> Lookup | Unused:
    table, parent = schema.table(atom.column.table), schema.table(atom.key.table)
    if table is None or parent is None or not schema.is_indexed(parent, atom.key.name):
        return Unused.NOT_INDEXED
    kind = schema.kind(table, atom.column.name)
    if kind not in _KEY_KINDS or kind != schema.kind(parent, atom.key.name):
        return Unused.INEXACT_KEY
    further = _lookup(atom.atom, schema) if isinstance(atom.atom, ParentAtom) else None
    if isinstance(further, Unused):
        return further
    value = atom.atom.column.name if isinstance(atom.atom, ParentAtom) else atom.atom.field.name
    names = (atom.column.name, atom.key.name, value)
    # A name that holds the marks of a virtual column's name could be taken for another one.
    if any(mark in name for name in names for mark in (".", "->")):
        return Unused.NAMED_ODDLY
    return Lookup(table, atom.column.name, parent, atom.key.name, value, further)


def _unique(field: Field, schema: Schema) -> bool:
    table = schema.table(field.table)
    return table is not None and schema.is_unique(table, field.name)
