"""What goes out instead of a value. Of several masks on a column the strictest counts, in whatever order."""

import functools
import hashlib
import hmac
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from bedplate.errors import InputError

Unit = Literal["day", "month", "quarter", "year"]
_UNITS: tuple[Unit, ...] = ("day", "month", "quarter", "year")
_STRICTNESS = ("truncate", "redact", "generalise", "hash", "null", "drop")
_REMEMBERED = 1 << 20
"""Most codes kept from one batch to the next."""


class Mask(msgspec.Struct, frozen=True, kw_only=True):
    """One way to hide a column's values, from strict to lenient:

    - ``drop``: the column does not go out;
    - ``null``: every value is null;
    - ``hash``: a keyed code (HMAC-SHA-256, 128 bits, hex), the same for the same value under the same key;
    - ``generalise``: numbers are rounded down to a multiple of ``step``, times to the start of their ``unit``;
    - ``redact``: of a JSON text, the ``members`` of these names are null, at any depth;
    - ``truncate``: the first ``keep`` characters of a text.

    A mask on a type that it does not fit gives nulls.
    """

    kind: Literal["drop", "null", "hash", "generalise", "redact", "truncate"]
    keep: int = 0
    step: float = 0
    unit: Unit = "year"
    members: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.keep < 0 or not 0 <= self.step < float("inf"):
            raise InputError(f"a mask keeps {self.keep} characters or rounds to {self.step}", fix="use numbers from 0")

    def with_(self, other: "Mask") -> "Mask":
        """The stricter of the two, or of the same kind what hides what either hides."""
        mine, others = _STRICTNESS.index(self.kind), _STRICTNESS.index(other.kind)
        if mine != others:
            return self if mine > others else other
        return Mask(
            kind=self.kind,
            keep=min(self.keep, other.keep),
            step=0 if 0 in (self.step, other.step) else max(self.step, other.step),
            unit=max(self.unit, other.unit, key=_UNITS.index),
            members=tuple(sorted({*self.members, *other.members})),
        )


def strictest(masks: Iterable[Mask]) -> Mask | None:
    """The one mask that counts, None where there is none."""
    found = list(masks)
    return functools.reduce(Mask.with_, found) if found else None


class Masks(msgspec.Struct, frozen=True, kw_only=True):
    """The masks of one table, by column and by tag. ``tagged`` says which tags a column bears."""

    columns: Mapping[str, Sequence[Mask]] = {}
    tags: Mapping[str, Sequence[Mask]] = {}
    tagged: Mapping[str, Sequence[str]] = {}

    def of(self, column: str) -> Mask | None:
        """The mask on ``column``."""
        by_tag = [mask for tag in self.tagged.get(column, ()) for mask in self.tags.get(tag, ())]
        return strictest([*self.columns.get(column, ()), *by_tag])

    def check(self, schema: pa.Schema, where: str) -> None:
        """Refuse masks on columns that are not there: a mistyped name would leave its column open.

        Raises:
            InputError: there are such.
        """
        if strange := sorted({*self.columns, *self.tagged}.difference(schema.names)):
            raise InputError(
                f"masks name {', '.join(strange)}, which the table has not", where=where, fix="correct the names"
            )


def mask_stream(reader: pa.RecordBatchReader, masks: Mapping[str, Mask], key: bytes) -> pa.RecordBatchReader:
    """The same rows with the masks on. ``key`` keys the codes of ``hash``: 16 bytes or more, and secret.

    Raises:
        InputError: a hash without such a key.
    """
    if any(mask.kind == "hash" for mask in masks.values()) and len(key) < 16:
        raise InputError("masks that hash need a secret key of at least 16 bytes", fix="give the reader a mask key")
    kept = [field for field in reader.schema if (mask := masks.get(field.name)) is None or mask.kind != "drop"]
    schema = pa.schema([pa.field(field.name, _type(field.type, masks.get(field.name))) for field in kept])
    codes: dict[str, str] = {}

    def masked(batch: pa.RecordBatch, field: pa.Field) -> pa.Array:
        values = batch.column(field.name)
        mask = masks.get(field.name)
        return values if mask is None else _apply(mask, values, key, codes)

    batches = (
        pa.RecordBatch.from_arrays([masked(batch, field) for field in kept], schema=schema)
        if kept
        else pa.RecordBatch.from_struct_array(pa.array([{}] * batch.num_rows, pa.struct([])))
        for batch in reader
    )
    return pa.RecordBatchReader.from_batches(schema, batches)


def _type(kind: pa.DataType, mask: Mask | None) -> pa.DataType:
    return pa.string() if mask is not None and mask.kind == "hash" else kind


def _apply(mask: Mask, values: pa.Array, key: bytes, codes: dict[str, str]) -> pa.Array:
    nothing = pa.nulls(len(values), _type(values.type, mask))
    if mask.kind == "hash":
        return nothing if pa.types.is_nested(values.type) else _hashed(values, key, codes)
    if mask.kind == "truncate" and pa.types.is_string(values.type):
        return pc.utf8_slice_codeunits(values, 0, mask.keep)
    if mask.kind == "redact" and pa.types.is_string(values.type):
        return pa.array([None if text is None else _redacted(text, mask.members) for text in values.to_pylist()])
    if mask.kind == "generalise":
        if pa.types.is_date(values.type) or pa.types.is_timestamp(values.type):
            return pc.floor_temporal(values, unit=mask.unit).cast(values.type)
        if mask.step and (pa.types.is_integer(values.type) or pa.types.is_floating(values.type)):
            return _floored(values, mask.step)
    return nothing


def _redacted(text: str, members: Sequence[str]) -> str | None:
    try:
        value = msgspec.json.decode(text)
    except msgspec.DecodeError:
        return None  # no JSON: what it says cannot be told apart
    return msgspec.json.encode(_without(value, members)).decode()


def _without(value: Any, members: Sequence[str]) -> Any:
    if isinstance(value, dict):
        return {key: None if key in members else _without(item, members) for key, item in value.items()}
    return [_without(item, members) for item in value] if isinstance(value, list) else value


def _floored(values: pa.Array, step: float) -> pa.Array:
    if pa.types.is_floating(values.type):
        return pc.multiply(pc.floor(pc.divide(values, step)), step).cast(values.type)
    if step != int(step):
        return pa.nulls(len(values), values.type)
    # In Python's integers: exact, and nothing overflows at the ends of the range.
    low = -(1 << (values.type.bit_width - 1))
    coded = values.dictionary_encode()
    floors = [value // int(step) * int(step) for value in coded.dictionary.to_pylist()]
    kept = pa.array([floor if floor >= low else None for floor in floors], values.type)
    return pc.take(kept, coded.indices)


def _hashed(values: pa.Array, key: bytes, codes: dict[str, str]) -> pa.Array:
    """One code for each distinct value, so that a million rows of a thousand people cost a thousand."""
    coded = values.dictionary_encode()
    if len(codes) > _REMEMBERED:
        codes.clear()
    found = []
    for value in coded.dictionary.to_pylist():
        text = value.hex() if isinstance(value, bytes) else str(value)
        if text not in codes:
            codes[text] = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()[:32]
        found.append(codes[text])
    return pc.take(pa.array(found, pa.string()), coded.indices)
