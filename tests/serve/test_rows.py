"""A model as a function of rows: what goes in as rows comes out as the same rows, for every datatype and shape."""

import json
import math
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedplate.errors import InputError
from bedplate.records import ModelSignature, TensorSpec
from bedplate.serve.rows import Rows, readable
from bedplate.serve.tensors import DTYPES, ModelError

FLOATS = {"FP16": 16, "FP32": 32, "BF16": 32, "FP64": 64}


def values(datatype: str) -> st.SearchStrategy[Any]:
    """What JSON can say of a datatype."""
    if datatype == "BYTES":
        return st.text(max_size=5)
    if datatype == "BOOL":
        return st.booleans()
    if datatype in FLOATS:
        return st.floats(width=FLOATS[datatype], allow_nan=False, allow_infinity=False)  # type: ignore[arg-type]
    limits = np.iinfo(DTYPES[datatype])
    return st.integers(int(limits.min), int(limits.max))


NAMES = st.text(
    st.characters(min_codepoint=32, exclude_categories=["Cs"], exclude_characters='"\\'), min_size=1, max_size=6
)


@st.composite
def asked(draw: st.DrawFn) -> tuple[ModelSignature, list[dict[str, Any]]]:
    """A signature of some columns, each given back, and rows for it."""
    names = draw(st.lists(NAMES, min_size=1, max_size=3, unique=True))
    specs, kinds = [], {}
    for name in names:
        datatype = draw(st.sampled_from(sorted(DTYPES)))
        inner = draw(st.sampled_from([(), (1,), (3,), (2, 2)]))
        specs.append(TensorSpec(name=name, datatype=datatype, shape=(-1, *inner)))
        kind = values(datatype)
        for size in reversed(() if inner == (1,) else inner):
            kind = st.lists(kind, min_size=size, max_size=size)
        kinds[name] = kind
    rows = draw(st.lists(st.fixed_dictionaries(kinds), min_size=1, max_size=4))
    return ModelSignature(predictor="onnx", inputs=tuple(specs), outputs=tuple(specs)), rows


@given(asked())
def test_rows_that_go_in_come_out(given: tuple[ModelSignature, list[dict[str, Any]]]) -> None:
    signature, sent = given
    assert readable(signature)
    rows = Rows(signature)

    read = msgspec.json.decode(json.dumps(sent), type=rows.request_type)
    call = rows.call(read, "mine")

    assert call.id == "mine"
    for spec in signature.inputs:
        array = call.arrays[spec.name]
        assert array.dtype == np.dtype(DTYPES[spec.datatype])
        assert array.shape == (len(sent), *spec.shape[1:])
        assert math.prod(array.shape) == array.size
    assert rows.answers(call.arrays, len(sent)) == sent


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=6,
)


@given(asked(), st.data())
def test_a_field_of_anything_is_refused_or_has_its_type(
    given: tuple[ModelSignature, list[dict[str, Any]]], data: st.DataObject
) -> None:
    signature, sent = given
    rows = Rows(signature)
    name = data.draw(st.sampled_from([spec.name for spec in signature.inputs]))
    changed = [{**sent[0], name: data.draw(ANY)}, *sent[1:]]

    try:
        call = rows.call(msgspec.json.decode(json.dumps(changed), type=rows.request_type), None)
    except (InputError, msgspec.ValidationError):
        return
    assert call.arrays[name].shape[0] == len(sent)


def test_an_answer_of_another_number_of_rows_is_the_models_fault() -> None:
    spec = TensorSpec(name="x", datatype="FP32", shape=(-1,))
    rows = Rows(ModelSignature(predictor="onnx", inputs=(spec,), outputs=(spec,)))

    with pytest.raises(ModelError, match="2 rows of 'x' for 3"):
        rows.answers({"x": np.zeros(2, np.float32)}, 3)


@pytest.mark.parametrize("name", ['a"b', "a\\b", "a\nb", "\x00"])
def test_a_name_that_json_must_escape_is_no_field(name: str) -> None:
    """Such a model is asked for tensors alone, whose names are values."""
    plain = TensorSpec(name="x", datatype="FP32", shape=(-1,))
    odd = TensorSpec(name=name, datatype="FP32", shape=(-1,))

    assert not readable(ModelSignature(predictor="onnx", inputs=(odd,), outputs=(plain,)))
    assert not readable(ModelSignature(predictor="onnx", inputs=(plain,), outputs=(odd,)))
