"""Ports of this machine for servers of tests, which must still be free when a server comes to listen on them."""

from __future__ import annotations

import random
import socket
from contextlib import ExitStack, suppress
from typing import Final

__all__ = ["free_port", "listens"]

_PORTS: Final = range(10_000, 30_000)
"""Below those that a system gives to connections that go out: one stays free while its server is started again."""


def free_port(*, also: int = 0) -> int:
    """Return a port of 127.0.0.1 that nobody listens on; if `also` is given, the one that much higher is free too."""
    while True:
        port = random.SystemRandom().choice(_PORTS)
        with suppress(OSError), ExitStack() as stack:
            for wanted in {port, port + also}:
                stack.enter_context(socket.create_server(("127.0.0.1", wanted)))
            return port


def listens(port: int) -> bool:
    """Tell whether somebody accepts connections to a port of 127.0.0.1."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
