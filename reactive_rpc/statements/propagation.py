"""Carry comparisons over equalities: `a.id = b.a_id AND a.id = 5` says `b.a_id = 5` too.

A comparison that was carried keeps the fields it went through. Whether two columns compare alike is the schema's to
say, and the schema is asked only when the statement runs (`binding.py`): an integer that equals a text column's text
does not make the text equal a number.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from reactive_rpc.statements.predicates import Comparison, Field, SameValue, Term

__all__ = ["MAX_CARRIED", "carried", "equalities", "known"]

MAX_CARRIED: Final = 32
"""No more comparisons than this are carried in one conjunction; the rest say nothing, which is wider."""


def equalities(term: Term) -> list[tuple[Field, Field]]:
    """Return `(to, from)` for every equality of a conjunction, both ways."""
    same = [atom for atom in term if isinstance(atom, SameValue)]
    return [pair for atom in same for pair in ((atom.left, atom.right), (atom.right, atom.left))]


def carried(comparisons: Iterable[Comparison], pairs: Iterable[tuple[Field, Field]]) -> list[Comparison]:
    """Return the comparisons that `pairs` of `(to, from)` carry on, over as many further pairs as lead on."""
    over: dict[Field, list[Field]] = {}
    for target, origin in pairs:
        over.setdefault(origin, []).append(target)
    found: dict[Comparison, Comparison] = {}
    open_ends = list(comparisons)
    seen = {replace(comparison, path=()) for comparison in open_ends}
    while open_ends and len(found) < MAX_CARRIED:
        comparison = open_ends.pop(0)
        for target in over.get(comparison.field, ()):
            fact = replace(comparison, field=target, path=())
            if fact not in seen:
                seen.add(fact)
                found[fact] = replace(fact, path=(*comparison.path, comparison.field))
                open_ends.append(found[fact])
    return list(found.values())


def known(term: Term, inherited: Iterable[Comparison]) -> list[Comparison]:
    """Return every comparison that holds if `term` and those `inherited` from an enclosing SELECT hold."""
    direct = [atom for atom in term if isinstance(atom, Comparison)] + list(inherited)
    return direct + carried(direct, equalities(term))
