"""What is in the files of a model is told by content, nothing is loaded, and what is not known is unsafe."""

import bz2
import contextlib
import gzip
import io
import json
import lzma
import os
import pickle
import zipfile
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedplate.errors import InputError
from bedplate.release import foreign
from tests.bundle import test_onnx
from tests.laws import examples
from tests.release.models import Stored, flavors, folder, signature

SKLEARN = flavors("sklearn", pickled_model="model.pkl", serialization_format="cloudpickle")
ONNX = flavors("onnx", data="model.onnx")


def onnx_model() -> bytes:
    """A small graph."""
    return test_onnx.model().SerializeToString(deterministic=True)


class Evil:
    """Its pickle runs a command when it is loaded."""

    def __reduce__(self):
        return os.system, ("touch /tmp/bedplate-was-here",)


def safetensors() -> bytes:
    header = json.dumps({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    return len(header).to_bytes(8, "little") + header + np.zeros(2, np.float32).tobytes()


def zipped(**members: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in members.items():
            archive.writestr(name.replace("__", "/").replace("_pkl", ".pkl"), data)
    return out.getvalue()


@pytest.mark.parametrize(
    ("described", "files"),
    [
        (ONNX, {"model.onnx": onnx_model()}),
        (flavors("lightgbm", data="model.lgb"), {"model.lgb": b"tree\nversion=v4\nnum_class=1\n\nend of trees\n"}),
        (flavors("xgboost", data="model.json"), {"model.json": b'{"learner": {}, "version": [3, 0, 0]}'}),
        (ONNX, {"model.onnx": onnx_model(), "weights.safetensors": safetensors()}),
    ],
    ids=["onnx", "lightgbm", "xgboost", "safetensors"],
)
def test_formats_that_run_no_code_are_safe(described, files):
    around = {
        "conda.yaml": b"name: mlflow-env\ndependencies:\n- python=3.11\n",
        "requirements.txt": b"mlflow==3.17.2\nnumpy\n",
        "input_example.json": b'{"columns": ["a"], "data": [[1.0]]}',
        "README.md": "a model für alle\n".encode(),
        "empty": b"",
    }

    found = foreign.inspect(folder({**files, **around}, **described))

    assert (found.safety, found.reasons) == ("safe", ())


@pytest.mark.parametrize(
    "data",
    [
        *(pickle.dumps(Evil(), protocol) for protocol in range(6)),
        pickle.dumps([1, 2, 3], 4),
        zipped(archive__data_pkl=pickle.dumps(Evil()), archive__version=b"3"),
        zipped(schema=b"{}"),
        *(pack(pickle.dumps(Evil())) for pack in (gzip.compress, bz2.compress, lzma.compress, zlib.compress)),
        b"\x28\xb5\x2f\xfd" + bytes(40),
        b"\x89HDF\r\n\x1a\n" + bytes(40),
        b"\x93NUMPY\x01\x00" + bytes(80),
        b"\x7fELF" + bytes(80),
        b"{L\x00\x00\x00\x00\x00\x00\x00\x07learner{",
        b"whatever this is \xff\xfe",
        onnx_model() + b"\x08",
    ],
    ids=[
        *(f"pickle {protocol}" for protocol in range(6)), "plain pickle", "torch", "skops", "gzip", "bz2", "xz", "zlib",
        "zstd", "hdf5", "npy", "program", "ubjson", "unknown", "torn onnx",
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["model.pkl", "model.onnx", "model.json", "data/README.md", "requirements.txt"])
def test_everything_else_is_unsafe_whatever_it_is_called(name, data):
    found = foreign.inspect(folder({"model.onnx": onnx_model(), name: data}, **ONNX))

    assert found.safety == "unsafe"
    assert any(name in reason for reason in found.reasons)


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_is_called_one(protocol):
    found = foreign.inspect(folder({"model.pkl": pickle.dumps(Evil(), protocol)}, **SKLEARN))

    assert any("pickle, which runs code" in reason or "a pickle written as text" in reason for reason in found.reasons)


@pytest.mark.parametrize("name", ["code/helper.py", "native.so", "run.sh", "x.PYC"])
def test_a_program_is_unsafe_even_empty(name):
    found = foreign.inspect(folder({"model.onnx": onnx_model(), name: b""}, **ONNX))

    assert found.reasons == (f"{name} is a program",)


@pytest.mark.parametrize(
    ("described", "reason"),
    [
        (flavors("onnx", loader="my.own"), "loaded by 'my.own'"),
        (flavors("onnx", loader="mlflow.pyfunc.model"), "mlflow.pyfunc.model"),
        (flavors("onnx", loader="mlflow.onnx.evil"), "mlflow.onnx.evil"),
        ({"flavors": {"python_function": {}, "onnx": {}}}, "loaded by None"),
        ({"flavors": {"python_function": {"loader_module": ["mlflow.onnx"]}, "onnx": {}}}, "loaded by ['mlflow.onnx']"),
        (flavors("onnx", code="code"), "brings code of its own"),
        (flavors("onnx", model_code_path="agent.py"), "brings code of its own"),
        (flavors("statsmodels"), "building Python objects"),
        (flavors("never heard of it", loader="mlflow.onnx"), "building Python objects"),
    ],
)  # fmt: skip
def test_a_flavor_that_runs_code_makes_safe_files_unsafe(described, reason):
    found = foreign.inspect(folder({"model.onnx": onnx_model()}, **described))

    assert found.safety == "unsafe"
    assert any(reason in each for each in found.reasons)


def test_a_model_needs_a_file_that_is_one():
    found = foreign.inspect(folder({"README.md": b"nothing"}, **ONNX))

    assert found.reasons == ("no file of it is a model of a format that is loaded here",)


def test_without_a_description_nothing_is_known():
    assert foreign.inspect({}).safety == "unknown"
    assert foreign.inspect({"model.onnx": Stored(onnx_model())}).safety == "unsafe"


@pytest.mark.parametrize(
    "text",
    [
        b"", b"[]", b"flavors: {}", b"flavors: []", b"flavors: {a: 1}", b"flavors: {1: {}}", b"\xff\xfe", b"a: [",
        b"x" * 100, b"flavors: !!python/object/apply:os.system ['true']", b"- " * 40_000, b"[" * 5000,
        b"a: &x [1]\n" + b"b: *x\n" * 60_000, b"flavors: {onnx: {a: 1" + b"0" * 10_000 + b"}}",
        b"x: " + b"y" * (1 << 20),
    ],
)  # fmt: skip
def test_a_description_that_mlflow_would_not_write_is_refused(text):
    found = foreign.inspect({"MLmodel": Stored(text), "model.onnx": Stored(onnx_model())})

    assert found.safety == "unsafe"


@examples(60)
@given(st.binary(max_size=300) | st.text(max_size=200).map(str.encode))
def test_no_description_breaks_the_reader(text):
    with contextlib.suppress(InputError):
        assert isinstance(foreign.read_mlmodel(text)["flavors"], dict)


@examples(60)
@given(st.binary(min_size=1, max_size=200))
def test_no_file_breaks_the_look(data):
    assert foreign.inspect(folder({"model.bin": data}, **ONNX)).safety in ("safe", "unsafe")


def test_too_many_files_are_not_looked_through():
    files = {f"f{i}": b"x" for i in range(foreign.FILES)}

    assert "are looked through" in foreign.inspect(folder(files, **ONNX)).reasons[0]


def test_what_a_converter_needs_is_kept():
    described = {**SKLEARN, **signature(("a", "double")), "saved_input_example_info": {"artifact_path": "example.json"}}

    found = foreign.inspect(folder({"model.pkl": pickle.dumps(Evil())}, **described))

    assert (found.converter, found.data, found.form) == ("sklearn", "model.pkl", "cloudpickle")
    assert found.signature["inputs"] == [{"type": "double", "name": "a"}]
    assert found.example == "example.json"


def test_the_same_files_have_the_same_content_and_others_another():
    one, same = (folder({"model.onnx": onnx_model()}, **ONNX) for _ in range(2))
    moved = folder({"other.onnx": onnx_model()}, **ONNX)

    contents = [foreign.inspect(each).content for each in (one, same, moved)]

    assert contents[0] == contents[1] != contents[2]
    assert contents[0] == foreign.content_of({path: file.digest for path, file in one.items()})


def test_nothing_was_run():
    """The pickles of this file would leave a trace if anything here had loaded them."""
    foreign.inspect(folder({"model.pkl": pickle.dumps(Evil())}, **SKLEARN))

    assert not os.path.exists("/tmp/bedplate-was-here")
