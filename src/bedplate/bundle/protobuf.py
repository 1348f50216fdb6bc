"""A reader of the protobuf wire format: enough to look at an ONNX model without the library that wrote it."""

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
    tag, position = _varint(message, position)
    number, wire_type = tag >> 3, tag & 7
    if number == 0:
        raise ValueError("a field has number 0")
    if wire_type == 0:
        integer, position = _varint(message, position)
        return Field(number, integer, _NOTHING), position
    if wire_type == 2:
        length, position = _varint(message, position)
    elif wire_type in (1, 5):
        length = 8 if wire_type == 1 else 4
    else:
        raise ValueError(f"a field has wire type {wire_type}")
    end = position + length
    if end > len(message):
        raise ValueError("a field reaches past the end of its message")
    return Field(number, 0, message[position:end]), end


def _varint(message: memoryview, position: int) -> tuple[int, int]:
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
