"""Frames between a limited process and its owner: one byte of kind, eight bytes of length, then that many bytes.

The owner treats everything it reads as written by an adversary: lengths are capped before they are believed, and JSON
is decoded into typed values.
"""

import struct
from typing import IO, Literal

Kind = Literal["header", "confined", "progress", "name", "file", "request", "result", "taken", "error"]

_CODES: dict[Kind, bytes] = {
    "header": b"H",
    "confined": b"C",
    "progress": b"P",
    "name": b"N",
    "file": b"F",
    "request": b"Q",
    "result": b"R",
    "taken": b"T",
    "error": b"E",
}
_KINDS = {code: kind for kind, code in _CODES.items()}
_HEAD = struct.Struct("<cQ")
_BLOCK = 1 << 20


HEAD = _HEAD.size
"""Bytes before the payload of a frame."""


def head(kind: Kind, length: int) -> bytes:
    """What stands before a payload of ``length`` bytes."""
    return _HEAD.pack(_CODES[kind], length)


def parse_head(data: bytes | bytearray, limits: dict[Kind, int]) -> tuple[Kind, int]:
    """The kind and the length of the payload that :func:`head` announced.

    Raises:
        ValueError: the frame is of no kind in ``limits``, or is longer than its limit.
    """
    code, length = _HEAD.unpack(data)
    kind = _KINDS.get(code)
    if kind is None or kind not in limits:
        raise ValueError(f"no frame of kind {code!r} is expected")
    if length > limits[kind]:
        raise ValueError(f"a {kind} frame of {length} bytes is over its limit of {limits[kind]}")
    return kind, length


def write(stream: IO[bytes], kind: Kind, payload: bytes | memoryview) -> None:
    """Write one frame and push it out."""
    stream.write(head(kind, len(payload)))
    stream.write(payload)
    stream.flush()


def read(stream: IO[bytes], limits: dict[Kind, int]) -> tuple[Kind, bytes] | None:
    """The next frame, or None at the end of the stream.

    Raises:
        ValueError: the frame is of no kind in ``limits``, is longer than its limit, or breaks off.
    """
    start = stream.read(HEAD)
    if not start:
        return None
    if len(start) < HEAD:
        raise ValueError("a frame breaks off in its head")
    kind, length = parse_head(start, limits)
    # In blocks: a length is a claim, and memory is spent only on bytes that came.
    blocks: list[bytes] = []
    while length:
        block = stream.read(min(length, _BLOCK))
        if not block:
            raise ValueError(f"a {kind} frame breaks off")
        blocks.append(block)
        length -= len(block)
    return kind, b"".join(blocks)
