"""From a body to checked arrays and back: what goes in comes out, and what does not fit is said, never a crash."""

import json
import math
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from bedplate.errors import InputError
from bedplate.records import ModelSignature, TensorSpec
from bedplate.serve.codecs import Codec, InferResponse, metadata
from bedplate.serve.tensors import DTYPES, Answered, Inputs, ModelError, check, logged, packed

# Numbers as JSON carries them: every value of the type but those JSON has no text for.
VALUES = {
    name: st.text(max_size=8) if name == "BYTES" else arrays.from_dtype(np.dtype(dtype), allow_nan=False)
    for name, dtype in DTYPES.items()
}


def bfloats(bits: int) -> float:
    """The value of BF16 that these sixteen bits are."""
    return float(np.array([bits << 16], np.uint32).view(np.float32)[0])


VALUES["BF16"] = st.integers(0, 2**16 - 1).map(bfloats).filter(math.isfinite)


def signature(datatype: str, shape: tuple[int, ...], name: str = "x") -> ModelSignature:
    spec = TensorSpec(name=name, datatype=datatype, shape=shape)
    return ModelSignature(predictor="onnx", inputs=(spec,), outputs=(msgspec.structs.replace(spec, name="y"),))


def text(data: Any, shape: list[int], datatype: str = "FP32", **more: Any) -> bytes:
    tensor = {"name": "x", "shape": shape, "datatype": datatype, "data": data}
    return json.dumps({"inputs": [tensor], **more}).encode()


def answered(**outputs: np.ndarray) -> Answered:
    return Answered("pred_1", "1", outputs)


@st.composite
def tensors(draw: st.DrawFn) -> tuple[str, np.ndarray, bool]:
    """A datatype, an array of it, and whether to send it flat."""
    datatype = draw(st.sampled_from(sorted(DTYPES)))
    shape = draw(arrays.array_shapes(min_dims=1, max_dims=3, max_side=4))
    size = math.prod(shape)
    values = draw(st.lists(VALUES[datatype], min_size=size, max_size=size))
    array = np.array(values, DTYPES[datatype]).reshape(shape)
    assume(datatype == "BYTES" or np.isfinite(array).all())
    return datatype, array, draw(st.booleans())


@given(tensors())
def test_what_goes_in_comes_out(given: tuple[str, np.ndarray, bool]) -> None:
    """decode(request(array)) is the array, and the answer made of it reads as the same values."""
    datatype, array, flat = given
    codec = Codec("m", signature(datatype, (-1,) * array.ndim))

    decoded = codec.decode(text((array.ravel() if flat else array).tolist(), list(array.shape), datatype, id="r"))
    body, _ = codec.encode(decoded, answered(y=decoded.arrays["x"]))

    assert decoded.id == "r"
    assert decoded.arrays["x"].dtype == np.dtype(DTYPES[datatype])
    assert np.array_equal(decoded.arrays["x"], array)
    assert np.array_equal(np.array(json.loads(bytes(decoded.values["x"])), array.dtype).reshape(array.shape), array)
    answer = msgspec.json.decode(body, type=InferResponse)
    assert (answer.model_name, answer.model_version, answer.id) == ("m", "1", "r")
    assert answer.parameters == {"prediction_id": "pred_1"}
    (output,) = answer.outputs
    assert (output.name, output.shape, output.datatype) == ("y", array.shape, datatype)
    assert np.array_equal(np.array(output.data, DTYPES[datatype]).reshape(output.shape), array)


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=12,
)
ALL = [Codec("m", signature(datatype, (-1, 2))) for datatype in DTYPES]


def _refused_or_right(codec: Codec, body: bytes) -> None:
    try:
        decoded = codec.decode(body)
    except InputError:
        return
    (array,) = decoded.arrays.values()
    assert array.shape[1:] == (2,)


@given(st.sampled_from(ALL), st.binary(max_size=200))
def test_bytes_that_are_no_request_give_an_input_error_only(codec: Codec, body: bytes) -> None:
    with pytest.raises(InputError):
        codec.decode(body)


@given(st.sampled_from(ALL), ANY_JSON)
def test_json_that_is_no_request_gives_an_input_error_only(codec: Codec, value: Any) -> None:
    _refused_or_right(codec, json.dumps(value).encode())


@given(st.sampled_from(ALL), st.sampled_from(sorted(DTYPES)), st.lists(st.integers(), max_size=3), ANY_JSON)
def test_a_tensor_of_anything_is_refused_or_has_its_shape(
    codec: Codec, datatype: str, shape: list[int], data: Any
) -> None:
    _refused_or_right(codec, text(data, shape, datatype))


@given(st.data())
def test_a_request_with_a_damaged_byte_is_refused_or_has_its_shape(data: st.DataObject) -> None:
    body = bytearray(text([[1.5, 2.0], [3.0, 4.0]], [2, 2], id="r", outputs=[{"name": "y"}]))
    body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))

    _refused_or_right(ALL[list(DTYPES).index("FP32")], bytes(body))


@pytest.mark.parametrize(
    ("datatype", "value"),
    [
        ("UINT8", -1),
        ("UINT8", 256),
        ("INT8", 128),
        ("INT32", 2**31),
        ("INT64", 2**63),
        ("UINT64", 2**64),
        ("INT64", 1.5),
        ("INT64", True),
        ("INT64", "1"),
        ("BOOL", 1),
        ("FP16", 70000.0),
        ("FP32", 1e39),
        ("FP64", "1"),
        ("FP64", None),
        ("BYTES", 1),
    ],
)
def test_a_value_that_the_type_cannot_hold_is_refused_not_bent(datatype: str, value: Any) -> None:
    codec = Codec("m", signature(datatype, (1,)))

    with pytest.raises(InputError, match="'x'"):
        codec.decode(text([value], [1], datatype))


def test_the_edges_of_each_type_fit() -> None:
    for datatype, value in [("UINT64", 2**64 - 1), ("INT64", -(2**63)), ("INT8", -128), ("FP16", 65504.0)]:
        codec = Codec("m", signature(datatype, (1,)))
        assert codec.decode(text([value], [1], datatype)).arrays["x"].tolist() == [value]


def test_what_does_not_fit_is_named_with_what_would() -> None:
    codec = Codec("m", signature("FP32", (-1, 2)))

    def why(body: bytes) -> str:
        with pytest.raises(InputError) as caught:
            codec.decode(body)
        return str(caught.value)

    assert "send x" in why(b'{"inputs":[{"name":"z","shape":[1,2],"datatype":"FP32","data":[1,2]}]}')
    assert "missing" in why(b'{"inputs":[]}')
    assert "send it as FP32" in why(text([1.0, 2.0], [1, 2], "FP64"))
    assert "[-1, 2]" in why(text([1.0, 2.0, 3.0], [1, 3]))
    assert "4 values" in why(text([1.0, 2.0, 3.0, 4.0], [1, 2]))
    assert "not [1, 2]" in why(text([[1.0, 2.0], [3.0, 4.0]], [1, 2]))
    assert "ask for y" in why(text([1.0, 2.0], [1, 2], outputs=[{"name": "q"}]))


def test_the_client_gets_the_outputs_it_wants() -> None:
    spec = signature("FP32", (1,))
    codec = Codec("m", msgspec.structs.replace(spec, outputs=(*spec.outputs, *spec.inputs)))

    decoded = codec.decode(text([1.0], [1], outputs=[{"name": "x"}]))
    body, _ = codec.encode(decoded, answered(x=np.ones(1, np.float32), y=np.zeros(1, np.float32)))

    assert [tensor["name"] for tensor in json.loads(body)["outputs"]] == ["x"]


@pytest.mark.parametrize(
    ("outputs", "why"),
    [
        ({}, "no output"),
        ({"y": np.ones(1, np.float64)}, "float64"),
        ({"y": np.array([np.nan], np.float32)}, "no number"),
        ({"y": np.array([np.inf], np.float32)}, "no number"),
    ],
)
def test_an_answer_that_breaks_the_signature_is_the_models_fault(outputs: dict[str, np.ndarray], why: str) -> None:
    with pytest.raises(ModelError, match=why):
        check(outputs, signature("FP32", (1,)))


def test_strings_of_any_array_kind_are_written_as_text() -> None:
    for array in (np.array(["é", "b"]), np.array(["é".encode(), b"b"]), np.array(["é", "b"], object)):
        check({"y": array}, signature("BYTES", (-1,)))
        assert logged(array) == ["é", "b"]


def test_only_true_marks_a_replay() -> None:
    codec = Codec("m", signature("FP32", (1,)))
    for value, replayed in [(True, True), (1, False), ("true", False), (None, False)]:
        assert codec.decode(text([1.0], [1], parameters={"replayed": value})).replayed is replayed


def test_a_signature_that_the_protocol_cannot_say_is_refused() -> None:
    for spec in (signature("FP128", (1,)), signature("FP32", (1,) * 9)):
        with pytest.raises(InputError):
            Codec("m", spec)


def test_metadata_says_the_signature() -> None:
    tensor = {"datatype": "INT64", "shape": [-1, 2]}
    assert metadata("m", ["3"], signature("INT64", (-1, 2))) == {
        "name": "m",
        "versions": ["3"],
        "platform": "bedplate_onnx",
        "inputs": [{"name": "x", **tensor}],
        "outputs": [{"name": "y", **tensor}],
    }


@given(tensors())
def test_bytes_give_the_array_that_they_are_made_of(given: tuple[str, np.ndarray, bool]) -> None:
    datatype, array, _ = given
    (reader,) = Inputs(signature(datatype, (-1,) * array.ndim)).by_name.values()

    read = reader.of_bytes(packed(array, datatype), list(array.shape))

    assert read.dtype == array.dtype
    assert np.array_equal(read, array)


@given(st.sampled_from(sorted(DTYPES)), st.binary(max_size=40), st.integers(0, 5))
def test_bytes_that_do_not_fit_give_an_input_error_only(datatype: str, data: bytes, rows: int) -> None:
    (reader,) = Inputs(signature(datatype, (-1, 2))).by_name.values()
    try:
        array = reader.of_bytes(data, [rows, 2])
    except InputError:
        return
    assert array.shape == (rows, 2)
    assert packed(array, datatype) == data


@pytest.mark.parametrize(
    ("datatype", "data", "why"),
    [
        ("FP32", b"1234567", "7 bytes"),
        ("FP32", np.array([1, np.nan], np.float32).tobytes(), "no number"),
        ("FP64", np.array([1, np.inf]).tobytes(), "no number"),
        ("BOOL", b"\1\2", "0 and 1"),
        ("BYTES", b"\0\0\0\0\1\0\0\0", "longer"),
        ("BYTES", b"\1\0\0\0a\1\0\0\0\xff", "UTF-8"),
        ("BYTES", b"\1\0\0\0a\1\0\0\0b!", "1 bytes behind"),
        ("BYTES", b"\1\0\0\0", "too few"),
        ("BYTES", b"\xff\xff\xff\xff1234", "longer"),
    ],
)
def test_bytes_that_do_not_fit_are_refused_with_the_reason(datatype: str, data: bytes, why: str) -> None:
    (reader,) = Inputs(signature(datatype, (2,))).by_name.values()

    with pytest.raises(InputError, match=why):
        reader.of_bytes(data, [2])
