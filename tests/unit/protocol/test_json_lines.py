"""JSON lines: the same lines whatever the borders of chunks, and a bound on each."""

from __future__ import annotations

import json
import random

import pytest

from reactive_rpc.errors import NotFoundError, WireError
from reactive_rpc.protocol.envelopes import encode_error
from reactive_rpc.protocol.json_lines import JSONLinesDecoder, encode_line, is_error


@pytest.mark.parametrize("seed", range(50))
def test_borders_of_chunks_do_not_matter(seed: int) -> None:
    """Values of any kind arrive as they were sent, in whatever pieces."""
    rng = random.Random(seed)
    values = [rng.choice(["ä\n\r", 1.5, None, [1, {"error": 2}], {"error": "x"}, {}, "", "x" * 300]) for _ in range(30)]
    wire = b"".join(encode_line(json.dumps(value, separators=(",", ":")).encode()) for value in values)
    decoder, lines = JSONLinesDecoder(), []
    while wire:
        size = rng.randrange(1, 40)
        lines += decoder.feed(wire[:size])
        wire = wire[size:]
    assert not any(map(is_error, lines))
    assert [json.loads(line) for line in lines] == values
    assert not decoder.is_in_line


def test_an_error_is_told_from_a_value_by_how_its_line_begins() -> None:
    """Whatever stands in a value: an envelope is never sent with a space before it, a value that looks so always."""
    envelope = encode_error(NotFoundError("none"))
    assert is_error(envelope)
    assert not is_error(encode_line(envelope))


def test_an_unfinished_line_is_known() -> None:
    """Until its line break comes."""
    decoder = JSONLinesDecoder()
    assert decoder.feed(b'{"n":1}\n{"n":') == [b'{"n":1}']
    assert decoder.is_in_line
    assert decoder.feed(b"2}\n") == [b'{"n":2}']
    assert not decoder.is_in_line


@pytest.mark.parametrize("wire", [b"x" * 11, b"x" * 11 + b"\n", b"1\n" + b"x" * 11 + b"\n2\n"])
def test_a_line_over_the_bound_is_refused(wire: bytes) -> None:
    """Finished or not: nobody's memory is filled by one line."""
    with pytest.raises(WireError, match="over 10 bytes"):
        JSONLinesDecoder(max_bytes=10).feed(wire)
    assert JSONLinesDecoder(max_bytes=10).feed(b"x" * 10 + b"\n") == [b"x" * 10]
