"""Frames of HTTP/2 (RFC 9113): their kinds, flags and codes of errors by number, and their bytes."""

DATA, HEADERS, RST, SETTINGS, PUSH, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 5, 6, 7, 8, 9
END_STREAM, END_HEADERS, PADDED, PRIORITY, ACK = 1, 4, 8, 32, 1
ENDS = END_STREAM | END_HEADERS
"""Flags of headers that are whole and the last of a call."""
NO_ERROR, PROTOCOL, FLOW, CLOSED, SIZE, REFUSED, COMPRESSION, CALM = 0, 1, 3, 5, 6, 7, 9, 11
LARGEST_WINDOW = (1 << 31) - 1
"""The largest window, and the largest number of a stream."""


class BrokenError(Exception):
    """The other side broke a rule after which the connection cannot go on: ``code`` is how that is told."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


def frame(kind: int, flags: int, number: int, payload: bytes) -> bytes:
    """A frame of the stream ``number``; 0 is the connection."""
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + number.to_bytes(4, "big") + payload


def goaway(last: int, code: int = NO_ERROR, text: str = "") -> bytes:
    """Says that streams above ``last`` will not be answered, and why."""
    return frame(GOAWAY, 0, 0, last.to_bytes(4, "big") + code.to_bytes(4, "big") + text.encode())
