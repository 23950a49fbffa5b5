"""What a call claims under an idempotency key."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from reactive_rpc import BadRequestError, Context, Login
from reactive_rpc.changes.answers import Claim
from reactive_rpc.procedures.idempotency import claim_of

KEY = "8e03978e-40d5-43dd-bc93-6894a57f9324"
ADA = Login(identity="ada", tenant="t")


def claimed(ctx: object = ADA, *, path: str = "notes.add", key: str = KEY, body: bytes = b'{"a": 1}') -> Claim:
    return claim_of(path, ctx, key, body)


@dataclass(frozen=True)
class Token:
    token: str


@dataclass(frozen=True)
class Member(Login):
    role: str = "member"
    session: float = 0.0


def test_a_key_is_of_path_and_caller() -> None:
    """Path, key, identity and tenant tell claims apart, and an anonymous caller's whole context."""
    others = [
        claimed(path="notes.addx"),
        claimed(key=KEY + "x"),
        claimed(Login(identity="bob", tenant="t")),
        claimed(Login(identity="ada", tenant="u")),
        claimed(None),
        claimed(Token("1")),
        claimed(Token("2")),
        claimed(Context()),
    ]
    assert len({each.key for each in (claimed(), *others)}) == len(others) + 1


def test_the_same_caller_after_a_refresh() -> None:
    """A new expiry, or another role, does not make another caller of whom the context names."""
    assert claimed(Member(identity="ada", session=1.0)) == claimed(Member(identity="ada", session=2.0, role="x"))


@pytest.mark.parametrize("body", [b'{"b": [1, 2], "a": 1}', b' {"a":1,"b":[1,2]}'])
def test_one_input_in_several_spellings(body: bytes) -> None:
    """The order of names and white space mean nothing."""
    assert claimed(body=body).input == claimed(body=b'{"a": 1, "b": [1, 2]}').input


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (b"[1, 2]", b"[2, 1]"),
        (b"1.0", b"1.00000000000000000001"),
        (b"18446744073709551617", b"18446744073709551616"),
        (b"1.0", b'"1.0"'),
        (b"{}", b"null"),
    ],
)
def test_inputs_that_differ(one: bytes, other: bytes) -> None:
    """Numbers are told apart as they are spelled: a Decimal or a long integer has more digits than a float."""
    assert claimed(body=b'{"a": %b}' % one).input != claimed(body=b'{"a": %b}' % other).input


def test_no_input_is_an_empty_one() -> None:
    """As it is where the input is decoded."""
    assert claimed(body=b"").input == claimed(body=b"{}").input


@pytest.mark.parametrize(("ctx", "key"), [(ADA, ""), (ADA, "x" * 256), (ADA, "a\nb"), (ADA, "ü"), (None, "x" * 19)])
def test_what_is_no_key(ctx: object, key: str) -> None:
    """It is refused before anything runs."""
    with pytest.raises(BadRequestError, match="idempotency key"):
        claimed(ctx, key=key)
