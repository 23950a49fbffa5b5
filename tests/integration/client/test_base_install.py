"""The package without extras: the generated client works where neither FastAPI nor SQLAlchemy is installed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from .teamhub import EMAIL, PASSWORD, Served

REPOSITORY = Path(__file__).parents[3]

USE = """
import importlib.util, sys
from generated_client import SyncTeamHub

for name in ("fastapi", "starlette", "sqlalchemy", "sqlmodel", "redis", "typer"):
    assert importlib.util.find_spec(name) is None, name
url, email, password = sys.argv[1:]
with SyncTeamHub(url) as hub:
    hub.login(username=email, password=password)
    agent = hub.agents.create(name="Before")
    with hub.agents.get_one.watch(agent_id=agent.id) as live:
        next(state for state in live if not state.is_stale)
        hub.agents.update(agent_id=agent.id, name="After")
        print(next(state for state in live if not state.is_stale and state.data.name == "After").data.name)
"""


def test_the_client_needs_the_base_package_alone(shared: Served, tmp_path: Path) -> None:
    """A plain `pip install` of the repository, and a copy of the generated client, call and watch the real server."""
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(REPOSITORY / name, source)
    shutil.copytree(REPOSITORY / "reactive_rpc", source / "reactive_rpc", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(REPOSITORY / "generated_client", tmp_path / "work" / "generated_client")
    (tmp_path / "work" / "use.py").write_text(USE)

    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "venv")], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    # The pip of this environment installs into the other one, which saves putting one there.
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-compile", str(source)]
    subprocess.run(pip, check=True)
    answer = subprocess.run(
        [str(python), "-W", "error", "use.py", shared.url, EMAIL, PASSWORD],
        cwd=tmp_path / "work",
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (answer.returncode, answer.stdout) == (0, "After\n"), answer.stderr
