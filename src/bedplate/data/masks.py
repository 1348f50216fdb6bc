"""What goes out instead of a value. Of several masks on a column the strictest counts, in whatever order."""

import functools
import hmac
import math
import secrets
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any, get_args

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bedplate.errors import InputError
from bedplate.records import MaskKind, MaskRule, TimeUnit

_UNITS = get_args(TimeUnit)
_STRICTNESS = ("truncate", "redact", "generalise", "noise", "hash", "null", "drop")
_REMEMBERED = 1 << 20
"""Most codes kept from one batch to the next."""


class Mask(msgspec.Struct, frozen=True, kw_only=True):
    """One way to hide a column's values, from strict to lenient:

    - ``drop``: the column does not go out;
    - ``null``: every value is null;
    - ``hash``: a keyed code (HMAC-SHA-256, 128 bits, hex), the same for the same value under the same key;
    - ``noise``: each read adds fresh Laplace noise of ``scale / epsilon`` to every number, so that of two values
      at most ``scale`` apart each is at most ``exp(epsilon)`` times as likely as the other to have been the true one
      (local differential privacy; Dwork and Roth, The Algorithmic Foundations of Differential Privacy, 3.3);
    - ``generalise``: numbers are rounded down to a multiple of ``step``, times to the start of their ``unit``;
    - ``redact``: of a JSON text, the ``members`` of these names are null, at any depth;
    - ``truncate``: the first ``keep`` characters of a text.

    A mask on a type that it does not fit gives nulls.
    """

    kind: MaskKind
    keep: int = 0
    step: float = 0
    unit: TimeUnit = "year"
    members: tuple[str, ...] = ()
    scale: float = 0
    epsilon: float = 0

    def __post_init__(self) -> None:
        if self.keep < 0 or not 0 <= self.step < float("inf"):
            raise InputError(f"a mask keeps {self.keep} characters or rounds to {self.step}", fix="use numbers from 0")
        if self.kind == "noise" and not (0 < self.scale < float("inf") and 0 < self.epsilon < float("inf")):
            raise InputError(
                f"a mask adds noise of scale {self.scale} and epsilon {self.epsilon}", fix="use numbers above 0"
            )

    @staticmethod
    def of(rule: MaskRule) -> "Mask":
        """The mask that a use case names. Raises as the mask itself."""
        return Mask(**msgspec.structs.asdict(rule))

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
            scale=max(self.scale, other.scale),
            epsilon=min(self.epsilon, other.epsilon),
        )


_NULL = (Mask(kind="null"),)


def strictest(masks: Iterable[Mask]) -> Mask | None:
    """The one mask that counts, None where there is none."""
    found = list(masks)
    return functools.reduce(Mask.with_, found) if found else None


class Masks(msgspec.Struct, frozen=True, kw_only=True):
    """The masks of one table, by column: by name, by the tag that brought them there, and those that no right lifts."""

    columns: Mapping[str, Sequence[Mask]] = {}
    tags: Mapping[str, Mapping[str, Sequence[Mask]]] = {}
    firm: Mapping[str, Sequence[Mask]] = {}

    def of(self, column: str, lifted: Container[str] = ()) -> Mask | None:
        """The mask on ``column``, without those of the tags ``lifted``; the tag of masks by name is empty."""
        found = [mask for tag, masks in self._by_tag() if tag not in lifted for mask in masks.get(column, ())]
        return strictest([*found, *self.firm.get(column, ())])

    def also(self, columns: Iterable[str]) -> "Masks":
        """These masks, and nulls on ``columns`` that no right lifts here: it was asked for already."""
        return Masks(columns=self.columns, tags=self.tags, firm={**self.firm, **dict.fromkeys(columns, _NULL)})

    def on(self, columns: Iterable[str]) -> tuple[str, ...]:
        """The tags, the empty one included, that mask any of these columns."""
        asked = tuple(columns)
        return tuple(tag for tag, masks in self._by_tag() if any(masks.get(column) for column in asked))

    def _by_tag(self) -> tuple[tuple[str, Mapping[str, Sequence[Mask]]], ...]:
        return (("", self.columns), *self.tags.items())

    def check(self, schema: pa.Schema, where: str) -> None:
        """Refuse masks on columns that are not there: a mistyped name would leave its column open.

        Raises:
            InputError: there are such.
        """
        named = {column for _, masks in self._by_tag() for column in masks} | self.firm.keys()
        if strange := sorted(named.difference(schema.names)):
            raise InputError(
                f"masks name {', '.join(strange)}, which the table has not", where=where, fix="correct the names"
            )


class Masking:
    """The masks on the columns of one read.

    ``columns`` says what each column that goes out is, to a scan. What takes a key, a parser or a generator, and what
    is made faster of whole columns, is done by :meth:`after` on what the scan gives: nobody has seen it by then.

    Raises:
        InputError: a hash without a secret key of 16 bytes or more.
    """

    def __init__(self, schema: pa.Schema, names: Iterable[str], masks: Mapping[str, Mask], key: bytes) -> None:
        if any(mask.kind == "hash" for mask in masks.values()) and len(key) < 16:
            raise InputError("masks that hash need a secret key of at least 16 bytes", fix="give the reader a mask key")
        self.columns: dict[str, pc.Expression] = {}
        self._nulls: list[pa.Field] = []
        self._after: dict[str, Mask] = {}
        self._order: list[str] = []
        self._key = key
        for name in names:
            mask, kind = masks.get(name), schema.field(name).type
            if mask is not None and mask.kind == "drop":
                continue
            self._order.append(name)
            if mask is None or _is_done_after(kind, mask):
                self.columns[name] = pc.field((name,))
                if mask is not None:
                    self._after[name] = mask
            elif (made := _expression(pc.field((name,)), kind, mask)) is not None:
                self.columns[name] = made
            else:
                self._nulls.append(pa.field(name, pa.string() if mask.kind == "hash" else kind))

    def after(self, reader: pa.RecordBatchReader) -> pa.RecordBatchReader:
        """The rows of a scan of :attr:`columns`, with the rest of the masks on."""
        if not self._after and not self._nulls:
            return reader
        hashed = [name for name, mask in self._after.items() if mask.kind == "hash"]
        codes = {name: _Codes(self._key, reader.schema.field(name).type) for name in hashed}
        generator = np.random.default_rng(secrets.randbits(128))
        fields = {f.name: f.with_type(pa.string()) if f.name in codes else f for f in reader.schema}
        fields |= {field.name: field for field in self._nulls}
        schema = pa.schema([fields[name] for name in self._order])

        def masked(name: str, batch: pa.RecordBatch) -> pa.Array:
            if name not in self.columns:
                return pa.nulls(batch.num_rows, fields[name].type)
            values, mask = batch.column(name), self._after.get(name)
            if mask is None:
                return values
            if mask.kind == "hash":
                return codes[name].of(values)
            if mask.kind == "noise":
                return _noised(values, mask, generator)
            if mask.kind == "generalise":
                return _floored(values, int(mask.step))
            members = mask.members
            return pa.array([None if t is None else _redacted(t, members) for t in values.to_pylist()], pa.string())

        batches = (
            pa.RecordBatch.from_arrays([masked(name, batch) for name in self._order], schema=schema) for batch in reader
        )
        return pa.RecordBatchReader.from_batches(schema, batches)


def _is_done_after(kind: pa.DataType, mask: Mask) -> bool:
    if mask.kind == "hash":
        return not pa.types.is_nested(kind)
    if mask.kind == "noise":
        return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))
    if mask.kind == "generalise":
        return bool(pa.types.is_integer(kind) and mask.step and mask.step == int(mask.step))
    return mask.kind == "redact" and bool(pa.types.is_string(kind))


def _noised(values: pa.Array, mask: Mask, generator: np.random.Generator) -> pa.Array:
    """Numbers with noise, on a grid: the low bits of a sum would tell more of the number than the noise hides
    (Mironov, On Significance of the Least Significant Bits For Differential Privacy, 2012). What is no finite number is
    null; what the type cannot bear is its least or greatest."""
    width = mask.scale / mask.epsilon
    true = values.cast(pa.float64(), safe=False)
    noise = generator.laplace(0.0, width, len(values))
    grid = 2.0 ** (math.floor(math.log2(width)) - 10)
    whole = bool(pa.types.is_integer(values.type))
    exact = true.fill_null(0).to_numpy(zero_copy_only=False)
    finite = np.isfinite(exact)
    noisy = np.round((np.where(finite, exact, 0.0) + noise) / grid) * grid
    gone = ~finite | true.is_null().to_numpy(zero_copy_only=False)
    if whole:
        kind = np.iinfo(values.type.to_pandas_dtype())
        least, most = float(kind.min), np.nextafter(float(kind.max), 0) if kind.bits == 64 else float(kind.max)
        noisy = np.round(noisy).clip(least, most).astype(kind.dtype)
    return pa.array(noisy, mask=gone).cast(values.type)


def _expression(values: pc.Expression, kind: pa.DataType, mask: Mask) -> pc.Expression | None:
    """The mask as part of a scan; None where it does not fit the type, or leaves nothing."""
    if mask.kind == "truncate" and pa.types.is_string(kind):
        return pc.utf8_slice_codeunits(values, 0, mask.keep)
    if mask.kind == "generalise":
        if pa.types.is_date(kind) or pa.types.is_timestamp(kind):
            return pc.floor_temporal(values, unit=mask.unit).cast(kind)
        if mask.step and pa.types.is_floating(kind):
            return pc.multiply(pc.floor(pc.divide(values, mask.step)), mask.step).cast(kind)
    return None


def _floored(values: pa.Array, step: int) -> pa.Array:
    """Whole numbers rounded down; exact, and null where the type has no number so low."""
    kind = np.iinfo(values.type.to_pandas_dtype())
    numbers = pc.fill_null(values, 0).to_numpy(zero_copy_only=False)
    if step > kind.max:
        floors = np.where(numbers < 0, max(-step, kind.min), 0).astype(kind.dtype)
        gone = (numbers < 0) & (-step < kind.min)
    else:
        floors = numbers // kind.dtype.type(step) * kind.dtype.type(step)
        gone = numbers < -(-kind.min // step) * step
    gone |= values.is_null().to_numpy(zero_copy_only=False)
    return pa.array(floors, mask=gone if gone.any() else None)


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


class _Codes:
    """The codes of one column's values: computed once for each distinct value, found again without Python."""

    def __init__(self, key: bytes, kind: pa.DataType) -> None:
        self._key = key
        self._values: pa.Array = pa.array([], kind)
        self._codes: pa.Array = pa.array([], pa.string())

    def of(self, values: pa.Array) -> pa.Array:
        """The code of each value; null for null."""
        coded = values.dictionary_encode()
        places = pc.index_in(coded.dictionary, value_set=self._values)
        if places.null_count:
            self._learn(coded.dictionary.filter(places.is_null()))
            places = pc.index_in(coded.dictionary, value_set=self._values)
        return self._codes.take(places).take(coded.indices)

    def _learn(self, values: pa.Array) -> None:
        codes = pa.array([self._code(value) for value in values.to_pylist()], pa.string())
        if len(self._values) > _REMEMBERED:
            self._values, self._codes = self._values.slice(0, 0), self._codes.slice(0, 0)
        self._values = pa.concat_arrays([self._values, values])
        self._codes = pa.concat_arrays([self._codes, codes])

    def _code(self, value: Any) -> str:
        text = value.hex() if isinstance(value, bytes) else str(value)
        return hmac.digest(self._key, text.encode(), "sha256").hex()[:32]
