"""Rows of values, as databases give them, as columns of text."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

import msgspec
import pyarrow as pa

AT_ONCE = 16_384
"""Rows that are held together."""


def batch(rows: Iterable[Any], names: list[str]) -> pa.RecordBatch:
    """The rows as text: by which driver they came does not matter then."""
    columns = list(zip(*rows, strict=True)) or [()] * len(names)
    return pa.RecordBatch.from_arrays([pa.array(map(_text, column), pa.string()) for column in columns], names)


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return value.isoformat(" ")
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).hex()
    if isinstance(value, list | dict | tuple):
        return msgspec.json.encode(value).decode()
    return str(value)
