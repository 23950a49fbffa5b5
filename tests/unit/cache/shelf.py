"""Shared results in memory, for readers that a test runs side by side."""

from __future__ import annotations

from reactive_rpc.cache.result import ResultKey
from reactive_rpc.cache.shared_results import SharedResult, decode_value, encode_value, name_of

from .scripted import Pause, no_pause


class Shelf:
    """`SharedResults` of one build, which keep bytes as Redis would; leases are told, and nobody waits for one.

    Attributes:
        records: `{name: record}`.
        pause: awaited before a question is answered and after it.
        asked: `(path, after, version)` of each question.
        claimed: the keys that are somebody's to compute.
    """

    def __init__(self, build: str = "b1") -> None:
        self.build = build
        self.records: dict[str, bytes] = {}
        self.pause: Pause = no_pause
        self.asked: list[tuple[str, int, int]] = []
        self.claimed: list[ResultKey] = []

    async def open(self) -> None:
        """Nothing to open."""

    async def find(self, key: ResultKey, epoch: str, *, after: int, version: int) -> SharedResult | None:
        self.asked.append((key[0], after, version))
        await self.pause()
        record = self.records.get(name_of(self.build, epoch, key))
        await self.pause()
        if record is not None:
            value = decode_value(record)
            if value.version > after:
                return value
        self.claimed.append(key)
        return None

    def put(self, value: SharedResult) -> None:
        self.records[name_of(self.build, value.epoch, value.key)] = encode_value(value)

    def release(self, key: ResultKey) -> None:
        if key in self.claimed:
            self.claimed.remove(key)

    async def aclose(self) -> None:
        """Nothing to close."""
