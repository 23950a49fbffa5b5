"""Anti-buffering: events arrive while the stream stays open, through real proxies with their default settings."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.gzip import GZipMiddleware

from reactive_rpc import ReactiveRPC
from reactive_rpc.testing import running
from reactive_rpc.testing.ports import free_port, listens
from tests.support.processes import Process
from tests.support.proxies import Caddy
from tests.support.waiting import wait_until

from .rooms import app_of, rpc_on
from .streams import DEADLINE_SECONDS, heard, in_rooms, stored

PROXIES = ["caddy", *(["nginx"] if shutil.which("nginx") else [])]

NGINX_CONF = """
daemon off;
pid {folder}/pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    gzip on;
    gzip_proxied any;
    gzip_types *;
    server {{
        listen 127.0.0.1:{port};
        location / {{ proxy_pass http://127.0.0.1:{upstream}; }}
    }}
}}
"""


@contextmanager
def behind(proxy: str, url: str, folder: Path) -> Iterator[str]:
    """Put a proxy before a server and give its URL. nginx speaks HTTP/1.0 to it and buffers, unless told otherwise."""
    upstream = url.rpartition(":")[2]
    if proxy == "caddy":
        with Caddy(folder, f"encode gzip\nreverse_proxy 127.0.0.1:{upstream}") as caddy:
            yield caddy.url
        return
    port, config = free_port(), folder / "nginx.conf"
    config.write_text(NGINX_CONF.format(port=port, upstream=upstream, folder=folder))
    command = ["nginx", "-p", str(folder), "-c", str(config)]
    with Process(*command, log=folder / "nginx.log", works=lambda: listens(port)):
        yield f"http://127.0.0.1:{port}"


def with_gzip(rpc: ReactiveRPC) -> FastAPI:
    app = app_of(rpc)
    app.add_middleware(GZipMiddleware, minimum_size=0)
    return app


def with_a_wrapped_send(rpc: ReactiveRPC) -> FastAPI:
    """Return an application whose every answer goes through a middleware's own queue."""
    app = app_of(rpc)
    app.add_middleware(BaseHTTPMiddleware, dispatch=lambda request, call_next: call_next(request))
    return app


APPS = [app_of, with_gzip, with_a_wrapped_send]


@pytest.mark.parametrize("make_app", APPS)
@pytest.mark.parametrize("proxy", PROXIES)
def test_events_arrive_through_a_proxy_while_the_stream_stays_open(
    tmp_path: Path, proxy: str, make_app: Callable[[ReactiveRPC], FastAPI]
) -> None:
    """`connected` and each invalidation, by POST and by GET, from a client that would take gzip."""
    with running(make_app(rpc_on(tmp_path / "rooms.db"))) as url, behind(proxy, url, tmp_path) as outside:
        name = stored(outside, "a")
        opened = [("POST", f"{outside}/rpc/events", in_rooms("a")), ("GET", f"{outside}/rpc/events?set={name}", None)]
        for method, address, body in opened:
            with heard(address, method, json=body, headers={"accept-encoding": "gzip"}) as stream:
                assert stream.next()[0] == "connected"
                for n in range(2):
                    httpx.post(f"{url}/rpc/notes.add", json={"room": "a", "text": f"{method} {n}"})
                    assert stream.next()[0] == "invalidation"


@pytest.mark.parametrize("proxy", PROXIES)
def test_a_client_that_leaves_a_proxy_is_forgotten(tmp_path: Path, proxy: str) -> None:
    """The proxy hangs up too, and nothing is watched any more; a poll goes through as any request."""
    rpc = rpc_on(tmp_path / "rooms.db")
    with running(app_of(rpc)) as url, behind(proxy, url, tmp_path) as outside:
        with heard(outside, json=in_rooms("a")) as stream:
            cursor = stream.next()[2]
        wait_until(lambda: not rpc.admin.stats()["streams"])
        polled = httpx.post(f"{outside}/rpc/events/poll", json={**in_rooms("a"), "cursor": cursor, "wait": 0.1})
        assert [event["event"] for event in polled.json()["events"]] == ["connected"]


def test_a_stream_forbids_to_hold_it_back(tmp_path: Path) -> None:
    """The headers by which proxies and caches act: each, once, for POST and GET alike."""
    with running(app_of(rpc_on(tmp_path / "rooms.db"))) as url:
        for method, address in [("POST", url), ("GET", f"{url}/rpc/events?set={stored(url, 'a')}")]:
            with heard(address, method, json=in_rooms("a")) as stream:
                headers = stream.response.headers
                assert headers.get_list("cache-control") == ["no-store, no-transform"]
                assert headers.get_list("x-accel-buffering") == ["no"]
                assert headers["content-type"].startswith("text/event-stream")
                assert "content-encoding" not in headers


def test_a_client_of_http_1_0_hears_events_as_they_come(tmp_path: Path) -> None:
    """It knows no chunks and reads until the end: what it is sent can be read line by line all the same."""
    with running(app_of(rpc_on(tmp_path / "rooms.db"))) as url:
        port = int(url.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_SECONDS) as connection:
            name = stored(url, "a")
            connection.sendall(f"GET /rpc/events?set={name} HTTP/1.0\r\nhost: x\r\n\r\n".encode())
            received = b""
            while b"event: connected" not in received:
                received += connection.recv(65536)
            httpx.post(f"{url}/rpc/notes.add", json={"room": "a", "text": "x"})
            while b"event: invalidation" not in received:
                received += connection.recv(65536)
        assert b" 200 OK\r\n" in received


def test_gzip_is_left_out_of_streams_alone(tmp_path: Path) -> None:
    """With GZipMiddleware a poll is compressed; a stream, which would be held back, is not."""
    with running(with_gzip(rpc_on(tmp_path / "rooms.db"))) as url:
        polled = httpx.post(f"{url}/rpc/events/poll", json=in_rooms("a"), headers={"accept-encoding": "gzip"})
        assert polled.headers["content-encoding"] == "gzip"
        with heard(url, json=in_rooms("a"), headers={"accept-encoding": "gzip"}) as stream:
            assert "content-encoding" not in stream.response.headers
            assert stream.next()[0] == "connected"
