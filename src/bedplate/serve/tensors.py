"""What every protocol shares: datatypes, request and answer as named arrays, the checks of what goes in and comes out.

Everything a request may get wrong is found before the model sees it: the set of inputs, their datatypes and shapes,
values that do not fit the type, and bytes that are not as many as the shape says.
"""

import math
from math import isfinite, prod
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from bedplate.errors import BedplateError, InputError
from bedplate.journal.predictions import Packed
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
    "BF16": np.float32,
    "BYTES": np.object_,
}
"""What arrays of a datatype are in memory. NumPy has no BF16: its values are held as FP32, which has them all."""
MOST_DIMENSIONS = 8
FEW = 128
"""Up to so many numbers, looking at each costs less than what asking an array does."""

Array = npt.NDArray[Any]
Arrays = dict[str, Array]


class ModelError(BedplateError):
    """The model answered with something that cannot be an answer: the release is at fault, not the request."""

    code = "model"
    http_status = 500


class Call(msgspec.Struct):
    """One request, whatever protocol carried it: what its decoder gives, what :meth:`Inference.answer` takes.

    ``arrays`` holds every input of the signature, checked (:class:`Inputs` has the checks). ``values`` holds the same
    for the log: the text that was sent where that is JSON already (``msgspec.Raw``), for writing numbers costs more
    than all other checks of a request together; else what :func:`logged` makes of the array. ``wanted`` are the outputs
    that the caller asked for by name, None for all. ``replayed`` marks history that is asked again. ``seconds`` is how
    long the caller waits, where the protocol has that in the body.
    """

    id: str | None
    arrays: Arrays
    values: dict[str, Any]
    wanted: frozenset[str] | None = None
    replayed: bool = False
    seconds: float = math.inf


class Answered(msgspec.Struct):
    """A prediction that may be given to its caller: checked, counted, and logged as far as the mode promises.

    ``prediction`` is its id, which the caller must be told. ``version`` is the release that answered, another than
    that of this process during a rollout. ``outputs`` holds an array for every output of the signature, whichever the
    caller asked for.
    """

    prediction: str
    version: str
    outputs: Arrays


class Input:
    """One input of the signature: the checks of its datatype, shape and values."""

    def __init__(self, spec: TensorSpec) -> None:
        self.name, self.datatype, self.dtype = spec.name, spec.datatype, np.dtype(DTYPES[spec.datatype])
        self.shape = spec.shape
        self._bfloat = spec.datatype == "BF16"
        # Most often only the first size is free, or none.
        self._head, self._tail = (spec.shape[0], list(spec.shape[1:])) if spec.shape else (0, [])
        self._usual = self._head == -1 and -1 not in self._tail

    def check(self, datatype: str, shape: list[int]) -> None:
        """Whether a tensor that says so of itself is this input.

        Raises:
            InputError: it is not.
        """
        if datatype != self.datatype:
            raise InputError(f"input {self.name!r} has datatype {datatype[:16]!r}", fix=f"send it as {self.datatype}")
        if self._usual and shape and shape[0] >= 0 and shape[1:] == self._tail:
            return
        fits = len(shape) == len(self.shape) and min(shape, default=0) >= 0
        if not fits or any(size not in (-1, given) for size, given in zip(self.shape, shape, strict=True)):
            raise InputError(f"input {self.name!r} has shape {shape[:16]}", fix=f"send it as {list(self.shape)}")

    def of_bytes(self, data: bytes | memoryview, shape: list[int]) -> Array:
        """The array whose elements are ``data``: row-major, little-endian; strings each behind four bytes of length.

        ``shape`` was checked. The array may be a view of ``data``, and read-only.

        Raises:
            InputError: the bytes are more or fewer than the shape says, or are no values of the type: a text that is
                not UTF-8, a truth value other than 0 and 1, a float that is not finite.
        """
        count = prod(shape)
        if self.datatype == "BYTES":
            return np.array(self._strings(data, count), np.object_).reshape(shape)
        expected = count * (2 if self._bfloat else self.dtype.itemsize)
        if len(data) != expected:
            raise InputError(f"input {self.name!r} has {len(data)} bytes", fix=f"send {expected} for the shape {shape}")
        if self.datatype == "BOOL" and count and max(data) > 1:
            raise InputError(f"input {self.name!r} holds a truth value other than 0 and 1")
        if self._bfloat:
            array = of_bfloat(np.frombuffer(data, np.uint16)).reshape(shape)
        else:
            array = np.frombuffer(data, self.dtype).reshape(shape)
        if self.dtype.kind == "f" and not _finite(array):
            raise InputError(f"input {self.name!r} holds a value that is no number")
        return array

    def rounded(self, array: Array) -> Array:
        """FP32 values as those of BF16 that are next to them.

        Raises:
            InputError: one is too large.
        """
        near = of_bfloat(bfloat(array))
        if not _finite(near):
            raise InputError(f"input {self.name!r} holds a value that is too large for {self.datatype}")
        return near

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
        if not certain and not _finite(array):
            raise ModelError(f"the model gave a value in {spec.name!r} that is no number")


def plain(array: Array) -> list[Any]:
    """The values of an array, flat and row by row, as JSON has them: texts are ``str``."""
    values: list[Any] = array.ravel().tolist()
    if array.dtype.kind in "OUS":
        return [value.decode() if isinstance(value, bytes) else str(value) for value in values]
    return values


def packed(array: Array, datatype: str) -> bytes:
    """The elements of an array as bytes: what :meth:`Input.of_bytes` reads."""
    if datatype == "BYTES":
        texts = [text.encode() for text in plain(array)]
        return b"".join([piece for text in texts for piece in (len(text).to_bytes(4, "little"), text)])
    return (bfloat(array) if datatype == "BF16" else array).tobytes()


def logged(array: Array) -> list[Any] | Packed:
    """An array for the log: a few values flat, as JSON has them, and so texts; many numbers packed.

    Writing a number takes thirty times what packing it does. What is packed is the array's own memory, as it is when
    the record is made.
    """
    if array.size <= FEW or array.dtype.kind in "OUS":
        return plain(array)
    return Packed(array.dtype.str, array.shape, np.ascontiguousarray(array).data.cast("B"))


def _finite(array: Array) -> bool:
    return b"\0" not in np.isfinite(array).tobytes()  # a third of what .all() takes


def bfloat(array: Array) -> Array:
    """The sixteen bits of the BF16 values that are next to FP32 values; halves go to the even one."""
    bits = np.ascontiguousarray(array).view(np.uint32)
    return ((bits + (0x7FFF + (bits >> 16 & 1))) >> 16).astype(np.uint16)


def of_bfloat(bits: Array) -> Array:
    """The FP32 values of the sixteen bits of BF16 values."""
    return (bits.astype(np.uint32) << 16).view(np.float32)
