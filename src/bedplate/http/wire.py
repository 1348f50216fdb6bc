"""The bytes of HTTP/1.1: the head of a request, a chunked body, the head of an answer.

What is not exactly the form is refused, never mended: two readers that mend differently are how one request is smuggled
inside another. Header lines are not folded, a length is given once, and a body has a length or chunks, not both.
"""

import re
from http import HTTPStatus
from urllib.parse import unquote_to_bytes

import msgspec

from bedplate.http.messages import ProtocolError

MAX_HEAD = 16 * 1024
MAX_FIELDS = 100
_REQUEST = re.compile(rb"([A-Z]{1,16}) ([!-~]+) HTTP/1\.([01])\r\n")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}):([\t\x20-\x7e\x80-\xff]*)\r\n")
_ABSOLUTE = re.compile(rb"https?://([^/?#]+)(.*)", re.IGNORECASE)
_PERCENT = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[\t\x20-\x7e\x80-\xff]{0,256})?\r\n")
_ONCE = frozenset(("host", "content-length", "transfer-encoding", "authorization", "origin", "content-type"))
_REASONS = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n" for status in HTTPStatus}

Headers = list[tuple[str, str]]


class Head(msgspec.Struct, frozen=True, gc=False):
    """The head of a request, as an RSGI application sees it in its scope; clients that repeat it share one.

    ``length`` is that of the body, None where it comes in chunks. ``last`` says that the connection ends with the
    answer, ``expects`` that the client waits for a word before it sends the body.
    """

    method: str
    path: str
    query_string: str
    headers: dict[str, str]
    length: int | None
    last: bool
    expects: bool


def parse_head(data: bytes) -> Head:
    """The head that ``data`` is, from the request line to the empty line.

    Raises:
        ProtocolError: 400, it has not the form; 431, too many fields; 501, a transfer coding other than chunked.
    """
    start = _REQUEST.match(data)
    if start is None:
        raise ProtocolError(400, "the request line cannot be read")
    method, target, minor = start.groups()
    headers: dict[str, str] = {}
    at, end, count = start.end(), len(data) - 2, 0
    while at < end:
        field = _FIELD.match(data, at)
        if field is None:
            raise ProtocolError(400, "a header line cannot be read")
        at, count = field.end(), count + 1
        name, value = field[1].decode("ascii").lower(), field[2].strip(b" \t").decode("latin-1")
        if name not in headers:
            headers[name] = value
        elif name in _ONCE:
            raise ProtocolError(400, f"the header {name} is given twice")
        else:
            headers[name] += ("; " if name == "cookie" else ", ") + value
    if at != end or data[end:] != b"\r\n":
        raise ProtocolError(400, "the head does not end as it must")
    if count > MAX_FIELDS:
        raise ProtocolError(431, f"more than {MAX_FIELDS} headers")
    if minor == b"1" and "host" not in headers:
        raise ProtocolError(400, "the header host is missing")
    path, query = _target(target, headers)
    last = minor == b"0" or "close" in headers.get("connection", "").lower().replace(" ", "").split(",")
    return Head(
        method=method.decode("ascii"),
        path=path,
        query_string=query,
        headers=headers,
        length=_length(headers, minor),
        last=last,
        expects=headers.get("expect", "").lower() == "100-continue",
    )


def _target(target: bytes, headers: dict[str, str]) -> tuple[str, str]:
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is not None:  # what a proxy is asked; the host in it is the one that counts
        headers["host"], target = absolute[1].decode("latin-1"), absolute[2] or b"/"
    path, _, query = target.partition(b"?")
    if not path.startswith(b"/") or b"#" in target or _PERCENT.search(path):
        raise ProtocolError(400, "the path cannot be read")
    try:
        return unquote_to_bytes(path).decode("utf-8"), query.decode("ascii")
    except UnicodeDecodeError as error:
        raise ProtocolError(400, "the path is not UTF-8") from error


def _length(headers: dict[str, str], minor: bytes) -> int | None:
    length, coding = headers.get("content-length"), headers.get("transfer-encoding")
    if coding is not None:
        if length is not None or minor == b"0":
            raise ProtocolError(400, "a body has either a length or chunks")
        if coding.lower() != "chunked":
            raise ProtocolError(501, "only the transfer coding chunked is known here")
        return None
    if length is None:
        return 0
    if not (length.isascii() and length.isdigit()) or len(length) > 18:
        raise ProtocolError(400, "content-length is not a number")
    return int(length)


class Chunks:
    """A body in chunks, taken out of what arrives: sizes and line ends are dropped, trailers as well."""

    def __init__(self) -> None:
        self._left = 0
        self._first = True
        self.ended = False

    def take(self, buffer: bytearray) -> bytes:
        """The next piece of the body, removed from ``buffer``; empty when more has to arrive, or at the end.

        Raises:
            ProtocolError: 400, the chunks have not the form.
        """
        while not self.ended:
            if self._left:
                piece = bytes(buffer[: self._left])
                del buffer[: len(piece)]
                self._left -= len(piece)
                return piece
            if not self._line(buffer):
                break
        return b""

    def _line(self, buffer: bytearray) -> bool:
        """Read the size of the next chunk; whether it is there as a whole."""
        start = 0 if self._first else 2
        if not b"\r\n".startswith(bytes(buffer[:start])):
            raise ProtocolError(400, "a chunk is longer than its size")
        end = buffer.find(b"\r\n", start)
        if end < 0:
            if len(buffer) > 512:
                raise ProtocolError(400, "the size of a chunk cannot be read")
            return False
        size = _CHUNK.fullmatch(buffer, start, end + 2)
        if size is None:
            raise ProtocolError(400, "the size of a chunk cannot be read")
        if int(size[1], 16):
            self._left, self._first = int(size[1], 16), False
            del buffer[: end + 2]
            return True
        if buffer[end : end + 4] == b"\r\n\r\n":
            del buffer[: end + 4]
            self.ended = True
            return True
        if len(buffer) >= end + 4:  # nobody here reads them, and what nobody reads has no place in a request
            raise ProtocolError(400, "trailers are not taken")
        return False


def head_of(status: int, headers: Headers, date: str, length: int | None = None) -> bytes:
    """The head of an answer; ``length`` is that of its body, None where the headers say it.

    Raises:
        ValueError: a header would be more than one line.
    """
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers])
    if lines.count("\n") != len(headers) or lines.count("\r") != len(headers):
        raise ValueError("a header of an answer holds the end of a line")
    size = "" if length is None else f"content-length: {length}\r\n"
    return f"{_REASONS.get(status) or _other(status)}{lines}{size}date: {date}\r\n\r\n".encode("latin-1")


def _other(status: int) -> str:
    return f"HTTP/1.1 {status} Status\r\n"
