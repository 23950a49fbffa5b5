"""A deployment on one machine, real in every part, and what can befall each.

    clients - front link - balancer (Caddy) - a link each - workers - a link each - database, Redis
                                                            relays  - a link each - database, Redis

Writers reach the database by no link: they go on while others are cut off from it.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Literal

import psycopg
from sqlalchemy import make_url

from reactive_rpc.testing.postgresql import PostgreSQLServer, postgresql_server
from reactive_rpc.testing.redis import RedisServer, redis_server
from tests.support.accounts import fill
from tests.support.processes import Process, send_to_all
from tests.support.waiting import wait_until

from .books import Commit
from .database import ACCOUNTS, truth_of
from .processes import Balancer, Links, Relay, Worker, Writer

__all__ = ["FAULTS", "HEARTBEAT_SECONDS", "Component", "Deployment", "Fault", "Tier", "components", "deployed"]

Tier = Literal["sqlite", "postgresql", "redis"]
"""On what the workers stand: a file; a server; a server, which one relay reads, and Redis, which they read."""

Component = Literal["worker", "relay", "redis", "postgresql", "proxy", "client"]
Fault = Literal["kill", "stop", "cut", "restart"]
FAULTS: tuple[Fault, ...] = ("kill", "stop", "cut", "restart")

HEARTBEAT_SECONDS = 1.0
WORKERS = 2
RELAYS = 2
WRITERS = 2

_COMPONENTS: dict[Tier, tuple[Component, ...]] = {
    "sqlite": ("worker", "proxy", "client"),
    "postgresql": ("worker", "postgresql", "proxy", "client"),
    "redis": ("worker", "relay", "redis", "postgresql", "proxy", "client"),
}

_SETTINGS = {
    "REACTIVE_RPC_ENVIRONMENT": "production",
    "REACTIVE_RPC_HEARTBEAT_SECONDS": str(HEARTBEAT_SECONDS),
    "REACTIVE_RPC_RECONNECT_MILLISECONDS": "[100, 500]",
    "REACTIVE_RPC_STREAM_OPENS_PER_SECOND": "1000",
    "REACTIVE_RPC_STREAM_QUEUE_EVENTS": "64",
    "REACTIVE_RPC_RELAY": "false",
}
"""Of every worker: clients come back soon, so that trials are short, and a stalled one is past its bound soon."""


def components(tier: Tier) -> tuple[Component, ...]:
    """Return the parts of a tier that can fail."""
    return _COMPONENTS[tier]


class Deployment:
    """The parts of one deployment.

    Attributes:
        url: where clients find it.
        writers: processes that write.
    """

    def __init__(self, stack: ExitStack, tier: Tier, folder: Path, settings: Mapping[str, str]) -> None:
        self._stack = stack
        self._folder = folder
        self._links = Links()
        stack.callback(self._links.close)
        self._postgresql: PostgreSQLServer | None = None
        self._redis: RedisServer | None = None
        self._names: dict[str, list[str]] = {"database": [], "redis": [], "worker": []}
        if tier == "sqlite":
            self._database = f"sqlite+aiosqlite:///{folder / 'faults.db'}"
        else:
            self._postgresql = stack.enter_context(postgresql_server(durable=True))
            self._database = self._postgresql.new_database()
        if tier == "redis":
            self._redis = stack.enter_context(redis_server())
        self._settings = {**_SETTINGS, **settings}
        self._relays: list[Relay] = []
        self.workers = [Worker(name, folder, self._environment(name)) for name in _numbered("worker", WORKERS)]
        if self._redis is not None:
            self._relays = [Relay(name, folder, self._environment(name)) for name in _numbered("relay", RELAYS)]
            for relay in self._relays:
                self._start(relay)
        for worker in self.workers:
            self._start(worker)
        fill(self._database, ACCOUNTS)
        fronts = [self._link(f"worker{number}", worker.port, "worker") for number, worker in enumerate(self.workers)]
        self.balancer = Balancer(folder, fronts)
        self._start(self.balancer)
        self.url = f"http://127.0.0.1:{self._links.open('front', self.balancer.port)}"
        self.writers = [Writer(self._database, number, WRITERS) for number in range(WRITERS)]
        for writer in self.writers:
            stack.callback(writer.close)

    def truth(self) -> dict[int, int]:
        """Return what stands in the database."""
        return truth_of(self._database)

    def commits(self) -> list[Commit]:
        """Return what was committed since the writers were last told to go, in the order of acknowledgements."""
        found = [commit for writer in self.writers for commit in tuple(writer.commits)]
        return sorted(found, key=lambda commit: commit.acknowledged)

    def break_(self, component: Component, fault: Fault) -> Callable[[], None]:
        """Have something befall a part and return what mends it. Killed and restarted parts are back at once."""
        match component, fault:
            case "client", _:
                return self._break_links(["front"], fault)
            case "proxy", "cut":
                return self._break_links(["front", *self._names["worker"]], fault)
            case "postgresql", "cut":
                return self._break_links(self._names["database"], fault)
            case "redis", "cut":
                return self._break_links(self._names["redis"], fault)
            case "worker", "cut":
                return self._break_links(self._names_of("worker0"), fault)
            case "relay", "cut":
                return self._break_links(self._names_of(self._leader()[0]), fault)
            case "postgresql", _:
                assert self._postgresql is not None
                return _break_server(self._postgresql, fault)
            case "redis", _:
                assert self._redis is not None
                return _break_server(self._redis, fault)
            case "worker", _:
                return _break_process(self.workers[0], fault)
            case "relay", _:
                return _break_process(self._leader()[1], fault)
            case "proxy", _:
                return _break_process(self.balancer, fault)

    def _break_links(self, names: Sequence[str], fault: Fault) -> Callable[[], None]:
        """Reset them, stall them, tear them and refuse others, or end them in order."""
        if fault == "kill":
            self._links.command("reset", names)
        elif fault == "restart":
            self._links.command("end", names)
        elif fault == "stop":
            self._links.command("stall", names)
        elif names == ["front"]:
            self._links.command("tear", names)
        else:
            self._links.command("refuse", names)
        return lambda: self._links.command("heal", names)

    def _names_of(self, part: str) -> list[str]:
        """Return all links of a part."""
        return [name for names in self._names.values() for name in names if name.split("-")[0] == part]

    def _leader(self) -> tuple[str, Relay]:
        """Return the relay that leads: the one whose connection holds the session's advisory lock."""
        wait_until(lambda: bool(self._holders()), "no relay leads")
        name = self._holders()[0]
        return name, self._relays[int(name.removeprefix("relay"))]

    def _holders(self) -> list[str]:
        dsn = make_url(self._database).set(drivername="postgresql").render_as_string(hide_password=False)
        with psycopg.connect(dsn) as connection:
            rows = connection.execute(
                "SELECT client_port FROM pg_locks JOIN pg_stat_activity USING (pid)"
                " WHERE locktype = 'advisory' AND granted"
            ).fetchall()
        owners = [self._links.owner(port) or "" for (port,) in rows]
        return [owner.split("-")[0] for owner in owners if owner.startswith("relay")]

    def _environment(self, name: str) -> dict[str, str]:
        """Return the environment of a worker or relay, which reaches everything by links of its own."""
        environment = {**self._settings, "FAULTS_URL": self._database}
        if self._postgresql is not None:
            port = self._link(f"{name}-database", self._postgresql.port, "database")
            environment["FAULTS_URL"] = make_url(self._database).set(port=port).render_as_string(hide_password=False)
        if self._redis is not None:
            port = self._link(f"{name}-redis", self._redis.port, "redis")
            environment["REACTIVE_RPC_REDIS_URL"] = f"redis://127.0.0.1:{port}/0"
            environment["REACTIVE_RPC_BUILD"] = "faults"
        return environment

    def _link(self, name: str, to: int, kind: str) -> int:
        self._names[kind].append(name)
        return self._links.open(name, to)

    def _start(self, process: Process) -> None:
        self._stack.enter_context(process)


def _break_process(process: Process, fault: Fault) -> Callable[[], None]:
    if fault == "stop":
        process.pause()
        return process.resume
    if fault == "kill":
        process.end(signal.SIGKILL)
    else:
        process.end()
    process.start()
    return lambda: None


def _break_server(server: PostgreSQLServer | RedisServer, fault: Fault) -> Callable[[], None]:
    if fault == "stop":
        pid = server.pid
        send_to_all(pid, signal.SIGSTOP)
        return lambda: send_to_all(pid, signal.SIGCONT)
    server.stop(how="kill" if fault == "kill" else "fast")
    server.start()
    return lambda: None


def _numbered(name: str, how_many: int) -> list[str]:
    return [f"{name}{number}" for number in range(how_many)]


@contextmanager
def deployed(
    tier: Tier, folder: Path, *, bug: str = "", settings: Mapping[str, str] | None = None
) -> Iterator[Deployment]:
    """Run a deployment for as long as the block runs.

    Args:
        bug: put into every worker, see `served.py`.
        settings: further variables of their environment.
    """
    with ExitStack() as stack:
        yield Deployment(stack, tier, folder, {**(settings or {}), "FAULTS_BUG": bug})
