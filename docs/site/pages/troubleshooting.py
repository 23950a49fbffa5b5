"""The list of messages: each by the moment at which a user meets it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from pages.messages import LOGGED, NOT_CACHED, PRINTED, Message, Package
from reactive_rpc import errors
from reactive_rpc.errors import RPCError

__all__ = ["SECTIONS", "messages_list", "our_package"]

CLIENT: Final = ("ConnectionFailedError", "WireError", "RuntimeError")

SECTIONS: Final = (
    ("The server does not start: DefinitionError", ("DefinitionError",), "Something is declared wrongly. The message "
     "begins with the function and its place, `get_all (main.py:31): ...`, if it is about a function."),
    ("The server does not start: RuleError", ("RuleError",), "A rule is wrong, or cannot be decided alike everywhere. "
     "The message begins with the model; the last sentence is the way out. It is a `DefinitionError`."),
    ("The server does not start: CaptureError", ("CaptureError", "ReactiveRPCError"), "Writes cannot be "
     "captured on this database. SQL that mends it stands at the end of the message."),
    ("Something is not installed: MissingExtraError", ("MissingExtraError",), "What was asked for needs an extra of "
     "the package; it is an `ImportError`, too."),
    ("A result is not cached", (NOT_CACHED,), "In the log, `... is not cached: it ...`; for a stream, `... cannot be "
     "watched: it ...`. `reactive-rpc doctor` lists such procedures."),
    ("The Python client raises", CLIENT, "What the server answers is raised as its own class: see the codes below."),
    ("A command ends with", (PRINTED,), ""),
    ("In the log", (LOGGED,), ""),
)  # fmt: skip


def our_package() -> Package:
    """Return the package's source, without what is for tests alone."""
    return Package(Path(errors.__file__).parent, leave_out=["testing"])


def messages_list() -> str:
    """Return a section a moment, and then one a code of an answer."""
    messages = our_package().messages()
    moments = [_section(title, intro, messages, kinds) for title, kinds, intro in SECTIONS]
    codes = [
        _section(f"{code}: {error.__name__}", _summary(error), messages, (error.__name__,))
        for code, error in RPCError.by_code.items()
        if any(message.kind == error.__name__ for message in messages)
    ]
    return "\n\n".join([*moments, *codes])


def _section(title: str, intro: str, messages: list[Message], kinds: tuple[str, ...]) -> str:
    items = [f"- {_code(message.text)}" for message in messages if message.kind in kinds]
    return "\n\n".join(filter(None, [f"### {title}", intro, "\n".join(items)]))


def _summary(error: type[RPCError]) -> str:
    return (error.__doc__ or "").partition("\n")[0]


def _code(text: str) -> str:
    """Return a text as code in one line, with more backticks around it than in it."""
    line = " ".join(text.split())
    fence = "``" if "`" in line else "`"
    return f"{fence} {line} {fence}" if fence == "``" else f"{fence}{line}{fence}"
