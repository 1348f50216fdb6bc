"""A model as a function of rows: one object for each row, whose fields are the tensors of the signature.

Where every tensor begins with a free dimension, that is the row: ``[-1, 3]`` is a list of three numbers in each row,
``[-1, 1]`` and ``[-1]`` a plain value. A model whose first dimensions are fixed at 1 answers one row at a time, and one
that has other shapes takes its tensors whole. The types here are made of the signature, so what they refuse and what
the description of the interface says are the same.
"""

import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from bedplate.errors import InputError
from bedplate.records import ModelSignature, TensorSpec
from bedplate.serve.tensors import DTYPES, Arrays, Call, ModelError, logged, plain

_INTEGERS = frozenset(dtype for name, dtype in DTYPES.items() if name.startswith(("INT", "UINT")))
_ODD = re.compile(r'[\x00-\x1f"\\]')
Kind = Literal["many", "one", "whole"]


def readable(signature: ModelSignature) -> bool:
    """Whether the tensors have names that a field of a row may have; JSON would have to escape others."""
    return not any(_ODD.search(spec.name) for spec in (*signature.inputs, *signature.outputs))


class Rows:
    """Reads and writes the rows of one signature, which must be :func:`readable`.

    ``kind`` says how many rows a call may have: ``many``, ``one``, or ``whole`` for tensors without rows.
    ``row_type`` is the struct of a row that goes in, ``answer_type`` that of one that comes out; ``request_type`` and
    ``response_type`` are those, or lists of them where a call may have many.
    """

    def __init__(self, signature: ModelSignature) -> None:
        self.kind = _kind(signature)
        self._inputs, self._outputs = signature.inputs, signature.outputs
        self.row_type = self._struct("Row", signature.inputs)
        self.answer_type = self._struct("Answer", signature.outputs)
        some = msgspec.Meta(min_length=1)
        self.request_type: Any = self.row_type
        self.response_type: Any = self.answer_type
        if self.kind == "many":
            self.request_type = self.row_type | Annotated[list[self.row_type], some]  # type: ignore[name-defined]
            self.response_type = self.answer_type | Annotated[list[self.answer_type], some]  # type: ignore[name-defined]

    def inner(self, spec: TensorSpec) -> tuple[int, ...]:
        """The shape of one row of a tensor; empty for a plain value."""
        if self.kind == "whole":
            return spec.shape
        return () if spec.shape[1:] == (1,) else spec.shape[1:]

    def _struct(self, name: str, specs: Sequence[TensorSpec]) -> type[msgspec.Struct]:
        # A tensor may be called anything, a field of a class may not.
        fields = [(f"field_{i}", _type(spec.datatype, self.inner(spec))) for i, spec in enumerate(specs)]
        names = {f"field_{i}": spec.name for i, spec in enumerate(specs)}
        return msgspec.defstruct(name, fields, rename=names, forbid_unknown_fields=True, frozen=True)

    # ------------------------------------------------------------------------------------------------------------- in

    def call(self, rows: Sequence[msgspec.Struct], request_id: str | None) -> Call:
        """The call of ``rows``, structs of ``row_type``.

        Raises:
            InputError: their values do not make a tensor.
        """
        columns = zip(*map(msgspec.structs.astuple, rows), strict=True)
        return self.call_of(
            {spec.name: list(column) for spec, column in zip(self._inputs, columns, strict=True)}, request_id
        )

    def call_of(self, columns: dict[str, list[Any]], request_id: str | None) -> Call:
        """The call of columns: for each input the values of every row, which fit its datatype.

        Raises:
            InputError: the values of a column do not make a tensor.
        """
        given: dict[str, Any] = {}
        for spec in self._inputs:
            column = columns[spec.name]
            if self.kind == "whole":
                given[spec.name] = column[0]
            else:
                given[spec.name] = column if self.inner(spec) or len(spec.shape) == 1 else [[value] for value in column]
        return self.call_whole(given, request_id)

    def call_whole(self, tensors: dict[str, Any], request_id: str | None) -> Call:
        """The call of tensors as nested lists of values that fit their datatypes.

        Raises:
            InputError: a list is not of one shape, or that is not the shape of its input.
        """
        arrays = {spec.name: _array(spec, tensors[spec.name]) for spec in self._inputs}
        return Call(request_id, arrays, {name: logged(array) for name, array in arrays.items()})

    # ------------------------------------------------------------------------------------------------------------ out

    def answers(self, outputs: Arrays, count: int) -> list[dict[str, Any]]:
        """One object for each of ``count`` rows, from checked outputs.

        Raises:
            ModelError: the model gave another number of rows.
        """
        columns = [self._plain(spec, outputs[spec.name], count) for spec in self._outputs]
        names = [spec.name for spec in self._outputs]
        return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]

    def _plain(self, spec: TensorSpec, array: npt.NDArray[Any], count: int) -> list[Any]:
        if self.kind == "whole":
            return [nested(array)]
        if len(array) != count:
            raise ModelError(f"the model gave {len(array)} rows of {spec.name!r} for {count}")
        rows: list[Any] = nested(array.reshape(count) if not self.inner(spec) else array)
        return rows


def nested(array: npt.NDArray[Any]) -> Any:
    """The values of an array as JSON has them, nested as the array is."""
    if array.dtype.kind in "OS":
        array = np.array(plain(array), object).reshape(array.shape)
    return array.tolist()


def _array(spec: TensorSpec, given: Any) -> npt.NDArray[Any]:
    if DTYPES[spec.datatype] in _INTEGERS:
        given = _integers(spec, given)
    try:
        with np.errstate(over="raise"):
            array = np.array(given, DTYPES[spec.datatype])
    except (OverflowError, FloatingPointError, ValueError, TypeError) as error:
        raise InputError(f"the values of {spec.name!r} are no {spec.datatype} of one shape: {error}") from error
    shape = array.shape
    if len(shape) != len(spec.shape) or any(n not in (-1, m) for n, m in zip(spec.shape, shape, strict=True)):
        raise InputError(f"the values of {spec.name!r} have shape {list(shape)}", fix=f"send {list(spec.shape)}")
    return array


def _integers(spec: TensorSpec, given: Any) -> Any:
    """Numbers as integers, which an array would cut them to in silence."""
    if isinstance(given, list):
        return [_integers(spec, part) for part in given]
    if isinstance(given, float):
        if not given.is_integer():
            raise InputError(f"{given} in {spec.name!r} is no {spec.datatype}", fix="send a whole number")
        return int(given)
    return given


def _kind(signature: ModelSignature) -> Kind:
    firsts = {spec.shape[0] if spec.shape else None for spec in (*signature.inputs, *signature.outputs)}
    if firsts == {-1}:
        return "many"
    return "one" if firsts == {1} else "whole"


def _type(datatype: str, shape: tuple[int, ...]) -> Any:
    """The type of a value of this datatype and shape, with the limits that JSON alone does not have."""
    kind: Any = _element(datatype)
    for size in reversed(shape):
        kind = list[kind] if size == -1 else Annotated[list[kind], msgspec.Meta(min_length=size, max_length=size)]
    return kind


def _element(datatype: str) -> Any:
    dtype = np.dtype(DTYPES[datatype])
    if dtype.kind == "b":
        return bool
    if dtype.kind in "ui":  # to JSON Schema 2.0 is an integer; the limits are those of making the array
        limits = np.iinfo(dtype)
        said = {"type": "integer", "minimum": int(limits.min), "maximum": int(limits.max)}
        return Annotated[int | float, msgspec.Meta(extra_json_schema=said)]
    if dtype.kind == "f":
        largest = float(np.finfo(dtype).max)
        return Annotated[float, msgspec.Meta(ge=-largest, le=largest)]
    return str
