"""The bytes of HTTP/1.1: what is taken reads as h11 reads it, and what is not exactly the form is refused."""

from typing import Any

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedplate.http.messages import ProtocolError
from bedplate.http.wire import Chunks, head_of, parse_head

LINES = st.sampled_from(
    [
        b"Host: a",
        b"host:b",
        b"Content-Length: 3",
        b"content-length: 3, 3",
        b"Content-Length: +3",
        b"Content-Length: -1",
        b"Content-Length: 0x3",
        b"Transfer-Encoding: chunked",
        b"Transfer-Encoding: gzip, chunked",
        b"Transfer-Encoding : chunked",
        b"Connection: keep-alive, Close",
        b" folded",
        b"\tfolded",
        b"no colon",
        b": no name",
        b"x: \x00",
        b"x: a\rb",
        b"x: a\nb",
        b"x:",
        b"x:   spaced out  ",
        "x: é".encode(),
        b"Expect: 100-continue",
        b"Authorization: Bearer k",
    ]
)
STARTS = st.sampled_from(
    [
        b"POST /v2/models/m/infer HTTP/1.1",
        b"GET /a%20b?c=d%2F HTTP/1.1",
        b"GET /%zz HTTP/1.1",
        b"GET http://h/p?q HTTP/1.1",
        b"GET /a HTTP/1.0",
        b"GET /a HTTP/2.0",
        b"GET  /a HTTP/1.1",
        b"get /a HTTP/1.1",
        b"GET /a",
        b"GET /a b HTTP/1.1",
        b"",
    ]
)


def _h11(data: bytes) -> h11.Request | None:
    """What the other reader makes of a head; None where it refuses."""
    server = h11.Connection(h11.SERVER)
    try:
        server.receive_data(data)
        event = server.next_event()
    except h11.RemoteProtocolError:
        return None
    return event if isinstance(event, h11.Request) else None


def agree(data: bytes) -> None:
    try:
        head = parse_head(data)
    except ProtocolError:
        return
    assert data.find(b"\r\n\r\n") == len(data) - 4
    other = _h11(data)
    assert other is not None
    assert head.method.encode() == other.method
    joined: dict[str, list[str]] = {}
    for name, value in other.headers:
        joined.setdefault(name.decode(), []).append(value.decode("latin-1"))
    if not other.target.startswith(b"http"):
        assert head.headers == {name: ", ".join(values) for name, values in joined.items()}
    assert head.length == (None if "transfer-encoding" in joined else int(joined.get("content-length", ["0"])[0]))


@given(STARTS, st.lists(LINES, max_size=5))
def test_a_head_that_is_taken_reads_as_another_reader_reads_it(start: bytes, lines: list[bytes]) -> None:
    agree(b"\r\n".join([start, *lines]) + b"\r\n\r\n")


@given(st.binary(max_size=60), st.integers(0, 70), st.integers(0, 10))
def test_a_damaged_head_is_refused_or_reads_as_another_reader_reads_it(noise: bytes, at: int, cut: int) -> None:
    data = b"POST /v2 HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\naccept: */*\r\n\r\n"
    agree(data[:at] + noise + data[at + cut :])


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (b"host: a\r\nhost: a", 400),
        (b"content-length: 1\r\ncontent-length: 1", 400),
        (b"content-length: 1\r\ntransfer-encoding: chunked", 400),
        (b"transfer-encoding: identity", 501),
        (b"content-length: 1e3", 400),
        (b"content-length: " + b"9" * 30, 400),
        (b"authorization: a\r\nauthorization: b", 400),
        (b"a: b\r\n c", 400),
        (b"a : b", 400),
        (b"\r\n".join(b"x%d: y" % i for i in range(101)), 431),
    ],
)
def test_what_two_readers_might_read_in_two_ways_is_refused(lines: bytes, status: int) -> None:
    with pytest.raises(ProtocolError) as refused:
        parse_head(b"POST / HTTP/1.1\r\nhost: z\r\n" + lines + b"\r\n\r\n")
    assert refused.value.status == status


@pytest.mark.parametrize("target", [b"a", b"*", b"//\xff", b"/%", b"/%2", b"/%ff", b"/a#b", b"http://"])
def test_a_target_that_is_no_path_is_refused(target: bytes) -> None:
    with pytest.raises(ProtocolError):
        parse_head(b"GET " + target + b" HTTP/1.1\r\nhost: a\r\n\r\n")


def test_a_path_is_decoded_once_and_a_proxys_target_names_the_host() -> None:
    head = parse_head(b"GET http://h:1/a%2520%C3%A9?x=%20 HTTP/1.1\r\nHost: other\r\n\r\n")

    assert (head.path, head.query_string, head.headers["host"]) == ("/a%20é", "x=%20", "h:1")


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=5), st.data())
def test_chunks_give_the_body_however_they_arrive(pieces: list[bytes], data: st.DataObject) -> None:
    sent = b"".join(b"%X;a=b\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\nnext"
    chunks, buffer, body, at = Chunks(), bytearray(), b"", 0
    while not chunks.ended:
        size = data.draw(st.integers(1, 30))
        buffer += sent[at : at + size]
        at += size
        while piece := chunks.take(buffer):
            body += piece

    assert body == b"".join(pieces)
    assert bytes(buffer) + sent[at:] == b"next"


@given(st.binary(max_size=80))
def test_any_bytes_are_chunks_or_refused(data: bytes) -> None:
    chunks, buffer = Chunks(), bytearray(data)
    try:
        while chunks.take(buffer):
            pass
    except ProtocolError:
        assert not chunks.ended


@pytest.mark.parametrize(
    "data", [b"-1\r\n", b"0x1\r\na", b"1\r\nab\r\n", b" 1\r\na", b"0\r\nx: y\r\n\r\n", b"1" * 600, b"\r\n1\r\na\r\n"]
)
def test_chunks_that_have_not_the_form_are_refused(data: bytes) -> None:
    chunks, buffer = Chunks(), bytearray(data)
    with pytest.raises(ProtocolError):
        list(iter(lambda: chunks.take(buffer), b""))


@pytest.mark.parametrize("value", ["a\r\nx: y", "a\n", "\r"])
def test_an_answer_cannot_be_given_a_header_that_ends_a_line(value: Any) -> None:
    with pytest.raises(ValueError, match="end of a line"):
        head_of(200, [("x", value)], "now", 0)
