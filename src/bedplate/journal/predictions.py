"""One record of the prediction log.

::

    record   u32 length of the JSON (little-endian) | JSON | the bytes of packed arrays, one behind the other

The JSON is a :class:`~bedplate.records.Prediction`. A packed array stands in it as ``{"dtype", "shape", "at"}``, and
its elements, row by row, ``at`` so many bytes behind the JSON: as text they would be a third more, and making it
takes longer than checksum and digest together.
"""

import math
import struct
from typing import Any, TypeVar

import msgspec
import numpy as np

from bedplate.errors import IntegrityError
from bedplate.records import Prediction, TraceContext

_LENGTH = struct.Struct("<I")


class Packed:
    """Many numbers of one array; ``dtype`` as NumPy writes it, ``data`` row by row."""

    __slots__ = ("data", "dtype", "shape")

    def __init__(self, dtype: str, shape: tuple[int, ...], data: bytes | memoryview) -> None:
        self.dtype, self.shape, self.data = dtype, shape, data


class Encoder:
    """Makes records. To be used from one thread."""

    def __init__(self) -> None:
        self._arrays: list[bytes | memoryview] = []
        self._size = 0
        self._encode = msgspec.json.Encoder(enc_hook=self._set_aside).encode

    def head(self, constant: dict[str, Any]) -> bytes:
        """What many records begin with: these fields, encoded once."""
        return self._encode(constant)[:-1] + b","

    def record(self, head: bytes, own: msgspec.Struct, trace: TraceContext | None = None) -> bytes:
        """The record of the fields of a head, those of ``own`` and, if there is one, a trace."""
        try:
            text = head + self._encode(own)[1:]
            if trace is not None:
                text = text[:-1] + b',"trace":' + self._encode(trace) + b"}"
            if not self._arrays:
                return _LENGTH.pack(len(text)) + text
            return b"".join((_LENGTH.pack(len(text)), text, *self._arrays))
        finally:
            if self._arrays:
                self._arrays, self._size = [], 0

    def _set_aside(self, value: object) -> dict[str, Any]:
        """Called for what JSON does not know."""
        if not isinstance(value, Packed):
            raise NotImplementedError(type(value).__name__)
        at, self._size = self._size, self._size + len(value.data)
        self._arrays.append(value.data)
        return {"dtype": value.dtype, "shape": value.shape, "at": at}


class _Place(msgspec.Struct):
    """Where a packed array is."""

    dtype: str
    shape: tuple[int, ...]
    at: int


_prediction = msgspec.json.Decoder(Prediction)
T = TypeVar("T")


def decode(record: bytes) -> Prediction:
    """The prediction of a record; packed arrays are nested lists.

    Raises:
        IntegrityError: the record holds something else.
    """
    text, arrays = _parted(record)
    try:
        prediction = _prediction.decode(text)
    except msgspec.DecodeError as error:
        raise IntegrityError(f"a journal record is no prediction: {error}") from error
    for values in (prediction.inputs, prediction.outputs):
        for name, value in values.items():
            if isinstance(value, dict):
                values[name] = _unpacked(value, arrays)
    return prediction


def part(record: bytes, of: type[T]) -> T:
    """Some fields of a record, without its arrays.

    Raises:
        IntegrityError: the record does not have them.
    """
    try:
        return msgspec.json.decode(_parted(record)[0], type=of)
    except msgspec.DecodeError as error:
        raise IntegrityError(f"a journal record is no prediction: {error}") from error


def _parted(record: bytes) -> tuple[memoryview, memoryview]:
    """The JSON and the arrays."""
    whole = memoryview(record)
    end = _LENGTH.size
    if len(whole) >= end:
        end += _LENGTH.unpack_from(whole)[0]
    if not _LENGTH.size < end <= len(whole):
        raise IntegrityError("a journal record is no prediction: its length is not that of its text")
    return whole[_LENGTH.size : end], whole[end:]


def _unpacked(value: dict[str, Any], arrays: memoryview) -> Any:
    try:
        place = msgspec.convert(value, _Place)
        if min((place.at, *place.shape)) < 0:
            raise ValueError("a negative size")
        array = np.frombuffer(arrays, place.dtype, math.prod(place.shape), place.at)
        return array.reshape(place.shape).tolist()
    except (msgspec.ValidationError, TypeError, ValueError) as error:
        raise IntegrityError(f"a journal record holds no array: {error}") from error
