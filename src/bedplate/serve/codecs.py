"""Open Inference Protocol V2 in JSON: from a body to named arrays, and from an answer to a body.

What :mod:`bedplate.serve.tensors` does not check is checked here: JSON values of another type (a string, a null, a
fraction where an integer belongs), and data that are neither flat nor nested as their shape says.
"""

from collections.abc import Sequence
from math import prod
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from bedplate.errors import InputError
from bedplate.records import ModelSignature, TensorSpec
from bedplate.serve.tensors import FEW, Answered, Arrays, Call, Input, Inputs


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


_request = msgspec.json.Decoder(InferRequest)
_response = msgspec.json.Encoder()


class _Reader:
    """How one input of the signature is read from JSON."""

    def __init__(self, given: Input) -> None:
        self._input = given
        self._narrow = given.datatype in ("FP16", "FP32")
        self._largest = float(np.finfo(given.dtype).max) if self._narrow else 0.0
        element: Any = {"F": float, "U": int, "I": int, "B": bool}[given.datatype[0]]
        if given.datatype == "BYTES":
            element = str
        self._decoders: list[msgspec.json.Decoder[Any]] = []
        kind: Any = element
        for _ in range(max(1, len(given.shape))):
            kind = list[kind]
            self._decoders.append(msgspec.json.Decoder(kind))

    def read(self, tensor: Tensor) -> npt.NDArray[Any]:
        shape, name, datatype = tensor.shape, self._input.name, self._input.datatype
        self._input.check(tensor.datatype, shape)
        raw = bytes(tensor.data)
        depth = _nesting(raw)
        if not 1 <= depth <= len(self._decoders):
            raise InputError(f"the data of input {name!r} is neither flat nor nested as its shape says")
        try:
            values = self._decoders[depth - 1].decode(raw)
            # JSON has no infinity and no NaN, so only a narrow type can come to hold one. For the few values of one
            # row, looking at them costs a fifth of what asking the array does.
            doubtful = self._narrow and not (
                depth == 1 and 0 < len(values) <= FEW and -self._largest <= min(values) and max(values) <= self._largest
            )
            if doubtful:
                with np.errstate(over="ignore"):  # a value too large becomes infinite, which is refused below
                    array = np.array(values, self._input.dtype)
            else:
                array = np.array(values, self._input.dtype)
        except (msgspec.DecodeError, OverflowError, ValueError) as error:
            raise InputError(f"the data of input {name!r} is no {datatype}: {error}") from error
        if depth == 1:
            if array.size != prod(shape):
                raise InputError(f"input {name!r} has {array.size} values for the shape {shape}")
            array = array.reshape(shape)
        elif list(array.shape) != shape:
            raise InputError(f"the data of input {name!r} has shape {list(array.shape)}, not {shape}")
        if doubtful and not np.isfinite(array).all():
            raise InputError(f"input {name!r} holds a value that is too large for {datatype}")
        return array


class Codec:
    """Reads requests for one model and writes its answers.

    Raises:
        InputError: the signature uses a datatype that the protocol does not have.
    """

    def __init__(self, name: str, signature: ModelSignature) -> None:
        self._inputs = Inputs(signature)
        self._name = name
        self._readers = {name: _Reader(given) for name, given in self._inputs.by_name.items()}
        self._outputs = [(spec.name, spec.datatype) for spec in signature.outputs]

    def decode(self, body: bytes) -> Call:
        """A request's arrays.

        Raises:
            InputError: with what does not fit.
        """
        try:
            request = _request.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise InputError(f"the request does not fit: {error}") from error
        arrays: Arrays = {}
        values: dict[str, msgspec.Raw] = {}
        for tensor in request.inputs:
            reader = self._readers.get(tensor.name)
            if reader is None or tensor.name in arrays:
                raise self._inputs.odd(tensor.name, arrays)
            arrays[tensor.name], values[tensor.name] = reader.read(tensor), tensor.data
        self._inputs.complete(arrays)
        wanted = self._inputs.wanted([output.name for output in request.outputs]) if request.outputs else None
        replayed = bool(request.parameters) and request.parameters.get("replayed") is True  # type: ignore[union-attr]
        return Call(request.id, arrays, values, wanted, replayed)

    def encode(self, call: Call, answered: Answered) -> bytes:
        """The body of an answer."""
        tensors = [
            OutputTensor(name, list(answered.outputs[name].shape), datatype, answered.values[name])
            for name, datatype in self._outputs
            if call.wanted is None or name in call.wanted
        ]
        return _response.encode(
            InferResponse(self._name, tensors, answered.version, call.id, {"prediction_id": answered.prediction})
        )


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
