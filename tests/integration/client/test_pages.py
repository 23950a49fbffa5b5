"""Lists that are followed page by page: what is shown is the list of one moment, whoever inserts, deletes and moves."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx

from generated_client import Message, SyncTeamHub, TeamHub
from reactive_rpc.client import Pages, PagesState
from tests.support.waiting import until, wait_until

from .teamhub import EMAIL, PASSWORD, Recorded, Served, hub_of, play

INSERT = "INSERT INTO message(id, from_agent_id, body, created_at) VALUES (?, ?, 'x', ?)"
MOVE = "UPDATE message SET created_at = ? WHERE id = ?"
OF_AGENT = "SELECT id FROM message WHERE from_agent_id = ? ORDER BY created_at DESC, id DESC"


def moment(number: int) -> str:
    """Return the n-th moment, as TeamHub stores it."""
    return f"2026-01-01 00:{number // 60:02}:{number % 60:02}.000000"


def ids(state: PagesState[Message]) -> list[str]:
    return [row.id for row in state.rows or ()]


async def agent_with(served: Served, hub: TeamHub, count: int) -> str:
    """Add an agent that has sent so many messages, ten seconds apart."""
    id = (await hub.agents.create(name="Pages")).id
    for number in range(count):
        served.write(INSERT, f"{id}-{number:03}", id, moment(10 * number))
    return id


def truth(served: Served, id: str) -> list[str]:
    return [row[0] for row in served.rows(OF_AGENT, id)]


async def shows(pages: Pages[Message], holds: Callable[[PagesState[Message]], bool]) -> None:
    """Wait until the list shows something as fresh; no state on the way shows a row twice."""

    def looks_right() -> bool:
        found = ids(pages.state)
        assert len(set(found)) == len(found)
        return not pages.state.is_stale and holds(pages.state)

    await until(looks_right, lambda: f"{pages.state}")


def test_a_list_is_loaded_page_by_page_and_follows_writes(shared: Served) -> None:
    """Rows inserted, deleted and moved anywhere show where they belong, and the list keeps its end."""

    async def scenario() -> None:
        recorded = Recorded()
        async with hub_of(shared, recorded) as hub:
            id = await agent_with(shared, hub, 11)
            async with hub.messages.get_all.pages(agent_id=id, limit=4) as pages:
                await shows(pages, lambda state: ids(state) == truth(shared, id)[:4])
                assert pages.state.has_more
                pages.load_more()
                await shows(pages, lambda state: ids(state) == truth(shared, id)[:8])
                shared.write(INSERT, f"{id}-new", id, moment(200))
                await shows(pages, lambda state: ids(state) == truth(shared, id)[:9])
                shared.write(MOVE, moment(55), f"{id}-010")  # from the first page into the second
                await shows(pages, lambda state: ids(state) == truth(shared, id)[:9])
                pages.load_more()
                await shows(pages, lambda state: ids(state) == truth(shared, id) and not state.has_more)
                shared.write("DELETE FROM message WHERE id IN (?, ?, ?)", *(f"{id}-{n:03}" for n in (4, 5, 6)))
                await shows(pages, lambda state: ids(state) == truth(shared, id))
                shared.write(INSERT, f"{id}-old", id, moment(0))
                await shows(pages, lambda state: ids(state) == truth(shared, id))
        assert set(recorded.fetches("messages.get_all")) <= {200, 304}

    play(scenario)


def test_a_page_that_grows_is_split_and_those_that_shrink_are_joined(shared: Served) -> None:
    """No row is lost on the way, and no answer has more than twice the limit."""

    async def scenario() -> None:
        async with hub_of(shared, Recorded()) as hub:
            id = await agent_with(shared, hub, 6)
            async with hub.messages.get_all.pages(agent_id=id, limit=3) as pages:
                await shows(pages, lambda state: len(ids(state)) == 3)
                for number in range(20):
                    shared.write(INSERT, f"{id}-grown-{number}", id, moment(300 + number))
                await shows(pages, lambda state: ids(state) == truth(shared, id)[:23])
                shared.write("DELETE FROM message WHERE id LIKE ? AND created_at > ?", f"{id}-grown-%", moment(301))
                await shows(pages, lambda state: ids(state) == truth(shared, id)[:5])

    play(scenario)


class Gate:
    """Holds fetches of pages that begin where the list does, and end elsewhere than its first page."""

    def __init__(self) -> None:
        self.recorded = Recorded()
        self.is_open = asyncio.Event()
        self.held = 0

    async def let_pass(self, request: httpx.Request) -> None:
        """Wait until the gate is open if the request is such a fetch; httpx calls this."""
        if request.url.path != "/rpc/messages.get_all":
            return
        place = json.loads(request.content) if request.content else request.url.params
        until = place.get("until")
        if not place.get("after") and until and until != self._end_of_first_page():
            self.held += 1
            await self.is_open.wait()

    def _end_of_first_page(self) -> object:
        answers = (one for one in self.recorded.responses if one.request.url.path == "/rpc/messages.get_all")
        first = next(one for one in answers if one.status_code == 200)
        return first.json()["next"]


def test_news_does_not_wait_for_the_answer_of_pages_that_are_joined(shared: Served) -> None:
    """What the pages show together shows first."""

    async def scenario() -> None:
        gate = Gate()
        hooks: dict[str, list[Callable[..., Any]]] = {"request": [gate.let_pass], "response": [gate.recorded.take]}
        async with (
            httpx.AsyncClient(event_hooks=hooks, timeout=120) as http,
            TeamHub(shared.url, http=http) as hub,
        ):
            await hub.login(username=EMAIL, password=PASSWORD)
            id = await agent_with(shared, hub, 8)
            async with hub.messages.get_all.pages(agent_id=id, limit=3) as pages:
                await shows(pages, lambda state: len(ids(state)) == 3)
                pages.load_more()
                await shows(pages, lambda state: len(ids(state)) == 6)
                shared.write("DELETE FROM message WHERE id IN (?, ?)", f"{id}-004", f"{id}-003")
                await until(lambda: gate.held and ids(pages.state) == truth(shared, id)[:4], lambda: f"{pages.state}")
                assert pages.state.is_stale
                gate.is_open.set()
                await shows(pages, lambda state: ids(state) == truth(shared, id)[:4])

    play(scenario)


def test_writes_without_a_pause(shared: Served) -> None:
    """While somebody writes all the time, each state is the list of one moment; in the end it is that of now."""

    async def scenario() -> None:
        async with hub_of(shared, Recorded()) as hub:
            id = await agent_with(shared, hub, 12)
            async with hub.messages.get_all.pages(agent_id=id, limit=4) as pages:
                for loaded in (4, 8, 12):
                    await shows(pages, lambda state, loaded=loaded: len(ids(state)) == loaded)  # type: ignore[misc]
                    pages.load_more()
                for number in range(40):
                    await asyncio.to_thread(shared.write, MOVE, moment(number * 37 % 120), f"{id}-{number % 12:03}")
                    found = ids(pages.state)
                    assert sorted(found) == sorted(truth(shared, id)), "a row came twice, or was left out"
                await shows(pages, lambda state: ids(state) == truth(shared, id))

    play(scenario)


def test_a_list_without_async(shared: Served) -> None:
    """The same from another thread."""

    async def scenario() -> str:
        async with hub_of(shared, Recorded()) as hub:
            return await agent_with(shared, hub, 5)

    id = asyncio.run(scenario())
    with SyncTeamHub(shared.url) as hub:
        hub.login(username=EMAIL, password=PASSWORD)
        with hub.messages.get_all.pages(agent_id=id, limit=3) as pages:
            assert next(state for state in pages if not state.is_stale).has_more
            pages.load_more()
            wait_until(lambda: ids(pages.state) == truth(shared, id))
