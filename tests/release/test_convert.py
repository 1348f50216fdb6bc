"""Foreign models become ONNX in limited processes; one that does harm reaches nothing and leaves nothing."""

import importlib.util
import io
import json
import os
import pickle
import socket
from pathlib import Path

import numpy as np
import pytest

from bedplate.bundle import onnx
from bedplate.bundle.formats import identify
from bedplate.compute import sandbox
from bedplate.errors import DeniedError, InputError, IntegrityError, MissingExtraError, UserCodeError
from bedplate.release import convert, foreign
from bedplate.train import conversion
from tests.release.models import flavors, folder, signature

pytestmark = pytest.mark.long

RANDOM = np.random.default_rng(7)
ROWS = RANDOM.normal(size=(200, 4))
TWO, THREE = (ROWS[:, 0] + ROWS[:, 1] > 0), np.digitize(ROWS[:, 0], [-0.5, 0.5])
NAMES = tuple(f"c{i}" for i in range(4))
COLUMNS = signature(*((name, "double") for name in NAMES))
EXAMPLE = {"saved_input_example_info": {"artifact_path": "input_example.json"}}


def needs(module):
    return pytest.mark.skipif(importlib.util.find_spec(module) is None, reason=f"{module} is not installed")


def converted(files, **described):
    stored = folder(files, **described)
    seen = foreign.inspect(stored)
    assert seen.safety == "unsafe" or "lightgbm" in seen.flavors
    made = convert.convert(stored, seen)
    onnx.check(made.model)
    assert identify("model.onnx", made.model) == "onnx"
    return made


def learned(kind="two classes"):
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LinearRegression, LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    match kind:
        case "pipeline of two classes":
            return make_pipeline(StandardScaler(), LogisticRegression()).fit(ROWS, TWO)
        case "forest of three":
            return RandomForestClassifier(15, random_state=0).fit(ROWS, THREE)
        case "regression":
            return LinearRegression().fit(ROWS, ROWS[:, 0] * 2 + 1)
    return LogisticRegression().fit(ROWS, TWO)


def sklearn_flavor(name="model.pkl", form="cloudpickle"):
    return flavors("sklearn", pickled_model=name, serialization_format=form)


@pytest.mark.parametrize(
    ("kind", "labels"), [("pipeline of two classes", True), ("forest of three", True), ("regression", False)]
)
def test_scikit_learn_says_the_same_as_onnx(kind, labels):
    model = learned(kind)
    example = json.dumps({"columns": NAMES, "data": ROWS[:5].tolist()}).encode()

    made = converted(
        {"model.pkl": pickle.dumps(model), "input_example.json": example}, **sklearn_flavor(), **COLUMNS, **EXAMPLE
    )

    compared = made.evidence["compared"]
    assert compared["agree"] == 1.0
    assert compared["labels"] == (1.0 if labels else None)
    assert compared["rows"] == 64
    assert made.evidence["isolated"]
    assert made.evidence["rows from"] == "the model's own example"


@needs("pandas")
def test_a_model_that_treats_columns_apart_takes_them_apart():
    """Texts and numbers, each an input of its own under its name."""
    import pandas
    from sklearn.compose import ColumnTransformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    frame = pandas.DataFrame({"age": ROWS[:, 0], "town": np.where(ROWS[:, 1] > 0, "a", "b"), "pay": ROWS[:, 2]})
    apart = ColumnTransformer(
        [("town", OneHotEncoder(handle_unknown="ignore"), ["town"]), ("rest", StandardScaler(), ["age", "pay"])]
    )
    fitted = make_pipeline(apart, LogisticRegression()).fit(frame, TWO)
    columns = signature(("age", "double"), ("town", "string"), ("pay", "double"))

    made = converted({"model.pkl": pickle.dumps(fitted)}, **sklearn_flavor(), **columns)

    assert made.evidence["compared"]["agree"] == 1.0
    assert [each.partition(":")[0] for each in made.evidence["compared"]["inputs"]] == ["age", "town", "pay"]


@needs("skops")
def test_skops_archives_are_converted():
    import skops.io

    data = skops.io.dumps(learned())

    assert (
        converted({"model.skops": data}, **sklearn_flavor("model.skops", "skops")).evidence["compared"]["agree"] == 1.0
    )


@pytest.mark.parametrize("objective", ["binary", "regression", "multiclass"])
def test_lightgbm_says_the_same_as_onnx(objective):
    import lightgbm

    target = {"binary": TWO, "regression": ROWS[:, 0], "multiclass": THREE}[objective]
    settings = {"objective": objective, "verbose": -1, **({"num_class": 3} if objective == "multiclass" else {})}
    booster = lightgbm.train(settings, lightgbm.Dataset(ROWS, target), 8)

    made = converted({"model.lgb": booster.model_to_string().encode()}, **flavors("lightgbm", data="model.lgb"))

    assert made.evidence["compared"]["agree"] == 1.0


@needs("xgboost")
@pytest.mark.parametrize("kind", ["XGBClassifier", "XGBRegressor"])
def test_xgboost_says_the_same_as_onnx(kind, tmp_path):
    import xgboost

    model = getattr(xgboost, kind)(n_estimators=8).fit(ROWS, THREE if kind == "XGBClassifier" else ROWS[:, 0])
    model.save_model(tmp_path / "model.ubj")
    described = flavors("xgboost", data="model.ubj", model_class=f"xgboost.sklearn.{kind}", model_format="ubj")

    made = converted({"model.ubj": (tmp_path / "model.ubj").read_bytes()}, **described)

    assert made.evidence["compared"]["agree"] == 1.0


@needs("torch")
def test_torch_says_the_same_as_onnx():
    import torch

    network = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    out = io.BytesIO()
    torch.save(network, out)
    tensor = [{"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, 4]}}]
    described = {**flavors("pytorch", model_data="data"), "signature": {"inputs": json.dumps(tensor)}}

    made = converted({"data/model.pth": out.getvalue()}, **described)

    assert made.evidence["compared"]["agree"] == 1.0


# ------------------------------------------------------------------------------------------------------------- refusals


class Hostile:
    """What its pickle does when it is loaded: ``work`` is Python, and what it gets away with is written down."""

    def __init__(self, work: str) -> None:
        self.work = work

    def __reduce__(self):
        return exec, (self.work,)


def hostile(work: str):
    """Convert a model whose pickle does ``work``, and then is no model."""
    stored = folder({"model.pkl": pickle.dumps(Hostile(work))}, **sklearn_flavor())
    return convert.convert(stored, foreign.inspect(stored))


def test_a_hostile_pickle_reaches_nothing(tmp_path, monkeypatch):
    """It cannot read a key, connect, write, run a program or see the environment: each attempt fails where it is."""
    key, target = tmp_path / "signing.key", tmp_path / "written"
    key.write_text("secret key")
    monkeypatch.setenv("BEDPLATE_DATABASE", "postgresql://user:secret@host/x")
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        attempts = {
            "read a key": f"open({str(key)!r}).read()",
            "list the keys": f"__import__('os').listdir({str(tmp_path)!r})",
            "write": f"open({str(target)!r}, 'w').write('x')",
            "connect": f"__import__('socket').create_connection({server.getsockname()!r}, 1)",
            "run a program": "__import__('subprocess').run(['/bin/true'], check=True)",
            "fork": "__import__('os').fork()",
            "kill the owner": f"__import__('os').kill({os.getpid()}, 9)",
            "see the environment": "__import__('os').environ['BEDPLATE_DATABASE']",
        }
        for name, attempt in attempts.items():
            with pytest.raises(UserCodeError) as raised:
                hostile(f"got = {attempt}\nraise RuntimeError('GOT AWAY WITH IT')")
            assert "GOT AWAY" not in str(raised.value), name
        with pytest.raises(TimeoutError):
            server.accept()
    assert not target.exists()
    assert key.read_text() == "secret key"


@pytest.mark.parametrize(
    ("work", "reason"),
    [
        ("raise ValueError('not a model')", "not a model"),
        ("x = bytearray(60 << 30)", "memory"),
        ("pass", "does not predict"),
        ("__import__('os')._exit(3)", "status 3"),
        ("__import__('sys').exit('bye')", "bye"),
    ],
)
def test_a_pickle_that_is_no_model_says_so(work, reason):
    with pytest.raises((UserCodeError, InputError), match=reason):
        hostile(work)


def test_a_process_that_lies_hands_over_nothing_but_checked_onnx(monkeypatch):
    """Whatever comes back as the model must be plain ONNX, and must say on the rows what it claims."""
    stored = folder({"model.pkl": pickle.dumps(learned())}, **sklearn_flavor())
    seen = foreign.inspect(stored)
    real, changed = sandbox.call, dict[str, bytes]()

    def lying(entry, **options):
        reply = real(entry, **options)
        if entry == convert.CONVERT:
            reply.files.update(changed)
        return reply

    monkeypatch.setattr(sandbox, "call", lying)
    for lie, reason in (
        ({"model.onnx": pickle.dumps(Hostile("1"))}, "cannot be used"),
        ({"model.onnx": b""}, "cannot be used"),
        ({conversion.SCORES: conversion._npy(np.zeros((64, 2)))}, "something else"),
    ):
        changed.clear()
        changed.update(lie)
        with pytest.raises(IntegrityError, match=reason):
            convert.convert(stored, seen)


def test_nothing_is_loaded_outside_a_limited_process():
    """The code that loads refuses to run here."""
    from bedplate.compute.task import Task

    with pytest.raises(DeniedError, match="limited process"):
        conversion.convert(Task(tables={}, parameters={"converter": "sklearn", "data": "model.pkl"}))


def test_what_has_no_converter_says_what_has():
    stored = folder({"model.pkl": pickle.dumps(1)}, **flavors("prophet", data="model.pkl"))

    with pytest.raises(InputError, match="no converter for prophet"):
        convert.convert(stored, foreign.inspect(stored))


def test_a_model_file_that_is_not_there_is_named():
    stored = folder({"other.pkl": pickle.dumps(1)}, **sklearn_flavor())

    with pytest.raises(InputError, match=r"model\.pkl"):
        convert.convert(stored, foreign.inspect(stored))


@pytest.mark.parametrize("path", ["../../etc/x.pkl", "/etc/x.pkl"])
def test_a_path_out_of_the_folder_is_no_file(path):
    """Also inside the limited process, where files are written before they are loaded."""
    with pytest.raises(InputError):
        conversion._path(path)


def test_a_library_that_is_missing_is_named_with_its_install_line():
    if importlib.util.find_spec("torch") is not None:
        pytest.skip("torch is installed")
    stored = folder({"data/model.pth": pickle.dumps(1)}, **flavors("pytorch", model_data="data"))

    with pytest.raises(MissingExtraError, match="torch") as raised:
        convert.convert(stored, foreign.inspect(stored))

    assert raised.value.fix == "pip install 'bedplate[torch]'"


def test_confinement_is_known(tmp_path: Path):
    """Inside it is true, here it is not."""
    from bedplate.isolation import confine

    pipeline = tmp_path / "pipeline.py"
    pipeline.write_text(
        "from bedplate.isolation import confine\nfrom bedplate.compute.task import Result\n"
        "from bedplate.pipeline import train\n\n\n@train\ndef look(task):\n"
        "    return Result(result={'confined': confine.confined()})\n"
    )

    assert sandbox.call("pipeline:look", pipeline=pipeline).result == {"confined": True}
    assert not confine.confined()
