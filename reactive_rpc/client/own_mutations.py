"""The mutations of this client that are under way: their turn, and how they show in the queries that they concern.

One with optimistic updates waits for the earlier ones that touch a same query, so that two quick clicks reach the
server in their order; the states do not depend on that. It shows only in queries that somebody holds when it is made.
`docs/internals/client.md` has the rules by which it leaves again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from uuid import uuid4

from reactive_rpc.client.optimistic import OptimisticUpdate
from reactive_rpc.client.sending import Sending
from reactive_rpc.client.state import Action, OpAnswered, OpLost, OpMade, OpRejected, OpSent
from reactive_rpc.client.subscriptions import QueryEntry, QueryKey, Subscriptions, query_key
from reactive_rpc.client.transport import CallAnswer
from reactive_rpc.client.versions import parse_version
from reactive_rpc.protocol.headers import CURSOR

__all__ = ["OwnMutations"]


@dataclass(eq=False)
class _OwnMutation:
    """One that is under way.

    Attributes:
        keys: of the queries in which it takes its turn.
        shown: the entries in which it shows, with the id that it has there.
        is_sent: whether the server may know of it.
        over: set when it is over.
    """

    keys: frozenset[QueryKey]
    shown: list[tuple[QueryEntry[Any], str]] = field(default_factory=list)
    is_sent: bool = False
    over: asyncio.Event = field(default_factory=asyncio.Event)

    def dispatch(self, action_of: Callable[[QueryEntry[Any], str], Action]) -> None:
        """Tell each entry in which it shows."""
        for entry, id in self.shown:
            entry.dispatch(action_of(entry, id))


class OwnMutations:
    """Runs the mutations of one client. Belongs to its event loop.

    Args:
        subscriptions: the queries that somebody holds.
        on_change: called whenever the queries may want a fetch, or another number of mutations waits.
    """

    def __init__(self, subscriptions: Subscriptions, on_change: Callable[[], None]) -> None:
        self._subscriptions = subscriptions
        self._on_change = on_change
        self._under_way: list[_OwnMutation] = []

    @property
    def waiting(self) -> int:
        """How many were made and are not over."""
        return len(self._under_way)

    async def run(self, sending: Sending, updates: Sequence[OptimisticUpdate], *, in_parallel: bool) -> CallAnswer:
        """Show the updates, wait for the mutation's turn, send it, and return its answer; errors as in `Sending.run`.

        Args:
            sending: of the mutation.
            updates: how it shows until the server's answers contain it.
            in_parallel: whether it takes no turn: it waits for none, and none waits for it.
        """
        one = self._begin(updates, in_parallel=in_parallel)
        try:
            await self._turn_of(one)
            one.is_sent = True
            one.dispatch(lambda entry, id: OpSent(id))
            answer = await sending.run()
        except BaseException as error:  # also if it is cancelled: then nobody knows, unless it was not sent
            is_undone = not one.is_sent or sending.was_refused(error)
            one.dispatch(lambda entry, id: OpRejected(id) if is_undone else OpLost(id))
            raise
        else:
            version = parse_version(answer.headers.get(CURSOR))
            one.dispatch(lambda entry, id: OpAnswered(id, version, entry.notified_up_to))
            return answer
        finally:
            self._end(one)

    def _begin(self, updates: Sequence[OptimisticUpdate], *, in_parallel: bool) -> _OwnMutation:
        touched = () if in_parallel else updates
        one = _OwnMutation(frozenset(query_key(update.procedure, update.fields) for update in touched))
        self._under_way.append(one)
        for update in updates:
            entry = self._subscriptions.find(update.procedure, update.fields)
            if entry is not None:
                id = f"{len(one.shown)} of {uuid4().hex}"
                one.shown.append((entry, id))
                entry.dispatch(OpMade(id, partial(_changed, update.change)))
        self._on_change()
        return one

    async def _turn_of(self, one: _OwnMutation) -> None:
        """Wait for the earlier ones that touch a same query."""
        # INVARIANT (each waits for every earlier one, not for the last): one that is given up while it waits would
        # else let the next one past those that it waited for.
        for earlier in self._under_way[: self._under_way.index(one)]:
            if earlier.keys & one.keys:
                await earlier.over.wait()

    def _end(self, one: _OwnMutation) -> None:
        self._under_way.remove(one)
        one.over.set()
        self._on_change()


def _changed(change: Callable[[Any], Any], data: Any) -> Any:
    """Return the result with a change, which makes none of nothing."""
    return None if data is None else change(data)
