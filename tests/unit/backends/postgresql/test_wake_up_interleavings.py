"""Writers and logs that go to sleep, step by step, in every order in which their steps can fall: nobody oversleeps.

The steps are those of `capture/wake_up.py`, each as small as PostgreSQL makes it. That the real server takes them so is
held by `tests/integration/backends/postgresql/test_wake_up.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import pytest


@dataclass(frozen=True)
class World:
    """The server, and how far everybody is.

    Attributes:
        steps: `(how many steps each has done)`, writers first.
        writing: who holds WRITERS shared; `trying_writers`: who holds it alone, for the moment of a try.
        sleeping: who holds SLEEPERS shared; `trying_sleepers`: likewise.
        notifies: the writers that have decided to notify.
        visible: the writers whose commit shows.
        read: `{log: commits that it has read}`.
        notified: the logs that have a notification.
        asleep: the logs that wait for one.
        given_up: the logs that do not sleep this time.
    """

    steps: tuple[int, ...]
    writing: frozenset[int] = frozenset()
    trying_writers: frozenset[int] = frozenset()
    sleeping: frozenset[int] = frozenset()
    trying_sleepers: frozenset[int] = frozenset()
    notifies: frozenset[int] = frozenset()
    visible: frozenset[int] = frozenset()
    read: tuple[tuple[int, frozenset[int]], ...] = ()
    notified: frozenset[int] = frozenset()
    asleep: frozenset[int] = frozenset()
    given_up: frozenset[int] = frozenset()


Step = Callable[[World, int], World]


def hold_writers(world: World, who: int) -> World:
    """Hold WRITERS until the end, or, if somebody tries it just now, notify in any case."""
    if world.trying_writers:
        return replace(world, notifies=world.notifies | {who})
    return replace(world, writing=world.writing | {who})


def begin_look(world: World, who: int) -> World:
    """Try SLEEPERS; whoever has it, sleeps, or looks for sleepers, too."""
    if world.sleeping or world.trying_sleepers:
        return replace(world, notifies=world.notifies | {who})
    return replace(world, trying_sleepers=world.trying_sleepers | {who})


def end_look(world: World, who: int) -> World:
    return replace(world, trying_sleepers=world.trying_sleepers - {who})


def commit(world: World, who: int) -> World:
    return replace(world, visible=world.visible | {who})


def let_go(world: World, who: int) -> World:
    """End the transaction: its locks are free, and its notification is sent to whoever listens."""
    notified = frozenset(log for log, _ in world.read) if who in world.notifies else frozenset()
    return replace(world, writing=world.writing - {who}, notified=world.notified | notified)


def roll_back(world: World, who: int) -> World:
    return replace(world, writing=world.writing - {who})


def hold_sleepers(world: World, who: int) -> World:
    """Hold SLEEPERS; if a writer tries it just now, or WRITERS was not free, there is no sleep this time."""
    if world.trying_sleepers or who in world.given_up:
        return replace(world, given_up=world.given_up | {who})
    return replace(world, sleeping=world.sleeping | {who})


def begin_try(world: World, who: int) -> World:
    """Try WRITERS; if somebody has it, there is no sleep this time."""
    if world.writing or world.trying_writers or who in world.given_up:
        return replace(world, sleeping=world.sleeping - {who}, given_up=world.given_up | {who})
    return replace(world, trying_writers=world.trying_writers | {who})


def end_try(world: World, who: int) -> World:
    return replace(world, trying_writers=world.trying_writers - {who})


def disarm(world: World, who: int) -> World:
    return replace(world, sleeping=world.sleeping - {who}, given_up=world.given_up - {who})


def read(world: World, who: int) -> World:
    found = tuple((log, world.visible if log == who else known) for log, known in world.read)
    return replace(world, read=found)


def sleep(world: World, who: int) -> World:
    return replace(world, asleep=world.asleep | {who}) if who in world.sleeping else world


WRITER: Sequence[Step] = (hold_writers, begin_look, end_look, commit, let_go)
LOSER: Sequence[Step] = (hold_writers, begin_look, end_look, roll_back)
LOG: Sequence[Step] = (hold_sleepers, begin_try, end_try, read, sleep)


def outcomes(plans: Sequence[Sequence[Step]], logs: int) -> Iterator[World]:
    """Yield every state in which all have done all their steps; the last `logs` plans are those of logs.

    A log that sleeps does no more, unless it is notified.
    """
    sleepers = tuple(range(len(plans) - logs, len(plans)))
    begin = World(steps=(0,) * len(plans), read=tuple((log, frozenset()) for log in sleepers))
    seen, waiting = {begin}, [begin]
    while waiting:
        world = waiting.pop()
        going = [who for who, plan in enumerate(plans) if world.steps[who] < len(plan) and who not in world.asleep]
        if not going:
            yield world
        for who in going:
            steps = tuple(step + (number == who) for number, step in enumerate(world.steps))
            after = replace(plans[who][world.steps[who]](world, who), steps=steps)
            if after not in seen:
                seen.add(after)
                waiting.append(after)


def overslept(plans: Sequence[Sequence[Step]], logs: int) -> list[World]:
    """Return the outcomes in which a log sleeps that has not read a commit, and will not be woken."""
    return [
        world
        for world in outcomes(plans, logs)
        if any(log in world.asleep - world.notified and known != world.visible for log, known in world.read)
    ]


CASTS = [
    pytest.param([WRITER, LOG], 1, id="one of each"),
    pytest.param([WRITER, WRITER, LOG], 1, id="two writers"),
    pytest.param([WRITER, LOSER, LOG], 1, id="one rolls back"),
    pytest.param([WRITER, LOG, LOG], 2, id="two logs"),
    pytest.param([WRITER, WRITER, LOG, LOG], 2, id="two of each"),
    pytest.param([WRITER, WRITER, [*LOG[:4], disarm, *LOG]], 1, id="sleeps again"),
]


@pytest.mark.parametrize(("plans", "logs"), CASTS)
def test_no_log_sleeps_through_a_commit(plans: list[Sequence[Step]], logs: int) -> None:
    """In every order of the steps, a log that sleeps has read every commit, or has been notified."""
    assert not overslept(plans, logs)
    assert any(world.asleep for world in outcomes(plans, logs)), "nobody ever slept, so nothing was tried"


@pytest.mark.parametrize(("plans", "logs"), CASTS)
def test_whoever_is_awake_costs_no_notification(plans: list[Sequence[Step]], logs: int) -> None:
    """There is an order in which nobody notifies, and one in which somebody does: only sleepers cost writers that."""
    ends = list(outcomes(plans, logs))
    assert any(not world.notifies for world in ends)
    assert any(world.notifies for world in ends)


BUGS: dict[str, list[Sequence[Step]]] = {
    "the log reads before it is armed": [WRITER, [read, hold_sleepers, begin_try, end_try, sleep]],
    "the log reads before it has tried WRITERS": [WRITER, [hold_sleepers, read, begin_try, end_try, sleep]],
    "the log tries WRITERS before it holds SLEEPERS": [WRITER, [begin_try, end_try, hold_sleepers, read, sleep]],
    "the log does not ask who writes": [WRITER, [hold_sleepers, read, sleep]],
    "the writer looks before it holds WRITERS": [[begin_look, end_look, hold_writers, commit, let_go], LOG],
    "the writer holds nothing": [[begin_look, end_look, commit, let_go], LOG],
    "the writer lets go before its commit shows": [[hold_writers, begin_look, end_look, let_go, commit], LOG],
}


@pytest.mark.seeded_bug
@pytest.mark.parametrize("bug", BUGS)
def test_a_wrong_order_is_found(bug: str) -> None:
    """If anybody takes two steps in another order, or leaves one out, some order oversleeps."""
    assert overslept(BUGS[bug], 1)
