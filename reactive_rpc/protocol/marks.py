"""Marks: the words of a schema in our OpenAPI document for a value for which JSON has no type of its own.

`format` if a format is registered (`decimal`, `date-time`, `date`, `time`, `duration`, `uuid`, `ipv4`, `ipv6`),
`x-reactive-type` for the rest. The server writes them, the generators read them and nothing else: no pattern, no order
of branches. `docs/explanation/types.md` has the whole table; one vocabulary serves every language.
"""

from __future__ import annotations

from typing import Final

__all__ = ["ENUM_NAMES", "FILE", "KEYS", "MAY_LACK", "PAGE", "TYPE", "URL"]

TYPE: Final = "x-reactive-type"
"""The name of the type; the part behind a colon narrows it and may be ignored (`url:HttpUrl`)."""

KEYS: Final = "x-reactive-keys"
"""The schema of an object's keys if they are no plain texts: JSON spells `{1: x}` as `{"1": x}`."""

MAY_LACK: Final = "x-reactive-may-lack"
"""True of a field that a result may lack. It has all others, those with a default too, whatever `required` says."""

ENUM_NAMES: Final = "x-enum-varnames"
"""The names of an enum's members, in the order of its values."""

URL: Final = "url"

NAIVE: Final = "naive-datetime"
"""The type of a moment without a zone, which a language whose moments all have one cannot hold."""

FILE: Final = "file"
"""The type of a part of a multipart body that is no JSON."""

PAGE: Final = "page"
"""The type of an object that is a page of a list: `items` and `next`."""
