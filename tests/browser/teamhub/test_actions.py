"""What somebody can do on TeamHub's page, done by its buttons and fields, and seen by what the page shows then."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests.support.page import Page
from tests.support.page_states import STATES, Stage
from tests.support.teamhub import TeamHub

OPEN = Callable[..., Page]
ADA = "agent-0001"
NOTHING = "document.querySelector({}) === null"


def gone(page: Page, selector: str) -> None:
    """Wait until nothing of that kind is there."""
    page.tab.until(NOTHING.format(json.dumps(selector)))


def fill(page: Page, selector: str, text: str) -> None:
    """Write a text in place of what a field says."""
    page.focus(selector)
    page.tab.evaluate(f"document.querySelector({json.dumps(selector)}).select()")
    page.write(text)


def figure(page: Page, name: str) -> str:
    """Return one of an agent's figures, by its name."""
    find = f"[...document.querySelectorAll('.stats dt')].find((one) => one.textContent === {json.dumps(name)})"
    return str(page.tab.until(f"{find}?.nextElementSibling.textContent"))


def test_an_agent_is_made_changed_and_deleted(show: OPEN) -> None:
    """Each by its dialog, which says what is missing; the list and the agent's page follow."""
    page = show()
    page.is_there(".agents a.tr")
    page.click(".head .btn", "New agent")
    page.click("dialog .btn", "Make agent")
    page.shows("A name and a role are needed.", within="dialog")
    fill(page, "dialog [name=name]", "Ines")
    fill(page, "dialog [name=role]", "Archivist")
    page.click("dialog .btn", "Make agent")
    gone(page, "dialog")
    page.shows("Archivist", within=".agents")
    page.click(".agents a.tr", "Ines")
    page.click(".hero .btn", "Edit")
    fill(page, "dialog [name=role]", "Librarian")
    page.click("dialog .btn", "Save")
    gone(page, "dialog")
    page.shows("Librarian", within=".hero")
    page.click(".hero .btn", "Edit")
    page.click("dialog .btn", "Delete")
    page.click("dialog .btn", "Delete Ines and its messages")
    page.shows("Ines is deleted", within=".toast")
    page.is_there(".agents a.tr")
    page.tab.until("!document.querySelector('.agents').innerText.includes('Ines')")


def test_an_agent_is_paused_and_works_again_and_is_found_by_either(show: OPEN) -> None:
    """The filters of the list count and show what they say."""
    page = show(path=f"/agents/{ADA}")
    page.click(".hero .btn", "Pause")
    page.shows("Resume", within=".hero .acts")
    page.click(".crumb a", "Agents")
    page.click(".seg button", "Paused")
    page.tab.until("[...document.querySelectorAll('.agents a.tr')].every((row) => row.innerText.includes('Paused'))")
    shown = page.tab.evaluate("document.querySelectorAll('.agents a.tr').length")
    assert page.tab.evaluate("document.querySelector('.seg [aria-pressed=true] .n').textContent") == str(shown)
    page.click(".agents a.tr", "Ada")
    page.click(".hero .btn", "Resume")
    page.shows("Pause", within=".hero .acts")


def test_a_memory_is_added_and_all_are_shown(show: OPEN) -> None:
    """The newest stands first, and is counted."""
    page = show(path=f"/agents/{ADA}")
    page.is_there(".mem time")
    before = int(figure(page, "Memories"))
    page.click(".rail .btn", "Add")
    fill(page, ".rail form input", "The vault opens at nine.")
    page.click(".rail form .btn", "Remember")
    page.tab.until("document.querySelector('.mem')?.innerText.includes('The vault opens at nine.')")
    page.tab.until(f"document.querySelector('.stats').innerText.includes('{before + 1}')")
    gone(page, ".rail form")
    page.click(".rail .link", f"Show all {before + 1}")
    page.tab.until(f"document.querySelectorAll('.mem time').length === {before + 1}")


def test_a_message_is_edited(show: OPEN, hub: TeamHub) -> None:
    """And the database has what was saved."""
    sent = hub.call("messages.send", token=hub.log_in(), from_agent_id=ADA, body="The draft is done.")
    page = show(path=f"/agents/{ADA}")
    page.shows("The draft is done.", within=".talk")
    page.tab.evaluate("[...document.querySelectorAll('.msg .edit')].at(-1).click()")
    fill(page, ".msg textarea", "The report is done.")
    page.click(".editing .btn", "Save")
    gone(page, ".editing")
    page.shows("The report is done.", within=".talk")
    again = hub.call("messages.get_all", token=hub.log_in(), agent_id=ADA)
    assert next(one["body"] for one in again["items"] if one["id"] == sent["id"]) == "The report is done."


@pytest.mark.parametrize("way", ["Keep editing from theirs", "Discard mine"])
def test_an_edit_that_meets_another_may_go_on_from_it_or_be_given_up(stage: Stage, way: str) -> None:
    """Nothing is saved by either."""
    page = next(STATES["message-conflict"](stage))
    page.click(".clash .btn", way)
    gone(page, ".clash")
    if way == "Discard mine":
        page.shows("Tuesday evening", within=".talk")
    else:
        page.tab.until("document.querySelector('.msg textarea').value.includes('Tuesday evening')")


@pytest.mark.parametrize("way", ["Send to everyone", "Edit", "Discard"])
def test_a_message_that_was_refused_goes_on_in_each_way(stage: Stage, way: str) -> None:
    """It is sent to all, its text is written on, or it goes."""
    page = next(STATES["message-rejected"](stage))
    page.click(".msg.bad .btn", way)
    gone(page, ".msg.bad")
    text = "translate the summary into Portuguese"
    if way == "Send to everyone":
        gone(page, ".msg.pending")
        page.tab.until(f"[...document.querySelectorAll('.msg .body')].at(-1).innerText.includes('{text}')")
    else:
        page.tab.until(f"document.querySelector('#message').value.includes('{text}') === {json.dumps(way == 'Edit')}")


def test_counts_wait_for_the_server(stage: Stage) -> None:
    """A message that is on its way shows, and is not counted before the server has it."""
    page = next(STATES["agent"](stage))
    before = int(figure(page, "Messages sent").replace(",", ""))
    pending = STATES["message-pending"](stage)
    page = next(pending)
    assert int(figure(page, "Messages sent").replace(",", "")) == before
    next(pending, None)
    page.tab.until(f"document.querySelector('.stats dd').textContent.replace(',', '') === '{before + 1}'")


def test_what_is_written_offline_waits_and_is_sent_once_in_its_order(stage: Stage, hub: TeamHub) -> None:
    """It says that it waits, and the banner how many do."""
    waiting = STATES["message-waiting"](stage)
    page = next(waiting)
    page.focus("#message")
    page.write("And the day after.")
    page.press("Enter", code=13, text="\r")
    page.shows("2 waiting", within=".banner")
    next(waiting, None)
    gone(page, ".banner")
    bodies = "[...document.querySelectorAll('.msg .body')].slice(-2).map((one) => one.innerText)"
    page.tab.until(f"{bodies}.join() === 'I ask them again tomorrow.,And the day after.'")
    sent = hub.call("messages.get_all", token=hub.log_in(), agent_id=ADA)["items"][:2]
    assert [message["body"] for message in sent] == ["And the day after.", "I ask them again tomorrow."]


def test_a_match_appears_by_itself(show: OPEN, hub: TeamHub) -> None:
    """Whoever looks for what nobody says sees it once somebody does, and may look at messages alone."""
    page = show(path="/search?q=marzipan")
    page.shows("Nothing says", within=".page")
    hub.call("messages.send", token=hub.log_in(), from_agent_id=ADA, body="There is marzipan in the kitchen.")
    page.shows("There is marzipan in the kitchen.", within=".res")
    page.click(".seg button", "Memories")
    page.shows("Nothing says", within=".page")
    page.click(".seg button", "Messages")
    page.is_there(".hit mark")


def test_many_changes_at_once_are_counted_and_told_in_one_sentence(show: OPEN, hub: TeamHub) -> None:
    """None of them is tinted; a screen reader hears how many there are."""
    page = show()
    page.is_there(".agents a.tr")
    page.shows("Live", within=".side")
    page.tab.evaluate(
        "new MutationObserver(() => { const text = document.querySelector('.bar').innerText;"
        " if (/ changed/.test(text)) globalThis.counted = [text, document.querySelectorAll('.tr.changed').length]; })"
        ".observe(document.body, { subtree: true, childList: true, characterData: true, attributes: true })"
    )
    hub.write("UPDATE agent SET role = role || ' at large' WHERE organization_id = 'org-01'")
    counted, marked = page.tab.until("globalThis.counted")
    assert "20 changed" in counted
    assert marked == 0
    page.tab.until(
        "[...document.querySelectorAll('[role=status]')].some((one) => one.textContent === '20 agents changed')"
    )
    hub.write("UPDATE agent SET role = replace(role, ' at large', '') WHERE organization_id = 'org-01'")


def test_what_has_failed_is_asked_for_again_by_a_press(stage: Stage) -> None:
    """And its details can be taken along."""
    failing = STATES["agents-error"](stage)
    page = next(failing)
    page.tab.evaluate("navigator.clipboard.writeText = async (text) => { globalThis.copied = text; }; 0")
    page.click(".blank .btn", "Copy details")
    page.shows("Copied")
    copied = json.loads(page.tab.evaluate("globalThis.copied"))
    assert copied["code"] == "INTERNAL_SERVER_ERROR"
    assert copied["requestId"]
    next(failing, None)
    page.click(".blank .btn", "Try again")
    page.is_there(".agents a.tr")


def test_a_lost_connection_is_tried_at_once_by_a_press(stage: Stage) -> None:
    """The page is live again, without a word that it is old."""
    losing = STATES["agents-reconnecting"](stage)
    page = next(losing)
    next(losing, None)
    page.tab.evaluate("document.querySelector('.banner .btn')?.click()")
    page.shows("Live", within=".side")
    gone(page, ".banner")
    gone(page, ".chip.stale")


def test_the_appearance_is_chosen_and_kept_and_somebody_logs_out(stage: Stage) -> None:
    """A reload has it before anything shows; whoever logs out sees the login."""
    page = next(STATES["more"](stage))
    page.click("dialog .seg button", "Dark")
    assert page.tab.evaluate("document.documentElement.dataset.theme") == "dark"
    page.tab.reload()
    page.is_there(".agents a.tr")
    assert page.tab.evaluate("document.documentElement.dataset.theme") == "dark"
    page = next(STATES["more"](stage))
    page.click("dialog .it", "Log out")
    page.is_there("#password")
    gone(page, ".agents")
