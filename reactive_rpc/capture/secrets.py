"""Which columns say by their name, or by the name of their type, that they hold a secret.

Names are taken apart into words (`reset_token`, `apiKey`); one that tells of a secret rather than holding it
(`token_count`, `password_changed_at`, `has_pin`) does not count. A wrong guess costs precision and nothing else: the
table counts as a whole where such a column is compared. `Capture(images=[...])` overrules it.
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Final

__all__ = ["says_secret"]

_WORD: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_SECRET: Final = frozenset({
    "apikey", "bearer", "credential", "credentials", "cvc", "cvv", "encrypted", "hash", "hashed", "hotp", "iban", "jwt",
    "mnemonic", "nonce", "otp", "passcode", "passphrase", "passwd", "password", "passwords",
    "passwordhash", "pin", "pwd", "salt", "secret", "secrets", "ssn", "token", "tokens", "totp",
})  # fmt: skip
_PAIRS: Final = frozenset({
    ("access", "key"), ("api", "key"), ("backup", "code"), ("backup", "codes"), ("bank", "account"),
    ("card", "number"), ("credit", "card"), ("magic", "link"), ("pass", "word"), ("private", "key"),
    ("recovery", "code"),
    ("recovery", "codes"), ("reset", "code"), ("security", "code"), ("session", "key"), ("signing", "key"),
    ("social", "security"), ("tax", "id"), ("verification", "code"),
})  # fmt: skip
_TELLS_OF: Final = frozenset({
    "at", "attempts", "count", "date", "enabled", "expires", "expiry", "id", "kind", "length", "limit", "name", "on",
    "required", "size", "status", "time", "total", "type", "ttl", "until", "used", "version",
})  # fmt: skip
_ASKS: Final = frozenset({"can", "has", "is", "max", "min", "needs", "num", "requires", "uses", "was"})


def says_secret(name: str) -> bool:
    """Tell whether a name says secret.

    >>> [says_secret(name) for name in ("reset_token", "apiKey", "PasswordType", "totp_secret", "card_number")]
    [True, True, True, True, True]
    >>> [says_secret(name) for name in ("token_count", "password_changed_at", "has_pin", "status", "spinning")]
    [False, False, False, False, False]
    """
    words = [word.lower() for word in _WORD.findall(name)]
    # A type is called what it holds: PasswordType, EncryptedString.
    while len(words) > 1 and words[-1] in ("type", "string", "str", "text") and name[:1].isupper():
        words.pop()
    pairs = set(pairwise(words))
    if not _SECRET.isdisjoint(words) or not _PAIRS.isdisjoint(pairs):
        is_whole = words[-2:] in ([*pair] for pair in _PAIRS)
        return words[0] not in _ASKS and (is_whole or words[-1] not in _TELLS_OF)
    return False
