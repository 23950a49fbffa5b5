"""Show a decorator's options in the reference as parameters, with their defaults.

`define_reactive_function(**options: Unpack[GivenOptions])` is how a type checker learns of them; a reader of the
reference wants them in the signature. MkDocs hands this to Griffe, which reads the package.
"""

from __future__ import annotations

from typing import Any, Final

import griffe

__all__ = ["SpelledOptions"]

MODULE: Final = "procedures.procedure"
DECORATOR: Final = "define_reactive_function"
OPTIONS: Final = "procedures.options.ProcedureOptions"


class SpelledOptions(griffe.Extension):
    """Replaces `**options` by the fields of the dataclass that checks them."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Change the decorator's signature, and those of its overloads, once the package is read."""
        module = pkg[MODULE]
        for function in [module[DECORATOR], *module[DECORATOR].overloads]:
            if (given := function.parameters[len(function.parameters) - 1]).kind is griffe.ParameterKind.var_keyword:
                del function.parameters[given.name]
                for option in pkg[OPTIONS].attributes.values():
                    function.parameters.add(
                        griffe.Parameter(
                            option.name,
                            annotation=option.annotation,
                            kind=griffe.ParameterKind.keyword_only,
                            default=option.value,
                        )
                    )
