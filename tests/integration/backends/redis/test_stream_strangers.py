"""What has no business in the keys of a namespace: another database's relay, and values that nobody of ours wrote."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from reactive_rpc.errors import ServiceUnavailableError
from reactive_rpc.testing.postgresql import PostgreSQL
from tests.support.waiting import until

from .rig import Rig, Writer, eventually, prepare, version_now

MakeRig = Callable[[], Rig]


@pytest.fixture
def make_rig(postgresql: PostgreSQL, redis_server_url: str, redis_namespace: str) -> Iterator[MakeRig]:
    """Return a function that returns the parts on one more database; all have one namespace."""
    urls: list[str] = []

    def make() -> Rig:
        urls.append(postgresql.new_database())
        prepare(urls[-1])
        return Rig(urls[-1], redis_server_url, redis_namespace)

    yield make
    for url in urls:
        postgresql.drop_database(url)


def test_another_database_in_the_namespace(make_rig: MakeRig) -> None:
    """Its relay answers for a database that is not ours: nothing is confirmed until ours is relayed again."""

    async def main() -> None:
        ours, theirs = make_rig(), make_rig()
        async with AsyncExitStack() as stack:
            writer = stack.enter_context(Writer(ours.url))
            async with ours.relaying():
                edge = await stack.enter_async_context(ours.edge(writer, timeout_seconds=1.0))
            async with theirs.relaying() as relay:
                await until(lambda: relay.status.role == "leading", "the other database is relayed")
                writer.write()
                with pytest.raises(ServiceUnavailableError):
                    await edge.log.sync_to_head()
                assert "another database" in (edge.log.error or "")
            async with ours.relaying():
                await eventually(edge.log.sync_to_head, ServiceUnavailableError)
                assert not edge.missing

    asyncio.run(main())


@pytest.mark.parametrize("name", ["state", "log", "reports", "questions"])
def test_a_key_that_was_overwritten(make_rig: MakeRig, name: str) -> None:
    """It goes on, and what is not told is covered by a gap."""

    async def main() -> None:
        rig = make_rig()
        async with AsyncExitStack() as stack:
            writer, edge = await stack.enter_async_context(rig.relayed())
            client = await stack.enter_async_context(rig.client())
            writer.write()
            await client.set(rig.key(name), "a stranger's")
            writer.write()
            await asyncio.wait_for(eventually(edge.log.sync_to_head, ServiceUnavailableError), 60)
            assert not edge.missing

    asyncio.run(main())


@pytest.mark.parametrize(
    "fields", [{"version": "x"}, {"epoch": b"\xff"}, {"top": "x"}, {"top": "9" * 18}, {"position": b"\xff"}]
)
def test_a_state_that_is_nonsense(make_rig: MakeRig, fields: dict[str, str | bytes]) -> None:
    """The stream begins anew."""

    async def main() -> None:
        rig = make_rig()
        async with AsyncExitStack() as stack:
            writer, edge = await stack.enter_async_context(rig.relayed())
            client = await stack.enter_async_context(rig.client())
            writer.write()
            await client.hset(rig.key("state"), mapping=fields)
            writer.write()
            await asyncio.wait_for(eventually(edge.log.sync_to_head, ServiceUnavailableError), 60)
            assert not edge.missing

    asyncio.run(main())


def test_an_entry_that_is_nonsense(make_rig: MakeRig) -> None:
    """Something that cannot be decoded is something missed."""

    async def main() -> None:
        rig = make_rig()
        async with AsyncExitStack() as stack:
            writer, edge = await stack.enter_async_context(rig.relayed())
            client = await stack.enter_async_context(rig.client())
            edge.gate.clear()
            rows = "INSERT INTO w SELECT i, 0 FROM generate_series(1, 500) i"  # more than comes with a report
            writer.connection.execute(rows)
            writer.versions[1] = version_now(writer.connection)
            found: list[Any] = []

            async def appended() -> None:
                found[:] = await client.xrevrange(rig.key("log"), count=1)
                assert found

            await eventually(appended, AssertionError)
            id_, values = found[0]
            values[b"changes"] = values[b"changes"].replace(b",1", b',["d","x"]', 1)
            await client.delete(rig.key("log"))
            await client.xadd(rig.key("log"), values, id=id_)
            edge.gate.set()
            await asyncio.wait_for(eventually(edge.log.sync_to_head, ServiceUnavailableError), 60)
            assert not edge.missing
            assert edge.flushes

    asyncio.run(main())
