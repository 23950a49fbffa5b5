"""nginx with the module nchan, where it is installed (Debian: libnginx-mod-nchan), in a folder of its own."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.processes import Process, started

__all__ = ["is_installed", "nchan"]

MODULE = Path("/usr/lib/nginx/modules/ngx_nchan_module.so")

_CONFIGURATION = """\
load_module {module};
{user}
daemon off;
worker_processes 1;
worker_rlimit_nofile {files};
pid {folder}/nginx.pid;
error_log stderr error;
events {{ worker_connections {files}; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    nchan_shared_memory_size 256m;
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location = /publish {{ nchan_publisher; nchan_channel_id bench; }}
        location = /events {{
            nchan_subscriber eventsource;
            nchan_channel_id bench;
            nchan_subscriber_first_message newest;
        }}
    }}
}}
"""


def is_installed() -> bool:
    """Tell whether there is an nginx with nchan."""
    return shutil.which("nginx") is not None and MODULE.exists()


@contextmanager
def nchan(folder: Path, port: int, *, files: int) -> Iterator[Process]:
    """Run nginx in the foreground until the block ends, and give its one worker process."""
    folder.mkdir(exist_ok=True)
    user = "user root;" if os.geteuid() == 0 else ""
    configuration = folder / "nginx.conf"
    configuration.write_text(_CONFIGURATION.format(module=MODULE, user=user, folder=folder, port=port, files=files))
    with started(["nginx", "-p", str(folder), "-c", str(configuration)], port) as master:
        yield Process(_worker_of(master.pid))


def _worker_of(pid: int) -> int:
    give_up_at = time.monotonic() + 5.0
    while time.monotonic() < give_up_at:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        if children:
            return int(children[0])
        time.sleep(0.01)
    raise RuntimeError("nginx started no worker process")
