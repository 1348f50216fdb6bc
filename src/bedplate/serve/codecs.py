"""Open Inference Protocol V2 over HTTP: from a body to named arrays, and from an answer to a body.

Tensors travel as JSON, or, in the binary tensor extension, as bytes behind the JSON. What :mod:`bedplate.serve.tensors`
does not check is checked here: JSON values of another type (a string, a null, a fraction where an integer belongs),
data that are neither flat nor nested as their shape says, lengths that do not add up.
"""

import math
import struct
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import chain
from math import prod
from typing import Any

import msgspec
import numpy as np

from bedplate.errors import InputError
from bedplate.http.messages import too_deep
from bedplate.records import ModelSignature, TensorSpec
from bedplate.serve.tensors import Answered, Array, Arrays, Call, Input, Inputs, logged, packed, plain

HEADER_LENGTH = "inference-header-content-length"
"""The header that says how many bytes of a body are JSON; the rest are binary tensors."""


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


class OutputTensor(msgspec.Struct, omit_defaults=True):
    """One output; ``data`` is flat, in row-major order, and missing where ``parameters`` say how many bytes follow."""

    name: str
    shape: tuple[int, ...]
    datatype: str
    data: list[Any] | None = None
    parameters: dict[str, Any] | None = None


class InferResponse(msgspec.Struct, omit_defaults=True):
    """The body of an answer."""

    model_name: str
    outputs: list[OutputTensor]
    model_version: str = ""
    id: str | None = None
    parameters: dict[str, Any] | None = None


class RestCall(Call):
    """A request over HTTP; ``as_bytes`` are the outputs that go back as bytes behind the JSON."""

    as_bytes: frozenset[str] = frozenset()


_request = msgspec.json.Decoder(InferRequest)
_response = msgspec.json.Encoder()
_CODES = {"BOOL": "?", "UINT8": "B", "UINT16": "H", "UINT32": "I", "UINT64": "Q", "INT8": "b", "INT16": "h"}
_CODES |= {"INT32": "i", "INT64": "q", "FP16": "e", "FP32": "f", "FP64": "d", "BF16": "f"}
"""How :mod:`struct` calls the datatypes."""


@lru_cache(maxsize=1024)
def _packer(code: str, count: int) -> Callable[..., bytes]:
    """What writes so many numbers as the bytes of an array: half of what NumPy takes, and it refuses what overflows."""
    return struct.Struct(f"<{count}{code}").pack


class _Reader:
    """How one input of the signature is read."""

    def __init__(self, given: Input) -> None:
        self._input = given
        self._code = _CODES.get(given.datatype, "")
        kind: Any = {"": str, "?": bool, "e": float, "f": float, "d": float}.get(self._code, int)
        self._decoders: list[msgspec.json.Decoder[Any]] = []
        for _ in range(max(1, len(given.shape))):
            kind = list[kind]
            self._decoders.append(msgspec.json.Decoder(kind))

    def of_json(self, tensor: Tensor) -> Array:
        """The array of data that are flat, or nested as their shape says."""
        given, shape = self._input, tensor.shape
        given.check(tensor.datatype, shape)
        raw = bytes(tensor.data)
        depth = _nesting(raw)
        try:
            values = self._decoders[depth - 1].decode(raw)
            if depth > 1:
                values = self._flat(values, shape)
            if len(values) != prod(shape):
                raise InputError(f"input {given.name!r} has {len(values)} values for the shape {shape}")
            if not self._code:
                return np.array(values, object).reshape(shape)
            # JSON has no infinity and no NaN, and a number too large for the type is refused here.
            array = np.ndarray(shape, given.dtype, _packer(self._code, len(values))(*values))
        except IndexError as error:
            raise InputError(f"the data of input {given.name!r} are nested deeper than its shape") from error
        except (msgspec.DecodeError, OverflowError, ValueError, struct.error) as error:
            raise InputError(f"the data of input {given.name!r} is no {given.datatype}: {error}") from error
        return given.rounded(array) if given.datatype == "BF16" else array

    def _flat(self, values: list[Any], shape: list[int]) -> list[Any]:
        sizes = [len(values)]
        for size in shape[1:]:
            if any(len(inner) != size for inner in values):
                raise InputError(f"the data of input {self._input.name!r} do not have the shape {shape}")
            sizes.append(size)
            values = list(chain.from_iterable(values))
        if sizes != shape:
            raise InputError(f"the data of input {self._input.name!r} has shape {sizes}, not {shape}")
        return values

    def of_bytes(self, tensor: Tensor, data: memoryview) -> Array:
        """The array of the bytes that belong to the tensor."""
        if tensor.data:
            raise InputError(f"input {self._input.name!r} has both data and binary data")
        self._input.check(tensor.datatype, tensor.shape)
        return self._input.of_bytes(data, tensor.shape)


def waits(parameters: dict[str, Any]) -> float:
    """How many seconds a caller waits: the protocol's parameter ``timeout``, in microseconds; infinite without it.

    Raises:
        InputError: it is no number above zero.
    """
    timeout = parameters.get("timeout")
    if timeout is None:
        return math.inf
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not timeout > 0:
        raise InputError("the parameter timeout is no number above zero", fix="say how many microseconds you wait")
    return float(timeout) / 1e6


class Codec:
    """Reads requests for one model and writes its answers; JSON that nests deeper than ``depth`` is refused.

    Raises:
        InputError: the signature uses a datatype that the protocol does not have.
    """

    def __init__(self, name: str, signature: ModelSignature, depth: int = 16) -> None:
        self._depth = depth
        self._inputs = Inputs(signature)
        self._name = name
        self._readers = {name: _Reader(given) for name, given in self._inputs.by_name.items()}
        self._outputs = [(spec.name, spec.datatype) for spec in signature.outputs]
        self._all = frozenset(spec.name for spec in signature.outputs)

    def decode(self, body: bytes | bytearray, json_length: str | None = None) -> RestCall:
        """A request's arrays. ``json_length`` is the header :data:`HEADER_LENGTH`, None without one.

        Raises:
            InputError: with what does not fit.
        """
        if json_length is None:
            text, binary = body, None
        else:
            text, binary = _parted(body, json_length)
        if too_deep(text, self._depth):
            raise InputError(f"the JSON nests deeper than {self._depth} levels")
        try:
            request = _request.decode(text)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise InputError(f"the request does not fit: {error}") from error
        arrays: Arrays = {}
        values: dict[str, Any] = {}
        for tensor in request.inputs:
            name = tensor.name
            reader = self._readers.get(name)
            if reader is None or name in arrays:
                raise self._inputs.odd(name, arrays)
            if tensor.parameters is not None and "binary_data_size" in tensor.parameters:
                data, binary = _taken(name, binary, tensor.parameters["binary_data_size"])
                arrays[name] = reader.of_bytes(tensor, data)
                values[name] = logged(arrays[name])
            else:
                arrays[name], values[name] = reader.of_json(tensor), tensor.data
        if binary:
            raise InputError(f"{len(binary)} bytes follow that belong to no input", fix="say binary_data_size")
        self._inputs.complete(arrays)
        call = RestCall(request.id, arrays, values)
        if request.outputs or request.parameters:
            self._asked(request, call)
        return call

    def _asked(self, request: InferRequest, call: RestCall) -> None:
        """Take in which outputs are asked for, in which form, if history is asked again, and how long is waited."""
        parameters, outputs = request.parameters or {}, request.outputs or []
        call.replayed = parameters.get("replayed") is True
        call.seconds = waits(parameters)
        call.wanted = self._inputs.wanted([output.name for output in outputs])
        default = parameters.get("binary_data_output") is True
        if not outputs:
            call.as_bytes = self._all if default else call.as_bytes
            return
        forms = {name: default for name, _ in self._outputs}
        for output in outputs:
            forms[output.name] = (output.parameters or {}).get("binary_data", default) is True
        call.as_bytes = frozenset(name for name, binary in forms.items() if binary)

    def encode(self, call: RestCall, answered: Answered) -> tuple[bytes, int | None]:
        """The body of an answer, and how many bytes of it are JSON, None where all are."""
        tensors: list[OutputTensor] = []
        binary: list[bytes] = []
        wanted = call.wanted
        for name, datatype in self._outputs:
            if wanted is not None and name not in wanted:
                continue
            array = answered.outputs[name]
            if name in call.as_bytes:
                data = packed(array, datatype)
                binary.append(data)
                tensors.append(OutputTensor(name, array.shape, datatype, None, {"binary_data_size": len(data)}))
            else:
                tensors.append(OutputTensor(name, array.shape, datatype, plain(array)))
        text = _response.encode(
            InferResponse(self._name, tensors, answered.version, call.id, {"prediction_id": answered.prediction})
        )
        return (b"".join([text, *binary]), len(text)) if binary else (text, None)


def server(version: str) -> dict[str, Any]:
    """The server's metadata in the protocol's form; ``version`` is that of Bedplate."""
    return {
        "name": "bedplate",
        "version": version,
        "extensions": ["binary_tensor_data", "model_configuration", "statistics"],
    }


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


def _parted(body: bytes | bytearray, json_length: str) -> tuple[bytes | bytearray, memoryview]:
    """The JSON of a body, and the binary tensors behind it."""
    if not (json_length.isascii() and json_length.isdigit()) or len(json_length) > 19:
        raise InputError(f"{HEADER_LENGTH} is no number")
    length = int(json_length)
    if length > len(body):
        raise InputError(f"{HEADER_LENGTH} is {length}, and the body has {len(body)} bytes")
    return body[:length], memoryview(body)[length:].toreadonly()


def _taken(name: str, binary: memoryview | None, size: Any) -> tuple[memoryview, memoryview]:
    """The next ``size`` bytes, and what is left."""
    if binary is None:
        raise InputError(f"input {name!r} has binary data", fix=f"send the header {HEADER_LENGTH}")
    if type(size) is not int or not 0 <= size <= len(binary):
        raise InputError(f"the binary_data_size of input {name!r} is {size!r:.50}, and {len(binary)} bytes are left")
    return binary[:size], binary[size:]


_NESTED = (b"[[", b"[ ", b"[\t", b"[\r", b"[\n")


def _nesting(raw: bytes) -> int:
    """How many brackets open before the first value; 1 for what is no list, which no decoder takes."""
    if not raw.startswith(_NESTED):
        return 1
    start = raw[:256].translate(None, b" \t\r\n")
    return len(start) - len(start.lstrip(b"["))
