"""Reads a streamed query: one answer, of which each line is a value. It cannot be resumed, so it is asked for once."""

from __future__ import annotations

from typing import Any, TypeVar

from reactive_rpc.client.answer_reader import AnswerReader
from reactive_rpc.client.procedure import Procedure
from reactive_rpc.client.transport import JSON_LINES, Transport
from reactive_rpc.errors import ConnectionFailedError
from reactive_rpc.protocol.envelopes import decode_error
from reactive_rpc.protocol.json_lines import JSONLinesDecoder, is_error

__all__ = ["ItemReader"]

T = TypeVar("T")


class ItemReader(AnswerReader[T]):
    """Reads the values of one call of a streamed query.

    Args:
        transport: of the client.
        procedure: the query.
        fields: its input as JSON values.
    """

    def __init__(self, transport: Transport, procedure: Procedure[T], fields: dict[str, Any] | None) -> None:
        super().__init__(procedure.path)
        self._transport = transport
        self._procedure = procedure
        self._fields = fields

    def _closed(self) -> ConnectionFailedError:
        return ConnectionFailedError(f"the client was closed before {self.path} had sent all of its values")

    async def _read(self) -> Exception | None:
        try:
            await self._read_lines()
        except Exception as error:  # whatever it is, it is raised where the values are taken
            return error
        return None

    async def _read_lines(self) -> None:
        decoder = JSONLinesDecoder()
        async with self._transport.stream(self._procedure, self._fields, media_type=JSON_LINES) as answer:
            self.opened.set()
            async for chunk in answer.chunks:
                for line in decoder.feed(chunk):
                    if is_error(line):
                        raise self._procedure.typed_error(decode_error(line))
                    self.pending.append(self._procedure.decode_output(line))
                await self.pending.emptied()
        if decoder.is_in_line:
            raise ConnectionFailedError(f"the answer of {self.path} was cut in the middle of a value")
