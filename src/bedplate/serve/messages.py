"""Open Inference Protocol V2 as protocol buffers: from a message to named arrays, and from an answer to a message.

Written out over the bytes because the way is hot: raw contents become views of the message, and what a client says of
its inputs in every request (name, datatype, shape) is read once. Field numbers are those of
``open_inference_grpc.proto`` and, for what that leaves out, of Triton's ``grpc_service.proto``.
"""

from collections.abc import Callable, Mapping, Sequence
from math import inf
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from bedplate.bundle.protobuf import field, field_at, fields, varint, varint_at
from bedplate.errors import InputError
from bedplate.records import ModelSignature
from bedplate.serve.codecs import waits
from bedplate.serve.repository import DATA_TYPES
from bedplate.serve.tensors import Answered, Arrays, Call, Input, Inputs, logged, packed, plain

_MOST_KNOWN, _LONGEST_KNOWN = 1024, 256
"""How many descriptions of a tensor are kept, and up to which length in bytes."""
_MOST_UNPACKED = 4096
"""Numbers that may come one field each; clients pack them, and reading many one by one would hold up everybody."""
_PREDICTION = field(1, "prediction_id")
# Which field of InferTensorContents holds which datatypes; FP16 and BF16 have none.
_CONTENTS = {
    "BOOL": 1,
    "INT8": 2,
    "INT16": 2,
    "INT32": 2,
    "INT64": 3,
    "UINT8": 4,
    "UINT16": 4,
    "UINT32": 4,
    "UINT64": 5,
    "FP32": 6,
    "FP64": 7,
    "BYTES": 8,
}


class Asked(msgspec.Struct):
    """What a message asks; ``pinned`` if it names a version, ``typed`` if its tensors came so."""

    call: Call
    pinned: bool
    typed: bool


class _Tensor(msgspec.Struct):
    """What a message says of one input; ``contents`` holds typed values in the bytes of raw ones."""

    input: Input
    shape: list[int]
    contents: bytes


class Messages:
    """Reads ``ModelInferRequest`` and writes ``ModelInferResponse`` for one model.

    ``served`` raises where a model, or a version of it, is not what is served.

    Raises:
        InputError: the signature uses a datatype that the protocol does not have.
    """

    def __init__(self, name: str, signature: ModelSignature, served: Callable[[str, str | None], None]) -> None:
        self._inputs = Inputs(signature)
        self._served = served
        self._model = name.encode()
        self._outputs = [(spec.name, spec.datatype) for spec in signature.outputs]
        self._known: dict[bytes, _Tensor] = {}
        self._told: dict[tuple[str, tuple[int, ...]], bytes] = {}
        self._heads: dict[str, bytes] = {}

    # ------------------------------------------------------------------------------------------------------- requests

    def decode(self, message: bytes) -> Asked:
        """What a message asks.

        Raises:
            InputError: with what does not fit.
            NotFoundError: it is for another model or version.
        """
        try:
            return self._decode(message)
        except (ValueError, IndexError) as error:  # of the wire format; a text that is not UTF-8 is a ValueError too
            raise InputError(f"the request is no ModelInferRequest: {error}") from error

    def _decode(self, message: bytes) -> Asked:
        view = memoryview(message)
        at, end = 0, len(message)
        identifier: str | None = None
        model, version, replayed, seconds = b"", "", False, inf
        tensors: list[bytes] = []
        raws: list[memoryview] = []
        wanted: list[str] = []
        while at < end:
            tag, size = message[at], message[at + 1]
            if tag & 0x87 != 2:  # every field that is known here has a length and a small number
                _, at = field_at(view, at)
                continue
            at += 2
            if size > 0x7F:
                size, at = varint_at(message, at - 1)
            stop = at + size
            if stop > end:
                raise ValueError("a field reaches past the end of its message")
            if tag == 0x3A:
                raws.append(view[at:stop])
            elif tag == 0x2A:
                tensors.append(message[at:stop])
            elif tag == 0x0A:
                model = message[at:stop]
            elif tag == 0x1A:
                identifier = str(view[at:stop], "utf-8")
            elif tag == 0x12:
                version = str(view[at:stop], "utf-8")
            elif tag == 0x32:
                wanted.append(text_of(view[at:stop], 1))
            elif tag == 0x22:
                name, value = _parameter(view[at:stop])
                replayed = replayed or (name == "replayed" and value is True)
                seconds = waits({name: value}) if name == "timeout" else seconds
            at = stop
        if version or model != self._model:
            self._served(model.decode("utf-8", "replace"), version or None)
        arrays, values = self._arrays(tensors, raws)
        self._inputs.complete(arrays)
        call = Call(identifier, arrays, values, self._inputs.wanted(wanted) if wanted else None, replayed, seconds)
        return Asked(call, bool(version), bool(tensors) and not raws)

    def _arrays(self, tensors: list[bytes], raws: list[memoryview]) -> tuple[Arrays, dict[str, Any]]:
        if raws and len(raws) != len(tensors):
            raise InputError(f"{len(tensors)} inputs have {len(raws)} raw contents", fix="send all raw, or none")
        arrays: Arrays = {}
        values: dict[str, Any] = {}
        for number, message in enumerate(tensors):
            tensor = self._known.get(message) or self._tensor(message)
            given, contents = tensor.input, tensor.contents
            if given.name in arrays:
                raise self._inputs.odd(given.name, arrays)
            if raws and contents:
                raise InputError(f"input {given.name!r} has typed contents beside raw ones", fix="send it once")
            array = arrays[given.name] = given.of_bytes(raws[number] if raws else contents, tensor.shape)
            values[given.name] = logged(array)
        return arrays, values

    def _tensor(self, message: bytes) -> _Tensor:
        name = datatype = ""
        shape: list[int] = []
        contents: list[memoryview] = []
        for number, integer, data in fields(memoryview(message)):
            if number == 1:
                name = str(data, "utf-8")
            elif number == 2:
                datatype = str(data, "utf-8")
            elif number == 3:
                shape += _integers(data).view(np.int64).tolist() if data else [_signed(integer)]
            elif number == 5:
                contents.append(data)
        given = self._inputs.by_name.get(name)
        if given is None:
            raise self._inputs.odd(name, {})
        given.check(datatype, shape)
        tensor = _Tensor(given, shape, _raw(given, memoryview(b"".join(contents))) if contents else b"")
        if not contents and len(message) <= _LONGEST_KNOWN:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            self._known[message] = tensor
        return tensor

    # -------------------------------------------------------------------------------------------------------- answers

    def encode(self, asked: Asked, answered: Answered) -> bytes:
        """The message that answers; its tensors are typed where those of the request were, and can be."""
        wanted = asked.call.wanted
        outputs = [one for one in self._outputs if wanted is None or one[0] in wanted]
        typed = asked.typed and all(datatype in _CONTENTS for _, datatype in outputs)
        parts = [self._head(answered.version)]
        if asked.call.id:
            parts.append(field(3, asked.call.id))
        parts.append(field(4, _PREDICTION + field(2, field(3, answered.prediction))))
        raws: list[bytes] = []
        for name, datatype in outputs:
            array = answered.outputs[name]
            told = self._told.get((name, array.shape)) or self._tell(name, datatype, array.shape)
            if typed:
                parts.append(field(5, told + field(5, _contents(datatype, array))))
            else:
                parts.append(field(5, told))
                raws.append(field(6, packed(array, datatype)))
        return b"".join(parts + raws)

    def _head(self, version: str) -> bytes:
        if version not in self._heads:
            self._heads[version] = field(1, self._model) + field(2, version)
        return self._heads[version]

    def _tell(self, name: str, datatype: str, shape: tuple[int, ...]) -> bytes:
        told = field(1, name) + field(2, datatype) + field(3, b"".join(varint(size) for size in shape))
        if len(self._told) >= _MOST_KNOWN:
            self._told.clear()
        self._told[name, shape] = told
        return told


# ----------------------------------------------------------------------------------------------------- typed contents


def _raw(given: Input, contents: memoryview) -> bytes:
    """``InferTensorContents`` of an input, in the bytes that raw contents would have."""
    number = _CONTENTS.get(given.datatype)
    if number is None:
        raise InputError(f"input {given.name!r} has typed contents, which {given.datatype} has not", fix="send it raw")
    parts: list[bytes] = []
    for found, integer, data in fields(contents):
        if found != number:
            raise InputError(f"input {given.name!r} has contents of another type than {given.datatype}")
        if number == 8:
            parts.append(len(data).to_bytes(4, "little"))
        elif len(parts) > _MOST_UNPACKED:
            raise InputError(f"input {given.name!r} has numbers that are not packed", fix="send them packed, or raw")
        parts.append(bytes(data) if data or number >= 6 else varint(integer))
    joined = b"".join(parts)
    if number >= 6:
        return joined
    integers = _integers(memoryview(joined))
    if given.datatype == "BOOL":
        limits = (0, 1)
    else:
        limits = (int(np.iinfo(given.dtype).min), int(np.iinfo(given.dtype).max))
        if limits[0] < 0:
            integers = integers.view(np.int64)
    if integers.size and not limits[0] <= int(integers.min()) <= int(integers.max()) <= limits[1]:
        raise InputError(f"input {given.name!r} holds a value that {given.datatype} has not")
    return integers.astype(given.dtype).tobytes()


def _contents(datatype: str, array: npt.NDArray[Any]) -> bytes:
    """``InferTensorContents`` of an output."""
    number = _CONTENTS[datatype]
    if number == 8:
        return b"".join(field(8, value) for value in plain(array))
    return field(number, array.tobytes() if number >= 6 else b"".join(varint(value) for value in plain(array)))


def _integers(packed: memoryview) -> npt.NDArray[np.uint64]:
    """Packed whole numbers, as they stand in 64 bits.

    Raises:
        ValueError: the last breaks off, or one has more than ten bytes.
    """
    data = np.frombuffer(packed, np.uint8)
    ends = np.flatnonzero(data < 0x80)
    if not data.size or data[-1] >= 0x80:
        if data.size:
            raise ValueError("a number breaks off")
        return np.empty(0, np.uint64)
    if ends.size == data.size:
        return data.astype(np.uint64)
    starts = np.concatenate(([0], ends[:-1] + 1))
    lengths = ends - starts + 1
    if int(lengths.max()) > 10:
        raise ValueError("a number has more than ten bytes")
    shifts = (np.arange(data.size) - np.repeat(starts, lengths)).astype(np.uint64) * np.uint64(7)
    return np.bitwise_or.reduceat((data & 0x7F).astype(np.uint64) << shifts, starts)


def _parameter(entry: memoryview) -> tuple[str, object]:
    """A parameter of a request: its name, and its value if that is a truth value or a whole number."""
    name, value = "", None
    for number, _, data in fields(entry):
        if number == 1:
            name = str(data, "utf-8")
        elif number == 2:
            for kind, integer, _ in fields(data):
                value = {1: bool(integer), 2: _signed(integer), 5: integer}.get(kind)
    return name, value


def _signed(integer: int) -> int:
    return integer - (1 << 64) if integer >= 1 << 63 else integer


# ------------------------------------------------------------------------------------------------ every other message


def text_of(message: bytes | memoryview, number: int) -> str:
    """The text in the last field of that number; empty if there is none.

    Raises:
        ValueError: it is no message, or the text is not UTF-8.
    """
    found = b""
    for at, _, data in fields(memoryview(message)):
        if at == number:
            found = bytes(data)
    return found.decode()


def streamed(answer: bytes) -> bytes:
    """``ModelStreamInferResponse`` with the answer to one request of a stream."""
    return field(2, answer)


def streamed_error(text: str, request: bytes) -> bytes:
    """``ModelStreamInferResponse`` that says what was wrong with a request, and with which."""
    try:
        identifier = text_of(request, 3)
    except ValueError:
        identifier = ""
    return field(1, text) + field(2, field(3, identifier) if identifier else b"")


def server(about: Mapping[str, Any]) -> bytes:
    """``ServerMetadataResponse``."""
    extensions = b"".join(field(3, name) for name in about["extensions"])
    return field(1, about["name"]) + field(2, about["version"]) + extensions


def metadata(about: Mapping[str, Any]) -> bytes:
    """``ModelMetadataResponse``."""
    parts = [
        field(1, about["name"]),
        *(field(2, version) for version in about["versions"]),
        field(3, about["platform"]),
    ]
    for number, tensors in ((4, about["inputs"]), (5, about["outputs"])):
        for tensor in tensors:
            shape = b"".join(varint(size) for size in tensor["shape"])
            parts.append(field(number, field(1, tensor["name"]) + field(2, tensor["datatype"]) + field(3, shape)))
    return b"".join(parts)


def config(about: Mapping[str, Any]) -> bytes:
    """``ModelConfigResponse``."""
    parts = [field(1, about["name"]), field(2, about["platform"]), field(4, about["max_batch_size"])]
    for number, shape, tensors in ((5, 4, about["input"]), (6, 3, about["output"])):
        for tensor in tensors:
            kind = DATA_TYPES[tensor["data_type"].removeprefix("TYPE_")]
            dims = b"".join(varint(size) for size in tensor["dims"])
            parts.append(field(number, field(1, tensor["name"]) + field(2, kind) + field(shape, dims)))
    return field(1, b"".join(parts) + field(17, about["backend"]))


def statistics(about: Mapping[str, Any]) -> bytes:
    """``ModelStatisticsResponse``."""
    parts = []
    for model in about["model_stats"]:
        kinds = enumerate(("success", "fail"), start=1)
        counts = [(number, model["inference_stats"][kind]) for number, kind in kinds]
        durations = b"".join(field(number, field(1, one["count"]) + field(2, one["ns"])) for number, one in counts)
        head = field(1, model["name"]) + field(2, model["version"]) + field(4, model["inference_count"])
        parts.append(field(1, head + field(6, durations)))
    return b"".join(parts)


def index(models: Sequence[Mapping[str, Any]]) -> bytes:
    """``RepositoryIndexResponse``."""
    names = ("name", "version", "state", "reason")
    return b"".join(
        field(1, b"".join(field(number, model[name]) for number, name in enumerate(names, start=1))) for model in models
    )


def wish(request: bytes) -> tuple[str, list[str]]:
    """The model that a ``RepositoryModelLoadRequest`` or ``RepositoryModelUnloadRequest`` names, and its parameters.

    Raises:
        InputError: it is no message.
    """
    try:
        given = [text_of(entry, 1) for number, _, entry in fields(memoryview(request)) if number == 3]
        return text_of(request, 2), given
    except ValueError as error:
        raise InputError(f"the request does not fit: {error}") from error


def ready_only(request: bytes) -> bool:
    """Whether a ``RepositoryIndexRequest`` asks for models that answer only.

    Raises:
        ValueError: it is no message.
    """
    return any(number == 2 and integer for number, integer, _ in fields(memoryview(request)))
