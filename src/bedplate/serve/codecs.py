"""Open Inference Protocol V2 in JSON: from a body to checked arrays, and from arrays to a body.

Everything a request may get wrong is found here, before the model sees it: the set of inputs, their datatypes and
shapes, values of another type (a string, a null, a fraction where an integer belongs), values that do not fit the type.
"""

from collections.abc import Sequence
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
_FEW = 128


class Tensor(msgspec.Struct):
    """One input of a request; ``data`` is parsed when its type is known."""

    name: str
    shape: list[int]
    datatype: str
    data: msgspec.Raw = msgspec.Raw(b"")
    parameters: dict[str, Any] | None = None


class RequestedOutput(msgspec.Struct):
    """An output the client wants."""

    name: str
    parameters: dict[str, Any] | None = None


class InferRequest(msgspec.Struct):
    """The body of an infer request."""

    inputs: list[Tensor]
    id: str | None = None
    outputs: list[RequestedOutput] | None = None
    parameters: dict[str, Any] | None = None


class OutputTensor(msgspec.Struct):
    """One output; ``data`` is flat, in row-major order."""

    name: str
    shape: list[int]
    datatype: str
    data: list[Any]


class InferResponse(msgspec.Struct, omit_defaults=True):
    """The body of an answer."""

    model_name: str
    outputs: list[OutputTensor]
    model_version: str = ""
    id: str | None = None
    parameters: dict[str, Any] | None = None


class Call(msgspec.Struct):
    """A decoded request: arrays for the model, and the same values for the log, in the JSON that was sent.

    The JSON is kept because writing numbers costs more than all other checks of a request together.
    """

    id: str | None
    arrays: dict[str, npt.NDArray[Any]]
    values: dict[str, msgspec.Raw]
    wanted: frozenset[str] | None
    replayed: bool


_request = msgspec.json.Decoder(InferRequest)
_response = msgspec.json.Encoder()


class _Input:
    """How one input of the signature is read."""

    def __init__(self, spec: TensorSpec) -> None:
        self.name, self.datatype = spec.name, spec.datatype
        self.shape = spec.shape
        self.fixed = list(spec.shape) if -1 not in spec.shape else None
        self.dtype = DTYPES[spec.datatype]
        self.floats = spec.datatype.startswith("FP")
        self.narrow = spec.datatype in ("FP16", "FP32")
        self.largest = float(np.finfo(self.dtype).max) if self.floats else 0.0
        element: Any = {"F": float, "U": int, "I": int, "B": bool}[spec.datatype[0]]
        if spec.datatype == "BYTES":
            element = str
        self.decoders: list[msgspec.json.Decoder[Any]] = []
        kind: Any = element
        for _ in range(max(1, len(spec.shape))):
            kind = list[kind]
            self.decoders.append(msgspec.json.Decoder(kind))

    def read(self, tensor: Tensor) -> npt.NDArray[Any]:
        if tensor.datatype != self.datatype:
            raise InputError(
                f"input {self.name!r} has datatype {tensor.datatype[:16]!r}", fix=f"send it as {self.datatype}"
            )
        shape = tensor.shape
        if shape != self.fixed:
            self._check_shape(shape)
        raw = bytes(tensor.data)
        depth = _nesting(raw)
        if not 1 <= depth <= len(self.decoders):
            raise InputError(f"the data of input {self.name!r} is neither flat nor nested as its shape says")
        try:
            values = self.decoders[depth - 1].decode(raw)
            # JSON has no infinity and no NaN, so only a narrow type can come to hold one. For the few values of one
            # row, looking at them costs a fifth of what asking the array does.
            doubtful = self.narrow and not (
                depth == 1 and 0 < len(values) <= _FEW and -self.largest <= min(values) and max(values) <= self.largest
            )
            if doubtful:
                with np.errstate(over="ignore"):  # a value too large becomes infinite, which is refused below
                    array = np.array(values, self.dtype)
            else:
                array = np.array(values, self.dtype)
        except (msgspec.DecodeError, OverflowError, ValueError) as error:
            raise InputError(f"the data of input {self.name!r} is no {self.datatype}: {error}") from error
        if depth == 1:
            if array.size != prod(shape):
                raise InputError(f"input {self.name!r} has {array.size} values for the shape {shape}")
            array = array.reshape(shape)
        elif list(array.shape) != shape:
            raise InputError(f"the data of input {self.name!r} has shape {list(array.shape)}, not {shape}")
        if doubtful and not np.isfinite(array).all():
            raise InputError(f"input {self.name!r} holds a value that is too large for {self.datatype}")
        return array

    def _check_shape(self, shape: list[int]) -> None:
        fits = len(shape) == len(self.shape) and all(
            size >= 0 and free in (-1, size) for size, free in zip(shape, self.shape, strict=True)
        )
        if not fits:
            raise InputError(f"input {self.name!r} has shape {shape[:16]}", fix=f"send it as {list(self.shape)}")


class Codec:
    """Reads requests for one model and writes its answers.

    Raises:
        InputError: the signature uses a datatype that the protocol does not have.
    """

    def __init__(self, name: str, version: str, signature: ModelSignature) -> None:
        for spec in (*signature.inputs, *signature.outputs):
            if spec.datatype not in DTYPES or len(spec.shape) > MOST_DIMENSIONS:
                raise InputError(f"{spec.name!r} has datatype {spec.datatype!r} and {len(spec.shape)} dimensions")
        self._name, self._version = name, version
        self._inputs = {spec.name: _Input(spec) for spec in signature.inputs}
        self._outputs = [(spec.name, spec.datatype, np.dtype(DTYPES[spec.datatype])) for spec in signature.outputs]
        self._names = frozenset(spec.name for spec in signature.outputs)

    def decode(self, body: bytes) -> Call:
        """A request's arrays.

        Raises:
            InputError: with what does not fit.
        """
        try:
            request = _request.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise InputError(f"the request does not fit: {error}") from error
        arrays: dict[str, npt.NDArray[Any]] = {}
        values: dict[str, msgspec.Raw] = {}
        for tensor in request.inputs:
            reader = self._inputs.get(tensor.name)
            if reader is None or tensor.name in arrays:
                wrong = "is not an input of this model" if reader is None else "is given twice"
                raise InputError(f"{tensor.name[:100]!r} {wrong}", fix=f"send {', '.join(self._inputs)}")
            arrays[tensor.name], values[tensor.name] = reader.read(tensor), tensor.data
        if len(arrays) != len(self._inputs):
            missing = ", ".join(repr(name) for name in self._inputs if name not in arrays)
            raise InputError(f"the input {missing} is missing")
        wanted = frozenset(output.name for output in request.outputs) if request.outputs else None
        if wanted is not None and not wanted <= self._names:
            odd = sorted(wanted - self._names)[0]
            raise InputError(f"{odd[:100]!r} is not an output of this model", fix=f"ask for {', '.join(self._names)}")
        replayed = bool(request.parameters) and request.parameters.get("replayed") is True  # type: ignore[union-attr]
        return Call(request.id, arrays, values, wanted, replayed)

    def encode(
        self, call: Call, outputs: dict[str, npt.NDArray[Any]], prediction: str, version: str = ""
    ) -> tuple[bytes, dict[str, list[Any]]]:
        """The body of an answer, and the values in it for the log; ``version`` where it is not this model's.

        Raises:
            ModelError: the model did not give what its signature says, or gave a value that is no number.
        """
        tensors: list[OutputTensor] = []
        values: dict[str, list[Any]] = {}
        for name, datatype, dtype in self._outputs:
            array = outputs.get(name)
            if array is None:
                raise ModelError(f"the model gave no output {name!r}")
            if array.dtype != dtype and not (datatype == "BYTES" and array.dtype.kind in "US"):
                raise ModelError(f"the model gave output {name!r} as {array.dtype}, not {datatype}")
            data = array.ravel().tolist()
            # A sum that is finite has finite parts; one that is not may have overflowed.
            if dtype.kind == "f" and not isfinite(sum(data)) and not np.isfinite(array).all():
                raise ModelError(f"the model gave a value in {name!r} that is no number")
            if datatype == "BYTES":
                data = [item.decode() if isinstance(item, bytes) else str(item) for item in data]
            values[name] = data
            if call.wanted is None or name in call.wanted:
                tensors.append(OutputTensor(name, list(array.shape), datatype, data))
        body = _response.encode(
            InferResponse(self._name, tensors, version or self._version, call.id, {"prediction_id": prediction})
        )
        return body, values


class ModelError(BedplateError):
    """The model answered with something that cannot be an answer: the release is at fault, not the request."""

    code = "model"
    http_status = 500


def metadata(name: str, versions: Sequence[str], signature: ModelSignature) -> dict[str, Any]:
    """The model's metadata in the protocol's form."""

    def tensors(specs: tuple[TensorSpec, ...]) -> list[dict[str, Any]]:
        return [{"name": spec.name, "datatype": spec.datatype, "shape": list(spec.shape)} for spec in specs]

    return {
        "name": name,
        "versions": list(versions),
        "platform": f"bedplate_{signature.predictor}",
        "inputs": tensors(signature.inputs),
        "outputs": tensors(signature.outputs),
    }


def _nesting(raw: bytes) -> int:
    """How many brackets open before the first value."""
    if raw[:1] == b"[" and raw[1:2] not in b"[ \t\r\n":
        return 1
    start = raw[:256].translate(None, b" \t\r\n")
    return len(start) - len(start.lstrip(b"["))
