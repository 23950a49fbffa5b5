"""The states of TeamHub's page, each brought about by what really causes it; tests and pictures look at the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

from tests.support.page import Page
from tests.support.teamhub import TeamHub

__all__ = ["STATES", "Stage", "State"]

ADA: Final = "agent-0001"
BARBARA: Final = "agent-0003"
SAID: Final = "All three vendors answered. The comparison is ready on Wednesday."


class Stage(NamedTuple):
    """Where a state is brought about.

    Attributes:
        hub: the server.
        open: opens the page; its arguments are those of `Page`.
    """

    hub: TeamHub
    open: Callable[..., Page]


State = Callable[[Stage], Iterator[Page]]
"""Yields the page once it shows the state, and ends it afterwards."""


def _agents(stage: Stage) -> Iterator[Page]:
    page = stage.open()
    page.is_there(".agents a.tr")
    page.is_there(".feed time")
    page.shows("Live", within=".side")
    yield page


def _agents_loading(stage: Stage) -> Iterator[Page]:
    """The document is there, and the server says nothing."""
    page = stage.open(email="")
    page.is_there("#password")
    with _silent(stage.hub):
        page.log_in_at_once()
        page.is_there(".split[aria-busy=true] .tr .sk")
        yield page


def _agents_empty(stage: Stage) -> Iterator[Page]:
    stage.hub.write("INSERT OR IGNORE INTO organization VALUES ('org-new', 'Nova Research', '2026-01-01 00:00:00')")
    stage.hub.write(
        "INSERT OR IGNORE INTO user SELECT 'user-new', 'org-new', 'lin@nova.example', password_hash, created_at "
        "FROM user WHERE id = 'user-01'"
    )
    page = stage.open(email="lin@nova.example")
    page.shows("No agents yet")
    yield page


def _agents_error(stage: Stage) -> Iterator[Page]:
    page = stage.open(email="")
    page.is_there("#password")
    stage.hub.write("ALTER TABLE memory RENAME TO memory_away")
    try:
        page.log_in_at_once()
        page.shows("The agents could not be loaded")
        yield page
    finally:
        stage.hub.write("ALTER TABLE memory_away RENAME TO memory")


def _agents_offline(stage: Stage) -> Iterator[Page]:
    page = next(_agents(stage))
    page.tab.go_offline()
    page.shows("You are offline", within=".banner")
    page.is_there(".chip.stale")
    yield page
    page.tab.go_online()


def _agents_reconnecting(stage: Stage) -> Iterator[Page]:
    page = next(_agents(stage))
    stage.hub.end()
    try:
        page.shows("The connection was lost", within=".banner")
        page.is_there(".chip.stale")
        yield page
    finally:
        stage.hub.start()


def _more(stage: Stage) -> Iterator[Page]:
    page = next(_agents(stage))
    page.click(".me, .tabbar button", "")
    page.shows("Log out", within="dialog")
    yield page


def _edit_dialog(stage: Stage) -> Iterator[Page]:
    page = stage.open(path=f"/agents/{BARBARA}")
    page.click(".hero .btn", "Edit")
    page.shows("Edit Barbara", within="dialog")
    yield page


def _agent(stage: Stage) -> Iterator[Page]:
    page = stage.open(path=f"/agents/{ADA}")
    page.is_there(".msg .body")
    page.is_there(".mem time")
    page.is_there(".tool")
    page.is_there(".stats time")
    yield page


def _agent_toast(stage: Stage) -> Iterator[Page]:
    """It stays while the focus is on it, and its action takes back what it tells of."""
    page = stage.open(path=f"/agents/{BARBARA}")
    page.click(".hero .btn", "Pause")
    page.focus(".toast .btn")
    yield page
    page.click(".toast .btn", "Undo")
    page.shows("Pause", within=".hero")


def _agent_loading(stage: Stage) -> Iterator[Page]:
    page = stage.open(email="", path=f"/agents/{ADA}")
    page.is_there("#password")
    with _silent(stage.hub):
        page.log_in_at_once()
        page.is_there(".talk .sk")
        yield page


def _agent_forbidden(stage: Stage) -> Iterator[Page]:
    page = stage.open(path="/agents/agent-0999")
    page.shows("There is no such agent here")
    yield page


def _agent_gone(stage: Stage) -> Iterator[Page]:
    agent = _new_agent(stage, "Mira")
    page = stage.open(path=f"/agents/{agent}")
    page.shows("Mira", within=".hero")
    stage.hub.write("DELETE FROM agent WHERE id = ?", agent)
    page.shows("This agent was deleted")
    yield page


def _agent_empty(stage: Stage) -> Iterator[Page]:
    page = stage.open(path=f"/agents/{_new_agent(stage, 'Nora')}")
    page.shows("Nora has said nothing yet")
    yield page


def _message_pending(stage: Stage) -> Iterator[Page]:
    page = next(_agent(stage))
    with _silent(stage.hub):
        page.focus("#message")
        page.write("The third quote is missing its delivery date. I have asked for it.")
        page.press("Enter", code=13, text="\r")
        page.is_there(".msg.pending")
        yield page
    page.tab.until("document.querySelector('.msg.pending') === null")


def _message_waiting(stage: Stage) -> Iterator[Page]:
    page = next(_agent(stage))
    page.shows("Live", within=".side")
    page.tab.go_offline()
    page.shows("You are offline", within=".banner")
    page.focus("#message")
    page.write("I ask them again tomorrow.")
    page.press("Enter", code=13, text="\r")
    page.shows("Waiting", within=".msg.pending")
    page.shows("1 waiting", within=".banner")
    yield page
    page.tab.go_online()
    page.tab.until("document.querySelector('.msg.pending') === null")


def _message_rejected(stage: Stage) -> Iterator[Page]:
    agent = _new_agent(stage, "Otto")
    page = next(_agent(stage))
    page.is_there(f"option[value={agent}]")
    page.choose("#receiver", agent)
    page.focus("#message")
    page.write("Please translate the summary into Portuguese by Wednesday.")
    stage.hub.write("DELETE FROM agent WHERE id = ?", agent)
    page.tab.until("document.querySelector('#receiver').selectedOptions[0].textContent.includes('gone')")
    page.press("Enter", code=13, text="\r")
    page.shows("Not sent", within=".msg.bad")
    yield page


def _message_conflict(stage: Stage) -> Iterator[Page]:
    token = stage.hub.log_in()
    message = stage.hub.call("messages.send", token=token, from_agent_id=ADA, body=SAID)
    page = next(_agent(stage))
    page.shows(SAID, within=".talk")
    page.tab.evaluate("[...document.querySelectorAll('.msg .edit')].at(-1).click()")
    page.is_there(".msg textarea")
    page.tab.evaluate("document.querySelector('.msg textarea').select()")
    page.write(SAID.replace(".", ", with the delivery dates.", 2).replace(", with the delivery dates.", ".", 1))
    theirs = SAID.replace("Wednesday", "Tuesday evening")
    stage.hub.write("UPDATE message SET body = ? WHERE id = ?", theirs, message["id"])
    page.shows("Somebody changed this message", within=".msg.clash")
    page.tab.evaluate("document.querySelector('.talk').scrollTop = 1e6")
    yield page


def _search(stage: Stage) -> Iterator[Page]:
    page = stage.open(path="/search?q=contract")
    page.is_there(".res .hit mark")
    yield page


def _search_empty(stage: Stage) -> Iterator[Page]:
    page = stage.open(path="/search?q=xyzzy")
    page.shows("Nothing says")
    yield page


def _login(stage: Stage) -> Iterator[Page]:
    page = stage.open(email="")
    page.is_there("#password")
    yield page


def _login_error(stage: Stage) -> Iterator[Page]:
    page = next(_login(stage))
    page.focus("#password")
    page.write("wrong")
    page.press("Enter", code=13, text="\r")
    page.shows("No account has this address and password.")
    yield page


STATES: Final[dict[str, State]] = {
    "agents": _agents,
    "agents-loading": _agents_loading,
    "agents-empty": _agents_empty,
    "agents-error": _agents_error,
    "agents-offline": _agents_offline,
    "agents-reconnecting": _agents_reconnecting,
    "agent": _agent,
    "agent-loading": _agent_loading,
    "agent-forbidden": _agent_forbidden,
    "agent-gone": _agent_gone,
    "agent-empty": _agent_empty,
    "agent-edit": _edit_dialog,
    "agent-toast": _agent_toast,
    "message-pending": _message_pending,
    "message-waiting": _message_waiting,
    "message-rejected": _message_rejected,
    "message-conflict": _message_conflict,
    "search": _search,
    "search-empty": _search_empty,
    "more": _more,
    "login": _login,
    "login-error": _login_error,
}


@contextmanager
def _silent(hub: TeamHub) -> Iterator[None]:
    """Stop the server: it takes connections, and answers nothing until the end."""
    hub.pause()
    try:
        yield
    finally:
        hub.resume()


def _new_agent(stage: Stage, name: str) -> str:
    made = stage.hub.call("agents.create", token=stage.hub.log_in(), name=name, role="Planner")
    return str(made["id"])
