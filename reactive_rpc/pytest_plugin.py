"""A fixture for the tests of applications, loaded by pytest by itself.

    def test_stats(no_drift):
        no_drift(rpc)
        ...  # call procedures, over HTTP or by rpc.caller()

The test fails at its end where a declaration of a procedure that it called does not hold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

from reactive_rpc.extras import needs

if TYPE_CHECKING:  # pytest loads this module in every run: it must cost nothing until the fixture is asked for
    from reactive_rpc.app import ReactiveRPC
    from reactive_rpc.checking import Checker

__all__ = ["no_drift"]


@pytest.fixture
def no_drift() -> Iterator[Callable[[ReactiveRPC], Checker]]:
    """Return a function to give the `ReactiveRPC` to; the test fails where a declaration of its does not hold.

    Found are tables that are read and not declared, tables that are declared and that no call of the test read, and
    `invalidate_when` predicates that ignored a change which altered the result. The last are tried in the background,
    to the end when the application closes; `await checker.settle()` waits for them before that.
    """
    with needs("server", "no_drift"):
        from reactive_rpc.checking import Checker  # noqa: PLC0415  # as above: only who uses it pays for it

    checkers: list[Checker] = []

    def watch(rpc: ReactiveRPC) -> Checker:
        rpc.admin.auditor.share = 1.0
        checkers.append(Checker(rpc))
        return checkers[-1]

    yield watch
    drifts = [drift for checker in checkers for drift in checker.drifts()]
    if drifts:
        pytest.fail("declarations do not hold:\n" + "\n".join(f"  {drift}" for drift in drifts), pytrace=False)
