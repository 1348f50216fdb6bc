"""Rows of a table through a model: Arrow batches in, Arrow batches out, a few at a time.

It is the predictor that serving loads, fed with the same arrays that a request makes, and its outputs pass the same
checks. Only what differs from a request is here: columns instead of JSON.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from bedplate.data.arrow import rebatch
from bedplate.errors import InputError
from bedplate.records import ModelSignature, TensorSpec
from bedplate.serve.predictors import FeatureReader, Predictor
from bedplate.serve.rows import Rows
from bedplate.serve.tensors import DTYPES, Arrays, check, plain

ROWS = 4096
"""Rows that are asked at once, where a model takes so many."""


class Scorer:
    """What a model makes of rows.

    ``columns`` are those that it takes, in order: by default the inputs of the signature by name. A model with one
    input of two dimensions takes as many columns as that is wide, whatever they are called. ``keep`` go along unseen.

    Raises:
        InputError: the model does not answer rows, or not these columns.
    """

    def __init__(self, predictor: Predictor, schema: pa.Schema, columns: Sequence[str] = (), keep: Sequence[str] = ()):
        self._predictor = predictor
        self._signature = signature = predictor.signature
        self._rows = Rows(signature)
        if self._rows.kind == "whole":
            raise InputError("this model does not answer rows", fix="ask its endpoint")
        self.columns = tuple(columns) or tuple(spec.name for spec in signature.inputs)
        self.keep = tuple(dict.fromkeys(keep))
        self.read = tuple(dict.fromkeys((*self.keep, *self.columns)))
        for name in self.read:
            if name not in schema.names:
                raise InputError(f"the table has no column {name!r}", fix=f"name some of {', '.join(schema.names)}")
        self._wide = self._one_tensor(signature)
        wanted = self._wide.shape[1] if self._wide is not None else len(signature.inputs)
        if wanted not in (-1, len(self.columns)):
            raise InputError(
                f"the model takes {wanted} columns, not {len(self.columns)}", fix="name them in their order"
            )
        outputs = [pa.field(spec.name, _type(spec, self._rows.inner(spec))) for spec in signature.outputs]
        kept = [schema.field(name) for name in self.keep]
        if twice := {field.name for field in outputs} & {field.name for field in kept}:
            raise InputError(f"{sorted(twice)[0]!r} is a column and an output", fix="keep another column")
        self._kept = pa.schema(kept)
        self.schema = pa.schema([*kept, *outputs])

    def _one_tensor(self, signature: ModelSignature) -> TensorSpec | None:
        spec = signature.inputs[0]
        wide = len(signature.inputs) == 1 and len(spec.shape) == 2 and self._rows.inner(spec)
        return spec if wide and self.columns != (spec.name,) else None

    def score(
        self, batches: Iterable[pa.RecordBatch], features: FeatureReader, on_rows: Callable[[int], None] | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Batches of :attr:`schema`, in the order of the rows; ``on_rows`` is told how many are done.

        Raises:
            InputError: a value does not fit the model, or the model refuses it.
            ModelError: the model gave what cannot be an answer.
        """
        done = 0
        schema: pa.Schema | None = None
        for batch in batches:
            schema = schema or pa.schema([batch.schema.field(name) for name in self.read])
            for table in rebatch([batch.select(self.read)], schema, ROWS if self._rows.kind == "many" else 1):
                yield self._scored(table.combine_chunks(), features)
                done += table.num_rows
                if on_rows is not None:
                    on_rows(done)

    def _scored(self, table: pa.Table, features: FeatureReader) -> pa.RecordBatch:
        answer = self._predictor.predict(self._arrays(table), features)
        check(answer.outputs, self._signature)
        made = [table[field.name].combine_chunks() for field in self._kept]
        outputs = self._signature.outputs
        made += [_column(answer.outputs[spec.name], self.schema.field(spec.name).type) for spec in outputs]
        return pa.RecordBatch.from_arrays(made, schema=self.schema)

    def _arrays(self, table: pa.Table) -> Arrays:
        if self._wide is not None:
            parts = [_values(self._wide.datatype, table[name], name) for name in self.columns]
            return {self._wide.name: np.stack(parts, axis=1)}
        arrays = {}
        for spec, name in zip(self._signature.inputs, self.columns, strict=True):
            column = table[name]
            inner = self._rows.inner(spec)
            if inner:
                arrays[spec.name] = _lists(spec, column, name, inner)
            else:
                arrays[spec.name] = _values(spec.datatype, column, name).reshape((table.num_rows, *spec.shape[1:]))
        return arrays


def marked(schema: pa.Schema, batches: Iterable[pa.RecordBatch], marks: Mapping[str, str]) -> pa.RecordBatchReader:
    """Batches of ``schema`` and further columns, each with one text in every row: as codes, four bytes for each."""
    kind = pa.dictionary(pa.int32(), pa.string())
    whole = pa.schema([*schema, *(pa.field(name, kind, nullable=False) for name in marks)])

    texts = [pa.array([text]) for text in marks.values()]

    def rows() -> Iterator[pa.RecordBatch]:
        for batch in batches:
            codes = np.zeros(batch.num_rows, np.int32)
            columns = [pa.DictionaryArray.from_arrays(codes, text) for text in texts]
            yield pa.RecordBatch.from_arrays([*batch.columns, *columns], schema=whole)

    return pa.RecordBatchReader.from_batches(whole, rows())


def _lists(spec: TensorSpec, column: Any, name: str, inner: tuple[int, ...]) -> npt.NDArray[Any]:
    """A column of lists of one length, shape (rows, length)."""
    if not (pa.types.is_list(column.type) or pa.types.is_large_list(column.type)) or len(inner) != 1:
        raise InputError(f"column {name!r} is {column.type}", fix=f"give lists of {list(inner)} values")
    lengths = pc.list_value_length(column).unique().to_pylist()
    if len(lengths) != 1 or lengths[0] is None or inner[0] not in (-1, lengths[0]):
        raise InputError(
            f"column {name!r} holds lists of {lengths[:5]} values", fix=f"give lists of {list(inner)} values"
        )
    return _values(spec.datatype, pc.list_flatten(column), name).reshape((-1, lengths[0]))


def _values(datatype: str, column: Any, name: str) -> npt.NDArray[Any]:
    """A column as values of this datatype; null is no number where the type has that.

    Raises:
        InputError: it holds others.
    """
    dtype = np.dtype(DTYPES[datatype])
    if column.null_count and dtype.kind != "f":
        raise InputError(f"column {name!r} has rows without a value", fix="leave them out, or fill them")
    try:
        if datatype == "BYTES":
            return np.array(column.cast(pa.string()).to_pylist(), object)
        # A cast that is safe refuses a fraction for an integer, and what is too large for it.
        wanted = pa.bool_() if dtype.kind == "b" else pa.from_numpy_dtype(dtype)
        numbers = column if column.type == wanted else column.cast(wanted, safe=dtype.kind != "f")
        return np.asarray(numbers.to_numpy(), dtype)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
        raise InputError(f"column {name!r} is {column.type}, which is no {datatype}: {error}") from error


def _type(spec: TensorSpec, inner: tuple[int, ...]) -> pa.DataType:
    kind = pa.string() if spec.datatype == "BYTES" else pa.from_numpy_dtype(np.dtype(DTYPES[spec.datatype]))
    for _ in inner:
        kind = pa.list_(kind)
    return kind


def _column(array: npt.NDArray[Any], kind: pa.DataType) -> pa.Array:
    """An output as a column: plain values, or a list for each row."""
    depth, values = 0, kind
    while pa.types.is_list(values):
        depth, values = depth + 1, values.value_type
    if depth > 1:
        return pa.array(array.tolist(), kind)
    flat = array.reshape(-1)
    made = pa.array(plain(flat) if values == pa.string() else flat, values)
    if not depth:
        return made
    offsets = np.arange(len(array) + 1, dtype=np.int32) * np.int32(array.shape[1])
    return pa.ListArray.from_arrays(pa.array(offsets), made)
