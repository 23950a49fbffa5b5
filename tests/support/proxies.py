"""Caddy as a process of the tests' own, before servers of this machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from reactive_rpc.testing.ports import free_port, listens
from tests.support.processes import Process, answers, script

__all__ = ["Caddy", "balancing_among"]

_CONFIGURATION = """\
{{
    admin off
    auto_https off
    persist_config off
    grace_period 1s
    log {{
        level ERROR
    }}
}}
http://127.0.0.1:{port} {{
    bind 127.0.0.1
{directives}
}}
"""


class Caddy(Process):
    """Caddy, on a port that stays its own.

    Args:
        folder: for its configuration and its log.
        directives: what it does with requests, as a Caddyfile says it.
        asks: the path that is answered with 200 once it works; without one, it works once it listens.
    """

    def __init__(self, folder: Path, directives: str, *, asks: str | None = None) -> None:
        self.port = port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        configuration = folder / "Caddyfile"
        configuration.write_text(_CONFIGURATION.format(port=port, directives=directives))
        super().__init__(
            script("caddy"), "run", "--adapter", "caddyfile", "--config", str(configuration),
            log=folder / "caddy.log", environment={"HOME": str(folder)},
            works=lambda: listens(port) if asks is None else answers(port, asks),
        )  # fmt: skip


def balancing_among(ports: Sequence[int], *options: str, policy: str = "round_robin") -> str:
    """Return the directives by which Caddy takes servers by a policy, and leaves one out that has just failed."""
    upstreams = " ".join(f"127.0.0.1:{port}" for port in ports)
    return "\n".join([f"reverse_proxy {upstreams} {{", f"lb_policy {policy}", "fail_duration 1s", *options, "}"])
