"""HPACK (RFC 7541), the receiving side: header blocks of one connection to names and values.

What is sent needs no state: constant bytes, and :func:`literal` for what varies.
"""

from collections import deque

Headers = list[tuple[bytes, bytes]]

TABLE = 4096
"""Bytes of the dynamic table, which is what peers use unless told otherwise."""
_ENTRY = 32  # what an entry counts beside its texts
_MOST_KNOWN = 64

_STATIC: Headers = [
    (b"", b""),  # there is no index 0
    (b":authority", b""),
    (b":method", b"GET"),
    (b":method", b"POST"),
    (b":path", b"/"),
    (b":path", b"/index.html"),
    (b":scheme", b"http"),
    (b":scheme", b"https"),
    *((b":status", status) for status in (b"200", b"204", b"206", b"304", b"400", b"404", b"500")),
    (b"accept-charset", b""),
    (b"accept-encoding", b"gzip, deflate"),
    *(
        (name, b"")
        for name in (
            b"accept-language accept-ranges accept access-control-allow-origin age allow authorization cache-control "
            b"content-disposition content-encoding content-language content-length content-location content-range "
            b"content-type cookie date etag expect expires from host if-match if-modified-since if-none-match if-range "
            b"if-unmodified-since last-modified link location max-forwards proxy-authenticate proxy-authorization "
            b"range referer refresh retry-after server set-cookie strict-transport-security transfer-encoding "
            b"user-agent vary via www-authenticate"
        ).split()
    ),
]
_DYNAMIC = len(_STATIC)

# The characters by the length of their code in bits. Codes of one length follow each other in the order of their
# characters, and those of the next length follow them: so the lengths say everything.
_LENGTHS = {
    5: b"012aceiost",
    6: b" %-./3456789=A_bdfghlmnpru",
    7: b":BCDEFGHIJKLMNOPQRSTUVWYjkqvwxyz",
    8: b"&*,;XZ",
    10: b'!"()?',
    11: b"'+|",
    12: b"#>",
    13: b"\x00$@[]~",
    14: b"^}",
    15: b"<`{",
    19: b"\\\xc3\xd0",
    20: b"\x80\x82\x83\xa2\xb8\xc2\xe0\xe2",
    21: b"\x99\xa1\xa7\xac\xb0\xb1\xb3\xd1\xd8\xd9\xe3\xe5\xe6",
    22: b"\x81\x84\x85\x86\x88\x92\x9a\x9c\xa0\xa3\xa4\xa9\xaa\xad\xb2\xb5\xb9\xba\xbb\xbd\xbe\xc4\xc6\xe4\xe8\xe9",
    23: b"\x01\x87\x89\x8a\x8b\x8c\x8d\x8f\x93\x95\x96\x97\x98\x9b\x9d\x9e\xa5\xa6\xa8\xae\xaf\xb4\xb6\xb7\xbc\xbf\xc5"
    b"\xe7\xef",
    24: b"\t\x8e\x90\x91\x94\x9f\xab\xce\xd7\xe1\xec\xed",
    25: b"\xc7\xcf\xea\xeb",
    26: b"\xc0\xc1\xc8\xc9\xca\xcd\xd2\xd5\xda\xdb\xee\xf0\xf2\xf3\xff",
    27: b"\xcb\xcc\xd3\xd4\xd6\xdd\xde\xdf\xf1\xf4\xf5\xf6\xf7\xf8\xfa\xfb\xfc\xfd\xfe",
    28: b"\x02\x03\x04\x05\x06\x07\x08\x0b\x0c\x0e\x0f\x10\x11\x12\x13\x14\x15\x17\x18\x19\x1a\x1b\x1c\x1d\x1e\x1f\x7f"
    b"\xdc\xf9",
    30: b"\n\r\x16",
}


def _codes() -> dict[tuple[int, int], int]:
    codes, code, before = {}, 0, 0
    for length, characters in _LENGTHS.items():
        code <<= length - before
        before = length
        for character in characters:
            codes[length, code] = character
            code += 1
    return codes


_CODES = _codes()


class HpackError(ValueError):
    """A header block that breaks the connection: what follows it could not be understood."""


class Decoder:
    """Reads the header blocks of one connection, in their order. ``most`` bounds the headers of one block, in bytes."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._table: deque[tuple[bytes, bytes]] = deque()  # newest first
        self._size, self._limit = 0, TABLE
        self._known: dict[bytes, Headers] = {}

    def decode(self, block: bytes) -> Headers:
        """The headers of a block; not to be changed, for the same block may give the same list again.

        Raises:
            HpackError: it is malformed, or its headers are larger than allowed.
        """
        known = self._known.get(block)
        if known is not None:
            return known
        try:
            headers, changed = self._decode(block)
        except IndexError:
            raise HpackError("a header block breaks off") from None
        if changed:
            self._known.clear()
        elif len(self._known) < _MOST_KNOWN and len(block) < 1024:
            self._known[block] = headers
        return headers

    def _decode(self, block: bytes) -> tuple[Headers, bool]:
        headers: Headers = []
        at, end, total, changed = 0, len(block), 0, False
        while at < end:
            byte = block[at]
            if byte & 0x80:
                index, at = _integer(block, at, 0x7F)
                header = self._entry(index)
            elif byte & 0xE0 == 0x20:
                limit, at = _integer(block, at, 0x1F)
                if limit > TABLE or headers:
                    raise HpackError("a table is made larger than was offered, or too late")
                self._limit, changed = limit, True
                self._shrink()
                continue
            else:
                index, at = _integer(block, at, 0x3F if byte & 0x40 else 0x0F)
                name = self._entry(index)[0] if index else None
                if name is None:
                    name, at = self._text(block, at)
                value, at = self._text(block, at)
                header = (name, value)
                if byte & 0x40:
                    changed = True
                    self._table.appendleft(header)
                    self._size += len(name) + len(value) + _ENTRY
                    self._shrink()  # of everything, this header as well, where it alone is larger than the table
            total += len(header[0]) + len(header[1]) + _ENTRY
            if total > self._most:
                raise HpackError("the headers are too large")
            headers.append(header)
        return headers, changed

    def _entry(self, index: int) -> tuple[bytes, bytes]:
        if 0 < index < _DYNAMIC:
            return _STATIC[index]
        if not 0 <= index - _DYNAMIC < len(self._table):
            raise HpackError("a header is not in the table")
        return self._table[index - _DYNAMIC]

    def _shrink(self) -> None:
        while self._size > self._limit:
            name, value = self._table.pop()
            self._size -= len(name) + len(value) + _ENTRY

    def _text(self, block: bytes, at: int) -> tuple[bytes, int]:
        packed = block[at] & 0x80
        size, at = _integer(block, at, 0x7F)
        text = block[at : at + size]
        if len(text) != size:
            raise HpackError("a header block breaks off")
        return (_unpack(text, self._most) if packed else text), at + size


def literal(name: bytes, value: bytes) -> bytes:
    """A header as it is sent, leaving no trace in the table of who receives it."""
    return b"\x00" + _sized(name) + _sized(value)


def _sized(text: bytes) -> bytes:
    size = len(text)
    if size < 0x7F:
        return bytes([size]) + text
    out, size = bytearray([0x7F]), size - 0x7F
    while size > 0x7F:
        out.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes(out) + bytes([size]) + text


def _integer(block: bytes, at: int, mask: int) -> tuple[int, int]:
    """A number that begins in the low bits of a byte."""
    value = block[at] & mask
    at += 1
    if value < mask:
        return value, at
    for shift in (0, 7, 14, 21):
        byte = block[at]
        at += 1
        value += (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise HpackError("a number is too large")


def _unpack(packed: bytes, most: int) -> bytes:
    """A text from its Huffman code."""
    if len(packed) > most:
        raise HpackError("the headers are too large")
    out = bytearray()
    length = code = 0
    for byte in packed:
        for shift in (7, 6, 5, 4, 3, 2, 1, 0):
            length, code = length + 1, code << 1 | byte >> shift & 1
            character = _CODES.get((length, code))
            if character is not None:
                out.append(character)
                length = code = 0
            elif length == 30:
                raise HpackError("a text holds a code that stands for nothing")
    if length > 7 or code != (1 << length) - 1:
        raise HpackError("a text ends in the middle of a code")
    return bytes(out)
