"""The bytes of a segment.

::

    header   "BPJ1" | u32 length | JSON {"id", "salt", "created"} | u32 crc of the JSON
    record   u32 length (1 .. 2^28) | u32 crc | payload
    footer   u32 0xFFFFFFFF | u32 length | JSON {"count", "digest"} | u32 crc of the JSON

Numbers are little-endian. The crc of a record is CRC-32 over its payload, continued from the crc before it (the
header's for the first), so a record that is moved, dropped or taken from another segment does not fit. The digest in
the footer is SHA-256 over everything before it. The salt lets a ledger commit to a segment without giving its
content away to somebody who can guess it.
"""

import os
import struct
import zlib
from typing import Any, BinaryIO

import msgspec

from bedplate import clock, ids
from bedplate.errors import IntegrityError

MAGIC = b"BPJ1"
FOOTER_MARK = 0xFFFFFFFF
MAX_RECORD = 1 << 28
OPEN, SEALED, TORN = ".open", ".sealed", ".torn"

_PAIR = struct.Struct("<II")
_WORD = struct.Struct("<I")


class Header(msgspec.Struct, frozen=True):
    """Who a segment is. ``salt`` is 16 random bytes as hexadecimal text."""

    id: str
    salt: str
    created: str


class Footer(msgspec.Struct, frozen=True):
    """What a sealed segment holds: the number of records, and the SHA-256 of all bytes before the footer."""

    count: int
    digest: ids.Digest


def new_header() -> Header:
    """A header with a fresh id and salt."""
    return Header(id=ids.new_id("seg"), salt=os.urandom(16).hex(), created=clock.timestamp())


def encode_header(header: Header) -> tuple[bytes, int]:
    """The header's bytes, and the crc that the first record continues from."""
    text = ids.canonical(header)
    crc = zlib.crc32(text)
    return MAGIC + _WORD.pack(len(text)) + text + _WORD.pack(crc), crc


def start_record(payload: bytes | memoryview, crc: int) -> tuple[bytes, int]:
    """The bytes before a record's payload, and the crc that the next record continues from."""
    crc = zlib.crc32(payload, crc)
    return _PAIR.pack(len(payload), crc), crc


def encode_footer(footer: Footer) -> bytes:
    """The footer's bytes."""
    text = ids.canonical(footer)
    return _PAIR.pack(FOOTER_MARK, len(text)) + text + _WORD.pack(zlib.crc32(text))


def read_header(file: BinaryIO) -> tuple[Header, int] | None:
    """The header at the start of ``file`` and its crc; None when it is not whole."""
    start = file.read(8)
    if len(start) < 8 or start[:4] != MAGIC:
        return None
    (length,) = _WORD.unpack(start[4:])
    text = file.read(length) if length < 4096 else b""
    end = file.read(4)
    if not text or len(end) < 4 or _WORD.unpack(end)[0] != zlib.crc32(text):  # zeros have the checksum of nothing
        return None
    return _json(text, Header), zlib.crc32(text)


def read_record(file: BinaryIO, crc: int) -> tuple[bytes, int] | Footer | None:
    """What comes next: a record with its crc, the footer, or None when nothing whole follows."""
    start = file.read(8)
    if len(start) < 8:
        return None
    length, expected = _PAIR.unpack(start)
    if length == FOOTER_MARK:
        text = file.read(expected) if expected < 4096 else b""
        end = file.read(4)
        whole = len(end) == 4 and _WORD.unpack(end)[0] == zlib.crc32(text)
        return _json(text, Footer) if whole else None
    if not 1 <= length <= MAX_RECORD:
        return None
    payload = file.read(length)
    found = zlib.crc32(payload, crc)
    return (payload, found) if len(payload) == length and found == expected else None


def parse_footer(data: bytes) -> Footer | None:
    """The footer that ``data`` is, exactly; None when it is anything else."""
    if len(data) < 12:
        return None
    mark, length = _PAIR.unpack(data[:8])
    text, end = data[8 : 8 + length], data[8 + length :]
    if mark != FOOTER_MARK or len(end) != 4 or _WORD.unpack(end)[0] != zlib.crc32(text):
        return None
    footer: Footer = _json(text, Footer)
    return footer


def _json(text: bytes, of: Any) -> Any:
    try:
        return msgspec.json.decode(text, type=of)
    except msgspec.DecodeError as error:
        raise IntegrityError(f"a journal segment holds a wrong {of.__name__.lower()}: {error}") from error
