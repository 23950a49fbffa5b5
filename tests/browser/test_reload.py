"""A page that was here before: it shows at once what it showed last, and corrects it."""

from __future__ import annotations

from tests.support.browser import Context
from tests.support.teamhub import TeamHub

AGENT = "agent-0001"
ONE = ["agents.get_one", {"agent_id": AGENT}]
ALL = ["agents.get_all"]
MESSAGES = ["messages.get_all", {"agent_id": AGENT}]
ADA = {"identity": "ada"}
STORED = "Object.keys(localStorage).filter((key) => key.startsWith('rx:')).length"


def test_a_reload_shows_the_last_result_at_once_and_fetches_nothing_that_has_not_changed(
    hub: TeamHub, token: str, browser: Context
) -> None:
    """The first frame has data, which is stale until the stream confirms it."""
    tab = browser.tab(hub.page(token=token, show=[ONE, ALL], options=ADA))
    tab.until("page.isFresh('agents.get_one') && page.isFresh('agents.get_all')")
    tab.until(f"{STORED} === 2")
    tab.reload()
    first = tab.evaluate("page.frames[0]")
    assert first["state"]["data"]["id"] == AGENT
    assert first["state"]["isStale"]
    tab.until("page.isFresh('agents.get_one') && page.isFresh('agents.get_all')")
    assert "agents.get_one" not in tab.evaluate("page.asked")
    assert "agents.get_all" not in tab.evaluate("page.asked")


def test_a_reload_corrects_what_has_changed_meanwhile(hub: TeamHub, token: str, browser: Context) -> None:
    """Of two queries, the one that changed is fetched."""
    tab = browser.tab(hub.page(token=token, show=[ONE, MESSAGES], options=ADA))
    tab.until("page.isFresh('agents.get_one') && page.isFresh('messages.get_all')")
    tab.until(f"{STORED} === 2")
    tab.open("about:blank")
    hub.write("UPDATE agent SET role = 'conductor' WHERE id = ?", AGENT)
    tab.open(hub.page(token=token, show=[ONE, MESSAGES], options=ADA))
    first = tab.evaluate("page.frames[0].state")
    assert first["data"]["role"] != "conductor"
    assert first["isStale"]
    tab.until("page.isFresh('agents.get_one') && page.now('agents.get_one').data.role === 'conductor'")
    tab.until("page.isFresh('messages.get_all')")
    assert tab.evaluate("page.asked['agents.get_one']") == 1
    assert "messages.get_all" not in tab.evaluate("page.asked")
    # Nothing ever counted as fresh that was not.
    wrong = "page.frames.some(({ state }) => state.data.role && state.data.role !== 'conductor' && !state.isStale)"
    assert not tab.evaluate(wrong)
