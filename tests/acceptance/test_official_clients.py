"""tRPC's own clients against TeamHub: typed by the generated `AppRouter`, and with TanStack Query on top."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from app.seed import EMAIL, PASSWORD, seed
from app.server_process import serving
from tests.integration.trpc.test_restarts import Listener
from tests.support.node import TYPESCRIPT, node_command, run_node
from tests.support.processes import Process, Uvicorn
from tests.support.ways import Way

PROGRAMS = {
    "newest": "trpc/teamhub.ts",
    "11.22.1": "trpc_11_22/teamhub_pinned.ts",
    "TanStack Query": "trpc_11_22/tanstack.ts",
    "hooks of React": "trpc_11_22/hooks_teamhub.ts",
}


SECRET = {"TEAMHUB_SECRET": "a secret of the tests, long enough for HS256"}


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    database = tmp_path_factory.mktemp("teamhub") / "teamhub.db"
    seed(database)
    with serving(database, environment=SECRET) as served:
        yield served


@pytest.mark.parametrize("program", PROGRAMS)
def test_an_unmodified_client_works(program: str, url: str) -> None:
    """Every link, batches, streams, subscriptions, refusals; and queries that a commit of another has changed."""
    assert run_node(TYPESCRIPT / PROGRAMS[program], url, EMAIL, PASSWORD).splitlines() == ["all is right"]


def test_a_client_that_listens_goes_on_whatever_happens_to_the_server(tmp_path: Path) -> None:
    """It is killed and started again, its connections are cut, it says nothing for a while: each message comes once."""
    database, log = tmp_path / "teamhub.db", tmp_path / "client.log"
    seed(database)
    log.touch()
    server = Uvicorn(
        "app.main:app", environment={"TEAMHUB_DATABASE": str(database), "REACTIVE_RPC_HEARTBEAT_SECONDS": "1", **SECRET}
    )
    program = TYPESCRIPT / "trpc/teamhub_listening.ts"
    with server, Way(server.port) as way:
        token = httpx.post(f"{server.url}/login", data={"username": EMAIL, "password": PASSWORD}).json()["access_token"]
        client = httpx.Client(base_url=f"{server.url}/trpc", headers={"authorization": f"Bearer {token}"})
        command = node_command(program, way.url, EMAIL, PASSWORD)
        with client, Process(*command, log=log, cwd=TYPESCRIPT):
            page = Listener(log)
            page.hears_all("agents New", "messages pending")
            agent = log.read_text().splitlines()[0]

            def write(body: str) -> None:
                client.post("/messages.send", json={"from_agent_id": agent, "body": body}).raise_for_status()
                client.post("/agents.update", json={"agent_id": agent, "name": f"New {body}"}).raise_for_status()

            write("one")
            page.hears_all("message one", "agents New one")
            server.close()
            server.start()
            write("two")
            page.hears_all("message two", "agents New two")
            way.cut()
            page.hears_all("messages connecting", "changes connecting")
            write("three")
            way.mend()
            page.hears_all("message three", "agents New three")
            server.pause()
            page.hears_all("messages connecting", "changes connecting")
            server.resume()
            write("four")
            page.hears_all("message four", "agents New four")
    said = log.read_text().splitlines()
    assert [line for line in said if line.startswith("message ")] == [
        f"message {n}" for n in ("one", "two", "three", "four")
    ]
    assert not [line for line in said if line.startswith("ended")]
