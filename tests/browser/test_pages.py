"""What a page may be: large, and under a policy that refuses everything but its own files."""

from __future__ import annotations

from tests.support.browser import Chromium, Context
from tests.support.teamhub import TeamHub

ORGANIZATION = "org-05"
ROWS = 500
INSERT = """
WITH RECURSIVE number(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < ?)
INSERT INTO agent (id, organization_id, name, role, description, is_active, created_at)
SELECT 'row-' || n, ?, 'Row ' || n, 'tester', 'A row among many.', 1, '2026-01-01 00:00:00.000000' FROM number
"""
TEXT = "document.getElementById('row-250').textContent"


def test_of_500_rows_the_one_that_changed_is_rendered_again(hub: TeamHub, browser: Context) -> None:
    """The others keep their objects, dates and all, so that React leaves them out."""
    hub.write("DELETE FROM agent WHERE organization_id = ?", ORGANIZATION)
    hub.write(INSERT, ROWS, ORGANIZATION)
    tab = browser.tab(hub.page("rows", token=hub.log_in("ada@org-05.example")))
    tab.until(f"rows.size === {ROWS} && page.hub.status.state === 'live'")
    tab.evaluate("""{
      globalThis.before = new Map([...rows].map(([id, row]) => [id, { ...row }]));
      longTasks.length = 0;
    }""")
    for role in ("first", "second", "third"):
        hub.write("UPDATE agent SET role = ? WHERE id = 'row-250'", role)
        tab.until(f"{TEXT}.includes('{role}')")
    changed = (
        "[...rows].filter(([id, { count, agent }]) => count !== before.get(id).count || agent !== before.get(id).agent)"
    )
    assert tab.evaluate(f"{changed}.map(([id]) => id)") == ["row-250"]
    assert tab.evaluate("rows.get('row-250').count - before.get('row-250').count") == 3
    # How long it takes says nothing on a machine that does other work; `-rP` shows it.
    tab.chromium.note(f"tasks of 50 ms or more, in milliseconds: {tab.evaluate('longTasks')}")


REFUSED = """
(async () => {
  const isReported = new Promise((done) => document.addEventListener('securitypolicyviolation', () => done(true)));
  const attempts = [
    () => setTimeout('globalThis.isEvaluated = true'),
    () => { document.body.innerHTML = '<b style="color: red" onclick="1">x</b>'; },
    () => fetch('http://example.invalid/'),
  ];
  const results = await Promise.allSettled(attempts.map(async (attempt) => attempt()));
  return [globalThis.isEvaluated ?? false, results.map(({ status }) => status), await isReported];
})()
"""


def test_the_policy_of_these_pages_refuses_what_it_should(hub: TeamHub, token: str, chromium: Chromium) -> None:
    """Otherwise it would be no wonder that every page of these tests works under it."""
    context = chromium.new_context()
    tab = context.tab(hub.page(token=token, show=[["agents.get_all"]]))
    tab.until("page.isFresh('agents.get_all')")
    assert context.faults == []
    assert tab.evaluate(REFUSED) == [False, ["rejected", "rejected", "rejected"], True]
    assert context.faults
    context.close()
