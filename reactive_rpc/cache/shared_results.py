"""Results that workers take from each other: the contract, and a result as bytes.

Sharing is economy: whoever takes a result validates it by its own log (`docs/internals/cache.md`), so a record that is
lost, kept too long, or never put costs a run of the handler and no more. Only a record that is not what it says could
do harm. So it holds its whole key, which is compared, and a checksum of all the rest, which nobody can make who does
not know the workers' secret, if they have one.

A result is looked for under a name made of the build, the epoch and the key: another version of a handler may answer
otherwise, and versions of another epoch mean nothing.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from hmac import compare_digest
from typing import Final, Protocol

from reactive_rpc.cache.result import ResultKey
from reactive_rpc.dependencies.codec import decode_read_set, encode_read_set
from reactive_rpc.dependencies.read_set import ReadSet

__all__ = ["SharedResult", "SharedResults", "decode_value", "encode_value", "name_of"]

FORMAT: Final = b"2"
"""Changes whenever the stored bytes mean something else; records of another format have other names."""

_LENGTH: Final = struct.Struct(">Q")
_DIGEST_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class SharedResult:
    """A result, and when it was right.

    Attributes:
        key: whose result it is.
        epoch: of the log.
        version: of the log: the result is what the handler answers on the database as it was at this version.
        body: the output as JSON.
        read_set: everything that it depends on; not opaque.
    """

    key: ResultKey
    epoch: str
    version: int
    body: bytes
    read_set: ReadSet


class SharedResults(Protocol):
    """What workers take of each other's results, and give. Used on one event loop; no call raises."""

    async def open(self) -> None:
        """Get ready, or go on without; idempotent."""
        ...

    async def find(self, key: ResultKey, epoch: str, *, after: int, version: int) -> SharedResult | None:
        """Return a result of `key` in `epoch` that was right at a version after `after`.

        If there is none, one worker is to compute it: that one is answered None at once, the others when its result
        is there or they have waited long enough, then None too.

        Args:
            after: results and computations of this version or before are known to be outdated.
            version: of the asking worker's log; its snapshot will show at least this.
        """
        ...

    def put(self, value: SharedResult) -> None:
        """Store a result for others, in the background; returns at once."""
        ...

    def release(self, key: ResultKey) -> None:
        """Let others compute `key`, if it was this worker's to compute; in the background, after all that was `put`."""
        ...

    async def aclose(self) -> None:
        """Abandon the results that are not stored yet; idempotent."""
        ...


def name_of(build: str, epoch: str, key: ResultKey) -> str:
    """Return the name under which the results of a key are stored: 64 hexadecimal characters.

    >>> name_of("b1", "e1", ("p", b"1", b"")) == name_of("b1", "e1", ("p", b"", b"1"))
    False
    """
    digest = blake2b(digest_size=32)
    for part in (FORMAT, _bytes(build), _bytes(epoch), _bytes(key[0]), key[1], key[2]):
        digest.update(_LENGTH.pack(len(part)) + part)
    return digest.hexdigest()


def encode_value(value: SharedResult, secret: bytes = b"") -> bytes:
    """Return `<version>\\n`, a checksum, and the parts, each after its length.

    Args:
        secret: what a checksum cannot be made without; at most 64 bytes.
    """
    path, input, scope = value.key
    parts = (_bytes(path), input, scope, _bytes(value.epoch), encode_read_set(value.read_set), value.body)
    version = b"%d\n" % value.version
    content = b"".join(_LENGTH.pack(len(part)) + part for part in parts)
    return version + _checksum(version, content, secret) + content


def decode_value(record: bytes, secret: bytes = b"") -> SharedResult:
    """Return the result that `encode_value` made the record of.

    Args:
        secret: as it was given there.

    Raises:
        ValueError: it made no such record.
    """
    version, _, rest = record.partition(b"\n")
    checksum, content = rest[:_DIGEST_BYTES], rest[_DIGEST_BYTES:]
    if not compare_digest(checksum, _checksum(version + b"\n", content, secret)):
        raise ValueError("the checksum is another")
    path, input, scope, epoch, encoded, body = _parts(content)
    read_set = decode_read_set(encoded)
    if read_set.opaque is not None:
        raise ValueError("nothing tells when it changes")
    return SharedResult((_text(path), input, scope), _text(epoch), int(version), body, read_set)


def _parts(content: bytes) -> Iterator[bytes]:
    place = 0
    while place < len(content):
        start = place + _LENGTH.size
        length = int.from_bytes(content[place:start], "big")
        yield content[start : start + length]
        place = start + length


def _checksum(version: bytes, content: bytes, secret: bytes) -> bytes:
    digest = blake2b(version, digest_size=_DIGEST_BYTES, key=secret)
    digest.update(content)
    return digest.digest()


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _text(content: bytes) -> str:
    return content.decode("utf-8", "surrogatepass")
