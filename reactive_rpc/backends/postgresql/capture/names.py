"""Names and literals as SQL."""

from __future__ import annotations

__all__ = ["literal", "quoted"]


def quoted(*names: str) -> str:
    """Return names as one qualified SQL identifier.

    >>> quoted("sales", 'a"b')
    '"sales"."a""b"'
    """
    return ".".join('"' + name.replace('"', '""') + '"' for name in names)


def literal(text: str) -> str:
    r"""Return `text` as an SQL literal, whatever `standard_conforming_strings` says.

    >>> literal("it's"), literal("a\\b")
    ("'it''s'", " E'a\\\\b'")
    """
    doubled = text.replace("'", "''")
    return f"'{doubled}'" if "\\" not in text else " E'" + doubled.replace("\\", "\\\\") + "'"
