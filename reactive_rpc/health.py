"""How the parts of a running server are, by name: what `/health` tells and what a probe acts on.

*Live* means that nothing has died which only a restart brings back. *Ready* means that a request sent here now would be
answered by the promises: the log is being followed, and the server is not about to stop. A worker that cannot read its
database is live and not ready: restarting it would mend nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

__all__ = ["Health", "Part", "Probe"]


@dataclass(frozen=True, slots=True)
class Part:
    """How one part is.

    Attributes:
        ok: whether it does its work.
        detail: what is wrong, or worth knowing; no address and no password.
        is_dead: it will not come back by itself.
    """

    ok: bool
    detail: str = ""
    is_dead: bool = False


Probe = Callable[[], Part]
"""Tells how a part is, at once and without I/O."""


class Health:
    """The probes of one server."""

    def __init__(self) -> None:
        self._probes: dict[str, Probe] = {}

    def add(self, name: str, probe: Probe) -> Callable[[], None]:
        """Ask `probe` for the part called `name`, until the function that is returned is called; that is idempotent."""
        self._probes[name] = probe
        return lambda: self._forget(name, probe)

    def _forget(self, name: str, probe: Probe) -> None:
        if self._probes.get(name) is probe:
            del self._probes[name]

    def parts(self) -> Mapping[str, Part]:
        """Return how each part is; a probe that fails is a part that does not work."""
        return {name: _asked(probe) for name, probe in self._probes.items()}


def _asked(probe: Probe) -> Part:
    try:
        return probe()
    except Exception as exc:  # the other parts can be asked all the same
        return Part(ok=False, detail=f"cannot be asked: {type(exc).__name__}")
