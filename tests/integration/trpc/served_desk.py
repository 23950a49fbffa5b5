"""The desk as a process of its own.

`DESK_DB=... uvicorn --factory tests.integration.trpc.served_desk:make_app`
"""

from __future__ import annotations

import os
from pathlib import Path

from fastapi import FastAPI

from .desk import rpc_on


def make_app() -> FastAPI:
    """Return the application on the file that `DESK_DB` names."""
    rpc = rpc_on(Path(os.environ["DESK_DB"]), settings={"heartbeat_seconds": 1.0, "reconnect_milliseconds": (50, 100)})
    app = FastAPI(lifespan=rpc.lifespan)
    app.include_router(rpc.router)
    return app
