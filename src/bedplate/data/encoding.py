"""How a column is written in Parquet, chosen from a sample of its values: less work and less room than one for all.

Only encodings that every common reader of Parquet knows are used. The choice depends on the rows alone, so the same
rows give the same bytes.
"""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

_SAMPLE = 4096
_WIDE = 1 << 16
"""Whole numbers that lie closer together than this pack well as differences, however often they repeat."""


def options(table: pa.Table) -> dict[str, Any]:
    """Arguments for the Parquet writer: which columns are dictionaries, and how the others are encoded."""
    dictionaries: list[str] = []
    encodings: dict[str, str] = {}
    for field, column in zip(table.schema, table.columns, strict=True):
        kind = field.type
        if pa.types.is_nested(kind):
            dictionaries.extend(_leaves(field.name, kind))
        elif pa.types.is_dictionary(kind) or _repeats(column):
            dictionaries.append(field.name)
        elif _whole(kind):
            encodings[field.name] = "DELTA_BINARY_PACKED"
    return {"use_dictionary": dictionaries or False, "column_encoding": encodings or None}


def _whole(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_timestamp(kind) or pa.types.is_date32(kind))


def _repeats(column: pa.ChunkedArray) -> bool:
    """Whether few values stand for many rows."""
    kind = column.type
    if pa.types.is_boolean(kind) or pa.types.is_decimal(kind):
        return False
    sample = column.slice(0, _SAMPLE).drop_null()
    if not len(sample):
        return True
    distinct = pc.count_distinct(sample).as_py()
    if not _whole(kind):
        return bool(2 * distinct <= len(sample))
    if 16 * distinct > len(sample):
        return False
    numbers = sample.cast(pa.int32() if pa.types.is_date32(kind) else pa.int64())
    ends = pc.min_max(numbers).as_py()
    return bool(ends["max"] - ends["min"] > _WIDE)


def _leaves(path: str, kind: pa.DataType) -> Iterator[str]:
    if pa.types.is_list(kind):
        yield from _leaves(f"{path}.list.element", kind.value_type)
    elif pa.types.is_struct(kind):
        for field in kind:
            yield from _leaves(f"{path}.{field.name}", field.type)
    else:
        yield path
