"""The SSE encoder and decoder, by WHATWG HTML 9.2.6."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reactive_rpc.errors import WireError
from reactive_rpc.protocol.sse import ServerSentEvent, SSEDecoder, encode_event

PIECES = st.sampled_from(
    [
        "data: a\n",
        "data:é🌍\r\n",
        "data\r",
        ": note\n",
        "event: x\n",
        "id: 7\r",
        "id: \0\n",
        "retry: 5\n",
        "\n",
        "\r\n",
        "\r",
    ]
)


def decode(stream: bytes) -> list[ServerSentEvent]:
    """Decode a whole stream in one go."""
    return SSEDecoder().feed(stream)


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        (b"data: a\n\n", [("message", "a", "")]),
        (b"\xef\xbb\xbfdata: a\n\n", [("message", "a", "")]),
        (b"data:a\ndata: b\ndata:  c\n\n", [("message", "a\nb\n c", "")]),
        (b"data\n\ndata\ndata\n\n", [("message", "", ""), ("message", "\n", "")]),
        (b"event: x\rdata: a\r\rdata: b\r\r", [("x", "a", ""), ("message", "b", "")]),
        (b": note\n\nid: 1\n\ndata: a\n\n", [("message", "a", "1")]),
        (
            b"id: 1\ndata: a\n\nid: 2\0\ndata: b\n\nid\ndata: c\n\n",
            [("message", "a", "1"), ("message", "b", "1"), ("message", "c", "")],
        ),
        (b"unknown: 1\ndata: \xff\n\n", [("message", "\ufffd", "")]),
        (b"data: a\n\ndata: cut\n", [("message", "a", "")]),
        (b"event: x\n\ndata: a\n\n", [("message", "a", "")]),
    ],
)
def test_streams_are_read_as_whatwg_says(stream: bytes, expected: list[tuple[str, str, str]]) -> None:
    """Line ends, comments, the byte order mark, ids, events without data and cut events follow the standard."""
    assert decode(stream) == [ServerSentEvent(*event) for event in expected]


def test_retry_takes_digits_only() -> None:
    """A reconnection time that is not all ASCII digits changes nothing."""
    decoder = SSEDecoder()
    decoder.feed(b"retry: 250\nretry: 1s\nretry: -1\nretry:\nretry: " + b"9" * 5000 + b"\n")
    assert decoder.retry_ms == 250


def test_the_id_of_an_event_without_data_is_kept() -> None:
    """An id counts when its event ends, dispatched or not, and not before."""
    decoder = SSEDecoder()
    decoder.feed(b"id: 1\n\nid: 2\n")
    assert decoder.last_event_id == "1"


@given(st.lists(PIECES, max_size=30), st.lists(st.integers(1, 7), max_size=40))
def test_any_chunking_gives_the_same_events(pieces: list[str], sizes: list[int]) -> None:
    """Where the network cuts the stream, inside a character or between CR and LF, makes no difference."""
    stream = "".join(pieces).encode()
    decoder, events, position = SSEDecoder(), [], 0
    for size in [*sizes, len(stream)]:
        events += decoder.feed(stream[position : position + size])
        position += size
    assert events == decode(stream)


@given(
    st.text(st.characters(exclude_characters="\r\n\0", exclude_categories=["Cs"]), min_size=1),
    st.text(st.characters(exclude_characters="\r", exclude_categories=["Cs"])),
    st.text(st.characters(exclude_characters="\r\n\0", exclude_categories=["Cs"])),
)
def test_what_is_encoded_is_decoded(name: str, data: str, event_id: str) -> None:
    """Encoding and decoding are inverse, for any text without CR."""
    assert decode(encode_event(name, data.encode(), event_id, 5)) == [ServerSentEvent(name, data, event_id)]


@pytest.mark.parametrize("bad", ["a\nb", "a\rb", "a\0"])
def test_names_and_ids_cannot_break_out(bad: str) -> None:
    """A name or an id that would end its line is refused."""
    with pytest.raises(ValueError, match="no CR, LF or NUL"):
        encode_event(bad, b"")
    with pytest.raises(ValueError, match="no CR, LF or NUL"):
        encode_event("x", b"", bad)


@pytest.mark.parametrize("chunks", [[b"data: " + b"a" * 90, b"a" * 20], [b"data: aaaaaaaaaaaaaaaaaaaa\n"] * 6])
def test_memory_is_bounded(chunks: list[bytes]) -> None:
    """A line, or the data of one event, over the limit is an error instead of ever more memory."""
    decoder = SSEDecoder(max_bytes=100)
    with pytest.raises(WireError, match="over 100 bytes"):
        list(map(decoder.feed, chunks))
