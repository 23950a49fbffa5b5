"""The servers that tests are given: they end quietly, and with whoever started them, however that ends."""

from __future__ import annotations

import logging
import signal
import threading
from pathlib import Path

import httpx
import psutil  # type: ignore[import-untyped]  # it ships no types
import pytest

from reactive_rpc.testing import running
from tests.support.processes import Conversation
from tests.support.waiting import wait_until

from .rooms import app_of, rpc_on
from .streams import DEADLINE_SECONDS, in_rooms

SERVERS = {
    "postgresql": "from reactive_rpc.testing.postgresql import postgresql_server as server",
    "redis": "from reactive_rpc.testing.redis import redis_server as server",
}
START = """
{server}
import signal
with server() as running:
    print(running.pid, running.folder, flush=True)
    signal.pause()
"""
SERVING = """
from reactive_rpc.testing import serving
import psutil, signal
with serving("served_nothing:app", folder={folder!r}):
    [child] = [each for each in psutil.Process().children() if "uvicorn" in each.cmdline()]
    print(child.pid, {folder!r}, flush=True)
    signal.pause()
"""


def started(script: str) -> tuple[Conversation, psutil.Process, Path]:
    """Run a script that starts a server; return its process, the server's, and the server's folder."""
    process = Conversation("-c", script)
    pid, folder = process.receive().split()
    return process, psutil.Process(int(pid)), Path(folder)


def is_gone(process: psutil.Process) -> bool:
    """Tell whether a process runs no more; one that nobody waits for may remain as a zombie."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True  # it went between the two questions


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["terminated", "killed"])
@pytest.mark.parametrize("name", SERVERS)
def test_a_server_ends_with_whoever_started_it(name: str, number: signal.Signals) -> None:
    """No process is left behind, and no file."""
    process, server, folder = started(START.format(server=SERVERS[name]))
    process.kill(number)
    process.close()
    wait_until(lambda: is_gone(server) and not folder.exists())


def test_a_served_application_ends_with_whoever_serves_it(tmp_path: Path) -> None:
    """Killed, it cannot say so."""
    (tmp_path / "served_nothing.py").write_text("from fastapi import FastAPI\napp = FastAPI()\n")
    process, server, folder = started(SERVING.format(folder=str(tmp_path)))
    process.close()
    wait_until(lambda: is_gone(server))
    assert folder.exists()


def test_a_stream_that_is_open_at_the_end_is_cut_quietly(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Its client sees the connection break; nothing is logged as an error."""
    heard: list[bytes] = []

    def listen(url: str) -> None:
        with (
            pytest.raises(httpx.RemoteProtocolError),
            httpx.stream("POST", f"{url}/rpc/events", json=in_rooms("r"), timeout=DEADLINE_SECONDS) as stream,
        ):
            heard.extend(stream.iter_bytes())

    with caplog.at_level(logging.WARNING):
        with running(app_of(rpc_on(file)), goodbye_seconds=0) as url:
            listening = threading.Thread(target=listen, args=(url,))
            listening.start()
            wait_until(lambda: httpx.get(f"{url}/rpc/metrics").text.count("reactive_rpc_streams 1.0") == 1)
        listening.join()
    assert not caplog.records
