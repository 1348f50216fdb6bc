"""Formats are told by content, and what could run code is refused."""

import io
import json
import pickle
import zipfile

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedplate.bundle.formats import identify
from bedplate.errors import InputError


def _arrow(stream=True):
    table = pa.table({"a": [1, 2, 3]})
    sink = pa.BufferOutputStream()
    with (pa.ipc.new_stream if stream else pa.ipc.new_file)(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def _safetensors(header=None, body=b"\0" * 16):
    header = header or {"w": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}}
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


GOOD = {
    "arrow": [_arrow(), _arrow(stream=False)],
    "safetensors": [_safetensors(), _safetensors({"__metadata__": {"by": "us"}, "w": {"dtype": "I8", "shape": [16],
                                                                                     "data_offsets": [0, 16]}})],
    "json": [b"{}", b' \n[1, {"a": null}]', b'{"learner": {"objective": "binary:logistic"}}'],
    "lightgbm": [b"tree\nversion=v4\nnum_class=1\nend of trees\n"],
}  # fmt: skip


@pytest.mark.parametrize(("expected", "data"), [(name, data) for name, group in GOOD.items() for data in group])
def test_what_is_loaded_is_told_by_content(expected, data):
    assert identify("any.name", data) == expected
    assert identify("any.name", memoryview(data)) == expected


def _zip():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("data.pkl", pickle.dumps([1]))
    return file.getvalue()


def _npy():
    file = io.BytesIO()
    np.save(file, np.arange(3))
    return file.getvalue()


BAD = {
    "empty": b"",
    "pickle": pickle.dumps({"a": 1}),
    "pickle, protocol 0": pickle.dumps({"a": 1}, protocol=0),
    "zip": _zip(),
    "npy": _npy(),
    "gzip": b"\x1f\x8b\x08\x00",
    "hdf5": b"\x89HDF\r\n\x1a\n",
    "elf": b"\x7fELF\x02\x01\x01",
    "script": b"#!/bin/sh\necho",
    "python": b"import os\n",
    "text": b"hello",
    "broken json": b'{"a": ',
    "two json values": b"{} {}",
    "json with a pickle behind it": b"{}" + pickle.dumps(1),
    "deep json": b"[" * 100_000 + b"]" * 100_000,
    "safetensors with a gap": _safetensors({"w": {"dtype": "F32", "shape": [2], "data_offsets": [8, 16]}}),
    "safetensors with overlap": _safetensors({"v": {"dtype": "I8", "shape": [16], "data_offsets": [0, 16]},
                                              "w": {"dtype": "I8", "shape": [8], "data_offsets": [8, 16]}}),
    "safetensors with more behind": _safetensors(body=b"\0" * 17),
    "safetensors of objects": _safetensors({"w": {"dtype": "OBJECT", "shape": [2], "data_offsets": [0, 16]}}),
    "safetensors with a negative size": _safetensors({"w": {"dtype": "I8", "shape": [-16], "data_offsets": [0, 16]}}),
    "arrow that breaks off": _arrow(stream=False)[:-3],
    "lightgbm with binary": b"tree\nversion=v4\n\xff\xfe",
}  # fmt: skip


@pytest.mark.parametrize("data", BAD.values(), ids=BAD.keys())
def test_everything_else_is_refused(data):
    with pytest.raises(InputError) as caught:
        identify("model.json", data)

    assert caught.value.fix


def test_a_pickled_arrow_type_is_refused():
    field = pa.field("a", pa.int64(), metadata={"ARROW:extension:name": "arrow.py_extension_type"})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, pa.schema([field])):
        pass

    with pytest.raises(InputError, match="pickled extension type"):
        identify("t.arrow", sink.getvalue().to_pybytes())


@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_named_or_refused_and_never_crash(data):
    try:
        identify("x", data)
    except InputError:
        return


@given(st.sampled_from([data for group in GOOD.values() for data in group]), st.data())
def test_a_cut_file_is_refused_or_a_shorter_valid_one(good, data):
    end = data.draw(st.integers(0, len(good) - 1))
    try:
        identify("x", good[:end])
    except InputError:
        return
