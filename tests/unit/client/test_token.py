"""The token: it never forgets what was seen, in whatever order the answers come."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reactive_rpc.client.token import Token
from reactive_rpc.protocol.headers import UNKNOWN


def after(*received: str | None) -> Token:
    """Return a token that has learned these, each asked for after the one before had come."""
    token = Token()
    for one in received:
        token.learn(one, era=token.era)
    return token


def test_the_highest_of_an_epoch_counts() -> None:
    """Answers may come in any order; versions are numbers, not text."""
    assert after("e:9", "e:10", "e:2").value == "e:10"
    assert after().value is None


def test_an_answer_of_another_epoch_replaces() -> None:
    """Its versions cannot be compared, and it was asked for with what is held."""
    assert after("e:9", "f:1").value == "f:1"


def test_a_late_answer_of_the_former_epoch_changes_nothing() -> None:
    """It set out before the epoch was heard of."""
    token = after("e:9")
    era = token.era
    token.learn("f:1", era=era)
    token.learn("e:10", era=era)
    assert token.value == "f:1"


def test_what_cannot_be_named_is_sent_until_it_can() -> None:
    """A commit that no version is known for: answers from before it do not make the client forget."""
    token = after("e:9")
    era = token.era
    token.learn(UNKNOWN, era=era)
    token.learn("e:10", era=era)
    assert token.value == UNKNOWN
    token.learn("e:11", era=token.era)
    assert token.value == "e:11"


@pytest.mark.parametrize("nonsense", [None, "", "e", "e:-1", "e:x", "e:1\n"])
def test_what_is_no_cursor_is_ignored(nonsense: str | None) -> None:
    """A proxy's header of that name, for example."""
    assert after("e:9", nonsense).value == "e:9"


@given(st.lists(st.integers(0, 10**12), min_size=1))
def test_the_token_is_the_maximum(versions: list[int]) -> None:
    """Of everything that was seen in one epoch."""
    assert after(*(f"e:{version}" for version in versions)).value == f"e:{max(versions)}"
