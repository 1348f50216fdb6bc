"""What every protocol shares: datatypes, request and answer as named arrays, the checks of what goes in and comes out.

Everything a request may get wrong is found before the model sees it: the set of inputs, their datatypes and shapes,
values that do not fit the type, and bytes that are not as many as the shape says.
"""

from math import isfinite, prod
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from bedplate.errors import BedplateError, InputError
from bedplate.records import ModelSignature, TensorSpec

DTYPES: dict[str, Any] = {
    "BOOL": np.bool_,
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "FP16": np.float16,
    "FP32": np.float32,
    "FP64": np.float64,
    "BYTES": np.object_,
}
MOST_DIMENSIONS = 8
FEW = 128
"""Up to so many numbers, looking at each costs less than what asking an array does."""

Arrays = dict[str, npt.NDArray[Any]]


class ModelError(BedplateError):
    """The model answered with something that cannot be an answer: the release is at fault, not the request."""

    code = "model"
    http_status = 500


class Call(msgspec.Struct):
    """One request, whatever protocol carried it: what its decoder gives, what :meth:`Inference.answer` takes.

    ``arrays`` holds every input of the signature, checked (:class:`Inputs` has the checks). ``values`` holds the same
    for the log, each as one JSON value: the text that was sent where that is JSON already, for writing numbers costs
    more than all other checks of a request together; else what :func:`logged` makes of the array. ``wanted`` are the
    outputs that the caller asked for by name, None for all. ``replayed`` marks history that is asked again.
    """

    id: str | None
    arrays: Arrays
    values: dict[str, msgspec.Raw]
    wanted: frozenset[str] | None = None
    replayed: bool = False


class Answered(msgspec.Struct):
    """A prediction that may be given to its caller: checked, counted, and logged as far as the mode promises.

    ``prediction`` is its id, which the caller must be told. ``version`` is the release that answered, another than
    that of this process during a rollout. ``outputs`` holds an array for every output of the signature, whichever the
    caller asked for; ``values`` the same flat, as JSON has them.
    """

    prediction: str
    version: str
    outputs: Arrays
    values: dict[str, list[Any]]


class Input:
    """One input of the signature: the checks of its datatype, shape and values."""

    def __init__(self, spec: TensorSpec) -> None:
        self.name, self.datatype, self.dtype = spec.name, spec.datatype, np.dtype(DTYPES[spec.datatype])
        self.shape = spec.shape
        self._fixed = list(spec.shape) if -1 not in spec.shape else None

    def check(self, datatype: str, shape: list[int]) -> None:
        """Whether a tensor that says so of itself is this input.

        Raises:
            InputError: it is not.
        """
        if datatype != self.datatype:
            raise InputError(f"input {self.name!r} has datatype {datatype[:16]!r}", fix=f"send it as {self.datatype}")
        if shape == self._fixed:
            return
        fits = len(shape) == len(self.shape) and min(shape, default=0) >= 0
        if not fits or any(size not in (-1, given) for size, given in zip(self.shape, shape, strict=True)):
            raise InputError(f"input {self.name!r} has shape {shape[:16]}", fix=f"send it as {list(self.shape)}")

    def of_bytes(self, data: bytes | memoryview, shape: list[int]) -> npt.NDArray[Any]:
        """The array whose elements are ``data``: row-major, little-endian; strings each behind four bytes of length.

        ``shape`` was checked. The array may be a view of ``data``, and read-only.

        Raises:
            InputError: the bytes are more or fewer than the shape says, or are no values of the type: a text that is
                not UTF-8, a truth value other than 0 and 1, a float that is not finite.
        """
        count = prod(shape)
        if self.datatype == "BYTES":
            return np.array(self._strings(data, count), np.object_).reshape(shape)
        expected = count * self.dtype.itemsize
        if len(data) != expected:
            raise InputError(f"input {self.name!r} has {len(data)} bytes", fix=f"send {expected} for the shape {shape}")
        if self.datatype == "BOOL" and count and max(data) > 1:
            raise InputError(f"input {self.name!r} holds a truth value other than 0 and 1")
        array = np.frombuffer(data, self.dtype).reshape(shape)
        if self.dtype.kind == "f" and not np.isfinite(array).all():
            raise InputError(f"input {self.name!r} holds a value that is no number")
        return array

    def _strings(self, data: bytes | memoryview, count: int) -> list[str]:
        texts: list[str] = []
        at, end = 0, len(data)
        if count > end // 4:
            raise InputError(f"input {self.name!r} has {end} bytes, too few for {count} strings")
        for _ in range(count):
            start = at + 4
            at = start + int.from_bytes(data[at:start], "little")
            if at > end:
                raise InputError(f"a string of input {self.name!r} is longer than the bytes that follow its length")
            try:
                texts.append(str(data[start:at], "utf-8"))
            except UnicodeDecodeError as error:
                raise InputError(f"a string of input {self.name!r} is not UTF-8") from error
        if at != end:
            raise InputError(f"input {self.name!r} has {end - at} bytes behind its {count} strings")
        return texts


class Inputs:
    """The inputs of a signature, by name.

    Raises:
        InputError: the signature uses a datatype that no protocol here has.
    """

    def __init__(self, signature: ModelSignature) -> None:
        for spec in (*signature.inputs, *signature.outputs):
            if spec.datatype not in DTYPES or len(spec.shape) > MOST_DIMENSIONS:
                raise InputError(f"{spec.name!r} has datatype {spec.datatype!r} and {len(spec.shape)} dimensions")
        self.by_name = {spec.name: Input(spec) for spec in signature.inputs}
        self._outputs = frozenset(spec.name for spec in signature.outputs)

    def odd(self, name: str, taken: Arrays) -> InputError:
        """Why ``name`` cannot be taken: it is not an input, or is in ``taken`` already."""
        wrong = "is given twice" if name in taken else "is not an input of this model"
        return InputError(f"{name[:100]!r} {wrong}", fix=f"send {', '.join(self.by_name)}")

    def complete(self, taken: Arrays) -> None:
        """Whether every input was taken.

        Raises:
            InputError: one is missing.
        """
        if len(taken) != len(self.by_name):
            missing = ", ".join(repr(name) for name in self.by_name if name not in taken)
            raise InputError(f"the input {missing} is missing")

    def wanted(self, names: list[str]) -> frozenset[str] | None:
        """The outputs that a caller asked for, None when it named none.

        Raises:
            InputError: one is not an output.
        """
        wanted = frozenset(names)
        if not wanted <= self._outputs:
            odd = sorted(wanted - self._outputs)[0]
            raise InputError(f"{odd[:100]!r} is not an output of this model", fix=f"ask for {', '.join(self._outputs)}")
        return wanted or None


def check(outputs: Arrays, signature: ModelSignature) -> None:
    """Whether outputs can be an answer: what the signature says is there, and every number is one.

    Raises:
        ModelError: they cannot.
    """
    for spec in signature.outputs:
        array = outputs.get(spec.name)
        if array is None:
            raise ModelError(f"the model gave no output {spec.name!r}")
        if array.dtype != DTYPES[spec.datatype] and not (spec.datatype == "BYTES" and array.dtype.kind in "US"):
            raise ModelError(f"the model gave output {spec.name!r} as {array.dtype}, not {spec.datatype}")
        if array.dtype.kind != "f":
            continue
        # A sum that is finite has finite parts; one that is not may have overflowed.
        certain = array.size <= FEW and isfinite(sum(array.ravel().tolist()))
        if not certain and not np.isfinite(array).all():
            raise ModelError(f"the model gave a value in {spec.name!r} that is no number")


def plain(array: npt.NDArray[Any]) -> list[Any]:
    """The values of an array, flat and row by row, as JSON has them: texts are ``str``."""
    values: list[Any] = array.ravel().tolist()
    if array.dtype.kind in "OUS":
        return [value.decode() if isinstance(value, bytes) else str(value) for value in values]
    return values


def logged(array: npt.NDArray[Any]) -> msgspec.Raw:
    """An array as one JSON value for the log, where the request did not carry it as JSON."""
    return msgspec.Raw(msgspec.json.encode(plain(array)))
