"""Which columns say by their name, or by the name of their type, that they hold a secret.

Names are taken apart into words (`reset_token`, `apiKey`); one that tells of a secret rather than holding it
(`token_count`, `password_changed_at`, `has_pin`) does not count. A wrong guess costs precision and nothing else: the
table counts as a whole where such a column is compared. `Capture(images=[...])` overrules it.
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Final

__all__ = ["says_secret", "says_secret_as"]

_WORD: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_SECRET: Final = frozenset({
    "accesskey", "accesstoken", "apikey", "apikeys", "authorization", "authtoken", "bearer", "cardnumber",
    "clientsecret", "cookie", "cookies", "credential", "credentials", "creds", "csrf", "cvc", "cvv", "dsn", "encrypted",
    "hash", "hashed", "hmac", "hotp", "iban", "jwk", "jwt", "kennwort", "keyhash", "mfa", "mnemonic", "nonce", "otp",
    "otpsecret", "pass", "passcode", "passphrase", "passport", "passwd", "password", "passwords", "passwordhash",
    "passwort", "pem", "pepper", "pin", "pincode", "privatekey", "privkey", "pw", "pwd", "pwhash", "refreshtoken",
    "salt", "secret", "secretkey", "secrets", "senha", "ssn", "token", "tokenhash", "tokens", "totp", "userpassword",
    "xsrf",
})  # fmt: skip
_PAIRS: Final = frozenset({
    ("access", "code"), ("access", "key"), ("account", "number"), ("activation", "code"), ("activation", "key"),
    ("api", "key"), ("api", "keys"), ("auth", "code"), ("authorization", "code"), ("backup", "code"),
    ("backup", "codes"), ("bank", "account"), ("card", "no"), ("card", "number"), ("client", "key"),
    ("confirmation", "code"), ("connection", "string"), ("consumer", "key"), ("credit", "card"), ("database", "url"),
    ("deploy", "key"), ("device", "code"), ("door", "code"), ("driver", "license"), ("drivers", "license"),
    ("email", "code"), ("encryption", "key"), ("factor", "code"), ("gpg", "key"), ("invitation", "code"),
    ("invite", "code"), ("license", "key"), ("login", "code"), ("magic", "link"), ("master", "key"), ("national", "id"),
    ("pass", "word"), ("passport", "id"), ("pgp", "key"), ("private", "key"), ("private", "keys"),
    ("recovery", "code"), ("recovery", "codes"), ("reset", "code"), ("reset", "key"), ("reset", "link"),
    ("routing", "number"), ("secret", "id"), ("security", "answer"), ("security", "code"), ("seed", "phrase"),
    ("service", "key"), ("session", "data"), ("session", "key"), ("signing", "key"), ("sms", "code"),
    ("social", "security"), ("ssh", "key"), ("tax", "id"), ("tax", "number"), ("time", "code"), ("unlock", "code"),
    ("verification", "code"), ("webhook", "url"),
})  # fmt: skip
_AS_TEXT: Final = frozenset({"auth", "seed", "session", "session_id", "sessionid", "sid"})
"""Names that say secret of a text: as a number or a UUID they name a row, or seed something."""
_TEXTS: Final = frozenset({"bpchar", "bytea", "blob", "char", "character", "string", "text", "varchar"})
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


def says_secret_as(name: str, type_name: str) -> bool:
    """Tell whether a column of a type says secret by either name.

    >>> says_secret_as("session_id", "VARCHAR(64)"), says_secret_as("session_id", "int8")
    (True, False)
    """
    is_text = type_name.lower().partition("(")[0].strip() in _TEXTS
    return says_secret(name) or says_secret(type_name) or (is_text and name.lower() in _AS_TEXT)
