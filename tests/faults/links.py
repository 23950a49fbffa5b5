"""TCP links that can be cut, torn and stalled, as a process of its own: `python -m faults.links`.

It takes one JSON object a line and answers each with one:

    {"do": "open", "link": "front", "to": 8000}     -> {"port": 12345}   a new link to a port of this machine
    {"do": "refuse", "links": ["front"]}            -> {}   reset every connection, and each that comes
    {"do": "reset", ...}                            -> {}   reset every connection; new ones are welcome
    {"do": "end", ...}                              -> {}   end every connection in order; new ones are welcome
    {"do": "tear", ...}                             -> {}   refuse, but let what is there end amid what it receives next
    {"do": "stall", ...}                            -> {}   forward nothing; connections stay open
    {"do": "heal", ...}                             -> {}   forward what waits, and welcome new connections
    {"do": "owner", "port": 40000}                  -> {"link": "relay0-database"}   which link comes from that port
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import struct
import sys
from contextlib import suppress
from typing import Any

CHUNK_BYTES = 65_536
ENDING_SECONDS = 0.5


class Connection:
    """One connection through a link, both of its halves."""

    def __init__(self, near: asyncio.StreamWriter, far: asyncio.StreamWriter) -> None:
        self._halves = (near, far)
        self.far_port: int = far.get_extra_info("sockname")[1]
        self.is_torn = False

    def reset(self) -> None:
        """Drop it, so that both sides are told by RST."""
        for half in self._halves:
            reset(half)

    def end(self) -> None:
        """Close it in order, once what was taken in is sent."""
        for half in self._halves:
            half.close()


class Link:
    """Forwards what connects to one port."""

    def __init__(self, to: int) -> None:
        self._to = to
        self._is_refusing = False
        self._flows = asyncio.Event()
        self._flows.set()
        self.connections: set[Connection] = set()

    def refuse(self) -> None:
        """Reset every connection, and each that comes."""
        self._is_refusing = True
        self.reset()

    def reset(self) -> None:
        """Reset every connection."""
        for connection in tuple(self.connections):
            connection.reset()

    def end(self) -> None:
        """End every connection in order."""
        for connection in tuple(self.connections):
            connection.end()

    def tear(self) -> None:
        """Reset each connection in the middle of what it receives next, and at once each that comes."""
        self._is_refusing = True
        for connection in self.connections:
            connection.is_torn = True

    def stall(self) -> None:
        """Forward nothing."""
        self._flows.clear()

    def heal(self) -> None:
        """Forward again."""
        self._is_refusing = False
        self._flows.set()

    async def accept(self, near_reader: asyncio.StreamReader, near: asyncio.StreamWriter) -> None:
        """Forward one connection until it ends."""
        await self._flows.wait()
        if self._is_refusing:
            reset(near)
            return
        try:
            far_reader, far = await asyncio.open_connection("127.0.0.1", self._to)
        except OSError:
            reset(near)
            return
        connection = Connection(near, far)
        self.connections.add(connection)
        try:
            if self._is_refusing:
                return
            with suppress(OSError):
                await asyncio.gather(self._copy(near_reader, far, None), self._copy(far_reader, near, connection))
        finally:
            self.connections.discard(connection)
            connection.reset()

    async def _copy(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, received_by: Connection | None
    ) -> None:
        while chunk := await reader.read(CHUNK_BYTES):
            await self._flows.wait()
            if received_by is not None and received_by.is_torn:
                writer.write(chunk[: len(chunk) // 2])
                await writer.drain()
                await asyncio.sleep(0)  # the transport has tried to send by now
                received_by.reset()
                return
            writer.write(chunk)
            await writer.drain()
        if not writer.is_closing():
            writer.write_eof()


def reset(writer: asyncio.StreamWriter) -> None:
    """Close a connection by RST."""
    connected = writer.get_extra_info("socket")
    with suppress(OSError):
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


class Links:
    """All links of the process."""

    def __init__(self) -> None:
        self._links: dict[str, Link] = {}
        self._servers: list[asyncio.Server] = []

    async def obey(self, order: dict[str, Any]) -> dict[str, Any]:
        """Do what a line asks for and return the answer."""
        if order["do"] == "open":
            link = self._links[order["link"]] = Link(order["to"])
            server = await asyncio.start_server(link.accept, "127.0.0.1", 0, backlog=1024)
            self._servers.append(server)
            return {"port": server.sockets[0].getsockname()[1]}
        if order["do"] == "owner":
            owners = [
                name
                for name, link in self._links.items()
                if order["port"] in {connection.far_port for connection in link.connections}
            ]
            return {"link": owners[0] if owners else None}
        for name in order["links"]:
            getattr(self._links[name], order["do"])()
        return {}


async def main() -> None:
    """Obey until nobody gives orders any more."""
    links = Links()
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    while line := await lines.readline():
        answer = await links.obey(json.loads(line))
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main())
    os._exit(0)  # without waiting for connections that others hold open
