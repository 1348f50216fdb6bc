"""The protobuf wire format, read and written: enough for an ONNX model and for the inference protocol over gRPC.

Without generated classes a tensor is a view of the message that carried it, and a replica need not load the library.
"""

from collections.abc import Iterator
from typing import NamedTuple


class Field(NamedTuple):
    """One field of a message: its number, and its value as an integer or as bytes that are not copied."""

    number: int
    integer: int
    data: memoryview


_NOTHING = memoryview(b"")


def fields(message: memoryview) -> Iterator[Field]:
    """The fields of one message, in order.

    Raises:
        ValueError: it is not a message.
    """
    position = 0
    while position < len(message):
        field, position = field_at(message, position)
        yield field


def field_at(message: memoryview, position: int) -> tuple[Field, int]:
    """The field that starts at ``position``, and where the next one starts.

    Raises:
        ValueError: there is none.
    """
    tag, position = varint_at(message, position)
    number, wire_type = tag >> 3, tag & 7
    if number == 0:
        raise ValueError("a field has number 0")
    if wire_type == 0:
        integer, position = varint_at(message, position)
        return Field(number, integer, _NOTHING), position
    if wire_type == 2:
        length, position = varint_at(message, position)
    elif wire_type in (1, 5):
        length = 8 if wire_type == 1 else 4
    else:
        raise ValueError(f"a field has wire type {wire_type}")
    end = position + length
    if end > len(message):
        raise ValueError("a field reaches past the end of its message")
    return Field(number, 0, message[position:end]), end


def varint_at(message: bytes | memoryview, position: int) -> tuple[int, int]:
    """The number that starts at ``position``, and where the next field starts.

    Raises:
        ValueError: there is none.
    """
    value = 0
    for shift in range(0, 70, 7):
        try:
            byte = message[position]
        except IndexError:
            raise ValueError("a number breaks off") from None
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError("a number has more than ten bytes")


def varint(value: int) -> bytes:
    """A whole number; one below zero as the ten bytes that it takes here."""
    if 0 <= value < 0x80:
        return _SMALL[value]
    value &= 0xFFFF_FFFF_FFFF_FFFF
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


_SMALL = [bytes([value]) for value in range(0x80)]


def field(number: int, value: int | bytes | str) -> bytes:
    """One field of a message: a whole number, or bytes (a text, a message, packed numbers) with their length."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data
