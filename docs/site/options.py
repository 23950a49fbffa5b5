"""Show the options of procedures in the reference as parameters, with their types.

`Definer` documents each option by its kind, and typed dictionaries (`**options: Unpack[QueryOptions]`) have their
types: a type checker learns of them there. A reader of the reference wants them in one place. MkDocs hands this to
Griffe, which reads the package.
"""

from __future__ import annotations

import re
from typing import Any, Final

import griffe

__all__ = ["TypedOptions"]

DEFINER: Final = "procedures.definer.Definer"
OPTIONS: Final = tuple(f"procedures.options.{kind}Options" for kind in ("Common", "Query", "Mutation"))

_HEADING: Final = re.compile(r"^(Options of [^:]+):$", re.MULTILINE)
_OPTION: Final = re.compile(r"^    ([a-z_]+): ", re.MULTILINE)


class TypedOptions(griffe.Extension):
    """Makes of `Options of a query:` in the definer's docstring a section of parameters."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Change the docstring once the package is read.

        Raises:
            KeyError: an option has no type.
        """
        types = {name: option.annotation for kind in OPTIONS for name, option in pkg[kind].attributes.items()}
        docstring = pkg[DEFINER].docstring
        text = _HEADING.sub(r"Other Parameters: \1", docstring.value)
        docstring.value = _OPTION.sub(lambda option: f"    {option[1]} ({types[option[1]]}): ", text)
