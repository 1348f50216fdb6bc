"""Arrays come back from safetensors as they went in, and what is no such file says so."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from bedplate.bundle import formats, safetensors
from bedplate.errors import IntegrityError

tensors = st.dictionaries(
    st.text("ab.é0_", min_size=1, max_size=8),
    st.sampled_from(["?", "u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", ">f4", "f8"]).flatmap(
        lambda kind: arrays.arrays(kind, arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
    ),
    min_size=1,
    max_size=4,
)


@given(tensors)
def test_arrays_come_back_as_they_went_in(given):
    data = safetensors.write(given)
    found = safetensors.read(data, "x")

    assert formats.identify("x", data) == "safetensors"
    assert list(found) == list(given)
    for name, array in given.items():
        assert found[name].dtype == array.dtype.newbyteorder("<")
        assert found[name].shape == array.shape
        assert found[name].tobytes() == array.astype(array.dtype.newbyteorder("<")).tobytes()
    assert safetensors.write(found) == data


def test_half_precision_of_the_other_kind_is_read_as_float32():
    values = np.array([1.5, -2.0, 3.0e38], np.float32)
    body = (values.view("<u4") >> 16).astype("<u2").tobytes()
    header = json.dumps({"w": {"dtype": "BF16", "shape": [3], "data_offsets": [0, 6]}}).encode()

    found = safetensors.read(len(header).to_bytes(8, "little") + header + body, "x")["w"]

    assert found.dtype == np.float32
    assert np.allclose(found, values, rtol=0.01)


@pytest.mark.parametrize("data", [b"", b"{}", b"\2\0\0\0\0\0\0\0{]", b"\x00" * 40, safetensors.write({})[:-1]])
def test_what_is_none_is_refused(data):
    with pytest.raises(IntegrityError, match="safetensors"):
        safetensors.read(data, "items.safetensors")


def test_a_type_that_numpy_has_not_is_refused():
    header = json.dumps({"w": {"dtype": "F8_E4M3", "shape": [1], "data_offsets": [0, 1]}}).encode()

    with pytest.raises(IntegrityError, match="F8_E4M3"):
        safetensors.read(len(header).to_bytes(8, "little") + header + b"\0", "x")
