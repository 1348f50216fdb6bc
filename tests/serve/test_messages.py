"""Our codec of protocol buffers against the generated one: both read and write the same, and nothing crashes ours."""

import contextlib
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from tritonclient.grpc import service_pb2 as real
from tritonclient.utils import deserialize_bytes_tensor, serialize_byte_tensor

from bedplate.errors import InputError, NotFoundError
from bedplate.serve.messages import Asked, Messages, metadata, server, streamed, streamed_error
from bedplate.serve.tensors import DTYPES, Answered, plain
from tests.serve.test_codecs import VALUES, signature

CONTENTS = {"BOOL": "bool", "INT64": "int64", "UINT64": "uint64", "FP32": "fp32", "FP64": "fp64", "BYTES": "bytes"}
CONTENTS |= {f"INT{bits}": "int" for bits in (8, 16, 32)} | {f"UINT{bits}": "uint" for bits in (8, 16, 32)}


def served(model: str, version: str | None) -> None:
    if (model, version) not in (("m", None), ("m", "1")):
        raise NotFoundError("another")


def codec(datatype: str, dimensions: int) -> Messages:
    return Messages("m", signature(datatype, (-1,) * dimensions), served)


def raw(array: np.ndarray, datatype: str) -> bytes:
    if datatype == "BF16":  # the upper half of each
        return (array.view(np.uint32) >> 16).astype(np.uint16).tobytes()
    if array.dtype == np.object_:
        encoded = serialize_byte_tensor(np.array([text.encode() for text in array.ravel()], np.object_))
        data: bytes = encoded.item() if encoded.size else b""
        return data
    return array.tobytes()


def request(datatype: str, array: np.ndarray, *, typed: bool, **more: Any) -> Any:
    made = real.ModelInferRequest(model_name="m", **more)
    tensor = made.inputs.add(name="x", datatype=datatype, shape=array.shape)
    if not typed:
        made.raw_input_contents.append(raw(array, datatype))
        return made
    values = plain(array)
    if datatype == "BYTES":
        values = [value.encode() for value in values]
    getattr(tensor.contents, f"{CONTENTS[datatype]}_contents").extend(values)
    return made


@st.composite
def tensors(draw: st.DrawFn) -> tuple[str, np.ndarray, bool]:
    """A datatype, an array of it, and whether to send it typed."""
    datatype = draw(st.sampled_from(sorted(DTYPES)))
    shape = draw(arrays.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=4))
    finite = VALUES[datatype]
    if datatype.startswith("FP"):
        finite = finite.filter(np.isfinite)
    size = math.prod(shape)
    array = np.array(draw(st.lists(finite, min_size=size, max_size=size)), DTYPES[datatype]).reshape(shape)
    return datatype, array, datatype in CONTENTS and draw(st.booleans())


@given(tensors(), st.text(max_size=20))
def test_what_a_client_sends_is_read_and_what_is_answered_it_reads(
    drawn: tuple[str, np.ndarray, bool], identifier: str
) -> None:
    datatype, array, typed = drawn
    messages = codec(datatype, array.ndim)

    asked = messages.decode(request(datatype, array, typed=typed, id=identifier).SerializeToString())

    assert (asked.call.id or "") == identifier
    assert asked.call.arrays["x"].shape == array.shape
    assert asked.call.arrays["x"].tolist() == array.tolist()
    outputs = {"y": asked.call.arrays["x"]}
    answer = messages.encode(asked, Answered("pred_1", "7", outputs))
    read = real.ModelInferResponse.FromString(answer)
    assert (read.model_name, read.model_version, read.id) == ("m", "7", identifier)
    assert read.parameters["prediction_id"].string_param == "pred_1"
    (output,) = read.outputs
    assert (output.name, output.datatype, list(output.shape)) == ("y", datatype, list(array.shape))
    assert values_of(read, datatype) == array.ravel().tolist()
    # Typed is answered typed; with no value at all the two cannot be told apart.
    assert bool(read.raw_output_contents) != typed or not array.size


def values_of(read: Any, datatype: str) -> list[Any]:
    if not read.raw_output_contents:
        found = list(getattr(read.outputs[0].contents, f"{CONTENTS[datatype]}_contents"))
        return [value.decode() for value in found] if datatype == "BYTES" else found
    data = read.raw_output_contents[0]
    if datatype == "BYTES":
        return [value.decode() for value in deserialize_bytes_tensor(data)]
    if datatype == "BF16":
        data = (np.frombuffer(data, np.uint16).astype(np.uint32) << 16).tobytes()
    values: list[Any] = np.frombuffer(data, DTYPES[datatype]).tolist()
    return values


@given(tensors(), st.data())
def test_no_bytes_crash_the_reader(drawn: tuple[str, np.ndarray, bool], data: st.DataObject) -> None:
    datatype, array, typed = drawn
    message = bytearray(request(datatype, array, typed=typed, id="r").SerializeToString())
    for _ in range(data.draw(st.integers(0, 3))):
        message[data.draw(st.integers(0, len(message) - 1))] = data.draw(st.integers(0, 255))
    broken = bytes(message[: data.draw(st.integers(0, len(message)))])
    with contextlib.suppress(InputError, NotFoundError):
        assert isinstance(codec(datatype, array.ndim).decode(broken), Asked)


@given(st.binary(max_size=60))
def test_no_noise_crashes_the_reader(noise: bytes) -> None:
    with pytest.raises((InputError, NotFoundError)):
        codec("FP32", 1).decode(noise)


def test_what_is_not_known_is_passed_over() -> None:
    message = request("FP32", np.ones(2, np.float32), typed=False).SerializeToString()
    more = b"\x98\x06\x07" + b"\xa2\x06\x01x" + b"\x9d\x06" + bytes(4) + b"\x41" + bytes(8)  # of every wire type
    assert codec("FP32", 1).decode(more + message + more).call.arrays["x"].tolist() == [1.0, 1.0]


def test_numbers_may_come_unpacked_but_not_many() -> None:
    def sent(count: int) -> bytes:
        tensor = real.ModelInferRequest.InferInputTensor(name="x", datatype="INT32", shape=[count]).SerializeToString()
        contents = b"\x10\x05" * count
        size = len(contents)
        tensor += b"\x2a" + bytes([size & 0x7F | 0x80, size >> 7 & 0x7F | 0x80, size >> 14]) + contents
        size = len(tensor)
        return b"\x0a\x01m\x2a" + bytes([size & 0x7F | 0x80, size >> 7 & 0x7F | 0x80, size >> 14]) + tensor

    assert real.ModelInferRequest.FromString(sent(100)).inputs[0].contents.int_contents[99] == 5
    assert codec("INT32", 1).decode(sent(100)).call.arrays["x"].tolist() == [5] * 100
    with pytest.raises(InputError, match="not packed"):
        codec("INT32", 1).decode(sent(10_000))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda r: r.inputs.add(name="x", datatype="INT8", shape=[1]), "1 raw contents"),
        (lambda r: setattr(r.inputs[0], "datatype", "FP16"), "has datatype 'FP16'"),
        (lambda r: setattr(r.inputs[0], "name", "z"), "'z' is not an input"),
        (lambda r: r.inputs[0].contents.int_contents.append(1), "typed contents beside raw"),
        (lambda r: r.outputs.add(name="z"), "'z' is not an output"),
        (lambda r: r.raw_input_contents.pop(), "0 bytes"),
        (lambda r: (r.raw_input_contents.pop(), r.inputs[0].contents.int_contents.append(128)), "that INT8 has not"),
        (lambda r: (r.raw_input_contents.pop(), r.inputs[0].contents.fp32_contents.append(1)), "another type"),
        (lambda r: r.inputs.pop() and r.raw_input_contents.pop(), "the input 'x' is missing"),
        (lambda r: (r.inputs.append(r.inputs[0]), r.raw_input_contents.append(b"\1")), "'x' is given twice"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_said(change: Any, said: str) -> None:
    made = request("INT8", np.ones(1, np.int8), typed=False)
    change(made)
    with pytest.raises(InputError, match=said):
        codec("INT8", 1).decode(made.SerializeToString())


def test_a_version_pins_and_history_is_told() -> None:
    made = request("FP32", np.ones(1, np.float32), typed=False, model_version="1")
    made.parameters["replayed"].bool_param = True
    made.outputs.add(name="y")
    asked = codec("FP32", 1).decode(made.SerializeToString())
    assert (asked.pinned, asked.call.replayed, asked.call.wanted) == (True, True, frozenset({"y"}))
    made.model_version = "2"
    with pytest.raises(NotFoundError):
        codec("FP32", 1).decode(made.SerializeToString())


def test_the_other_messages_are_those_of_the_protocol() -> None:
    tensor = {"name": "x", "datatype": "FP32", "shape": [-1, 30]}
    about = {"name": "m", "versions": ["1", "2"], "platform": "p", "inputs": [tensor], "outputs": [tensor]}
    read = real.ModelMetadataResponse.FromString(metadata(about))
    assert (read.name, list(read.versions), read.platform) == ("m", ["1", "2"], "p")
    assert list(read.inputs[0].shape) == list(read.outputs[0].shape) == [-1, 30]
    known = real.ServerMetadataResponse.FromString(server({"name": "b", "version": "1", "extensions": ["e", "f"]}))
    assert (known.name, known.version, list(known.extensions)) == ("b", "1", ["e", "f"])
    answer = real.ModelInferResponse(id="r").SerializeToString()
    assert real.ModelStreamInferResponse.FromString(streamed(answer)).infer_response.id == "r"
    failed = real.ModelStreamInferResponse.FromString(streamed_error("no", answer))
    assert (failed.error_message, failed.infer_response.id) == ("no", "r")
    assert real.ModelStreamInferResponse.FromString(streamed_error("no", b"\xff")).error_message == "no"
