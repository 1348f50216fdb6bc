"""Models that other libraries saved, made into ONNX. This runs in a limited process and refuses to run anywhere else.

Loading such a model runs whatever it brings, so nothing that this process says afterwards can be believed: its owner
takes only a file that it checks itself, and has a second limited process run that file on the same rows and compare.
Scikit-learn, LightGBM, XGBoost and torch are converted; the converters and torch are loaded only here.
"""

import io
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from bedplate.compute.task import Result, Task
from bedplate.errors import DeniedError, InputError
from bedplate.extensions import require
from bedplate.isolation import confine

MODEL, LABELS, SCORES = "model.onnx", "labels.npy", "scores.npy"
ROWS = 64
OPSET, ML_OPSET = 17, 3
_FOLDER = "foreign"
_INPUT = "input"

Array = npt.NDArray[Any]


class Column(msgspec.Struct, frozen=True, kw_only=True):
    """One column of the model's input; ``values`` are the first rows of the example that came with the model."""

    name: str
    type: str
    values: tuple[Any, ...] = ()


class Parameters(msgspec.Struct, frozen=True, kw_only=True):
    """What is known about a model from its ``MLmodel`` file. ``shape`` is that of a tensor; -1 is a free dimension."""

    converter: Literal["sklearn", "lightgbm", "xgboost", "pytorch"]
    data: str
    form: str = ""
    model_class: str = ""
    columns: tuple[Column, ...] = ()
    shape: tuple[int, ...] = ()
    dtype: str = "float32"
    example: Any = None


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """How what the ONNX model says compares with what the model said before, on ``rows`` rows.

    ``largest`` is the largest difference of a score, ``agree`` the share of rows within the tolerance, ``labels`` the
    share with the same label, if there are labels.
    """

    rows: int
    largest: float
    mean: float
    agree: float
    labels: float | None
    tolerance: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


ABSOLUTE, RELATIVE = 1e-4, 1e-3


class _Rows(msgspec.Struct, frozen=True):
    """The rows that both are asked about: what the library takes, and the arrays of each ONNX input, in order."""

    given: Any
    arrays: dict[str, Array]
    types: list[tuple[str, Any]]


def convert(task: Task) -> Result:
    """Load the model of ``files``, make ONNX of it, and let it predict.

    Files: ``model.onnx``, an ``.npy`` file for each input in order, and what the model said: scores, and labels if it
    has them.

    Raises:
        DeniedError: this process is not limited.
        InputError: the model is of a kind that cannot be converted.
        MissingExtraError: the library that it needs is not installed.
    """
    if not confine.confined():
        raise DeniedError("foreign models are loaded in a limited process only", fix="use bedplate models convert")
    given = msgspec.convert(task.parameters, Parameters)
    _unpack(task.tables["files"])
    make: Mapping[str, Callable[[Parameters, int], tuple[bytes, dict[str, Array], Any, Any]]] = {
        "sklearn": _sklearn,
        "lightgbm": _lightgbm,
        "xgboost": _xgboost,
        "pytorch": _pytorch,
    }
    model, inputs, labels, scores = make[given.converter](given, task.seed)
    files = {MODEL: model, SCORES: _npy(np.asarray(scores, dtype=np.float64))}
    files |= {f"input_{i:03}.npy": _npy(array) for i, array in enumerate(inputs.values())}
    if labels is not None:
        files[LABELS] = _npy(_words(labels))
    return Result(files=files)


def compare(task: Task) -> Result:
    """Run ``model.onnx`` of ``answers`` on the rows beside it, and compare with what was said about them.

    Raises:
        InputError: what it answers has another shape.
    """
    import onnxruntime

    table = task.tables["answers"]
    files = dict(zip(table["name"].to_pylist(), table["data"].to_pylist(), strict=True))
    session = onnxruntime.InferenceSession(files[MODEL], providers=["CPUExecutionProvider"])
    arrays = [_read(files[name]) for name in sorted(files) if name.startswith("input_")]
    names = [each.name for each in session.get_inputs()]
    if len(names) != len(arrays):
        raise InputError(f"the converted model takes {len(names)} inputs, the model took {len(arrays)}")
    outputs = session.run(None, dict(zip(names, arrays, strict=True)))
    labels, scores = (outputs[0], outputs[1]) if LABELS in files and len(outputs) > 1 else (None, outputs[-1])
    expected, found = _alike(_read(files[SCORES]), np.asarray(scores, dtype=np.float64))
    if expected.shape != found.shape:
        raise InputError(f"the converted model answers {found.shape}, the model answered {expected.shape}")
    apart = np.abs(expected - found).reshape(len(expected), -1)
    within = (apart <= ABSOLUTE + RELATIVE * np.abs(expected).reshape(apart.shape)).all(axis=1)
    same = None
    if labels is not None:
        same = float(np.mean(_words(labels) == _read(files[LABELS])))
    made = Comparison(
        rows=len(expected),
        largest=float(apart.max(initial=0.0)),
        mean=float(apart.mean()) if apart.size else 0.0,
        agree=float(within.mean()) if len(within) else 0.0,
        labels=same,
        tolerance=f"{ABSOLUTE:g} + {RELATIVE:g} of the value",
        inputs=tuple(f"{each.name}: {each.type} {each.shape}" for each in session.get_inputs()),
        outputs=tuple(f"{each.name}: {each.type} {each.shape}" for each in session.get_outputs()),
    )
    return Result(result=msgspec.to_builtins(made))


def _alike(expected: Array, found: Array) -> tuple[Array, Array]:
    """The two as arrays of one shape where they differ only in how they write two classes or one value."""
    if found.ndim == 2 and found.shape[1] == 2 and (expected.ndim == 1 or expected.shape[1] == 1):
        found = found[:, 1]
    if found.ndim == 2 and found.shape[1] == 1:
        found = found[:, 0]
    if expected.ndim == 2 and expected.shape[1] == 1:
        expected = expected[:, 0]
    return expected, found


def _words(labels: Any) -> Array:
    """Labels as text: a truth value, a whole number and the same number as a float are one label."""
    plain = np.ravel(np.asarray(labels))
    return np.asarray([str(float(label)) if plain.dtype.kind in "biuf" else str(label) for label in plain])


def _npy(array: Array) -> bytes:
    out = io.BytesIO()
    np.save(out, array, allow_pickle=False)
    return out.getvalue()


def _read(data: bytes) -> Array:
    found: Array = np.load(io.BytesIO(data), allow_pickle=False)
    return found


def _unpack(table: Any) -> None:
    """Write the files of the model into the scratch folder."""
    for path, data in zip(table["path"].to_pylist(), table["data"].to_pylist(), strict=True):
        target = _path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)


def _path(name: str) -> Path:
    parts = PurePosixPath(name).parts
    if not parts or any(part in ("..", "/") for part in parts):
        raise InputError(f"{name!r} is no file of the model")
    return Path(_FOLDER, *parts)


# ----------------------------------------------------------------------------------------------------------------- rows


def _rows(given: Parameters, features: int, names: list[str] | None, seed: int, *, apart: bool) -> _Rows:
    """Rows of the example, or drawn as the signature says. ``apart``: each column is an input of its own."""
    columns = given.columns or _plain(given, features)
    if len(columns) != features:
        raise InputError(f"the model takes {features} columns and its signature names {len(columns)}")
    drawn = [_draw(column, np.random.default_rng(seed + place)) for place, column in enumerate(columns)]
    if not apart:
        matrix = np.column_stack([np.asarray(values, dtype=np.float32) for values in drawn])
        types = _types()
        return _Rows(
            _frame(columns, drawn, names), {_INPUT: matrix}, [(_INPUT, types.FloatTensorType([None, features]))]
        )
    types = _types()
    arrays: dict[str, Array] = {}
    declared = []
    for column, values in zip(columns, drawn, strict=True):
        text = values.dtype.kind == "U"
        arrays[column.name] = (values if text else values.astype(np.float32)).reshape(-1, 1)
        declared.append((column.name, (types.StringTensorType if text else types.FloatTensorType)([None, 1])))
    return _Rows(_frame(columns, drawn, names), arrays, declared)


def _plain(given: Parameters, features: int) -> tuple[Column, ...]:
    rows = _matrix(given.example, features)
    if rows is None:
        return tuple(Column(name=f"f{i}", type="double") for i in range(features))
    return tuple(Column(name=f"f{i}", type="double", values=tuple(rows[:, i])) for i in range(features))


def _matrix(example: Any, features: int) -> Array | None:
    try:
        rows = np.asarray(example, dtype=np.float32)
    except (TypeError, ValueError):
        return None
    return rows if rows.ndim == 2 and rows.shape[1] == features and len(rows) else None


def _draw(column: Column, random: np.random.Generator) -> Array:
    if column.values:
        values = [column.values[i % len(column.values)] for i in range(max(ROWS, len(column.values)))]
        if column.type == "string":
            return np.asarray([str(value) for value in values])
        return np.asarray([np.nan if value is None else float(value) for value in values], dtype=np.float32)
    if column.type == "string":
        return np.asarray([f"value {i}" for i in random.integers(0, 3, ROWS)])
    if column.type in ("integer", "long"):
        return random.integers(0, 10, ROWS).astype(np.float32)
    if column.type == "boolean":
        return random.integers(0, 2, ROWS).astype(np.float32)
    return random.normal(size=ROWS).astype(np.float32)


def _frame(columns: tuple[Column, ...], drawn: list[Array], names: list[str] | None) -> Any:
    """What the library is given: a data frame where it takes columns by name, else an array."""
    if names is None or len(names) != len(columns):
        return np.column_stack([np.asarray(values, dtype=np.float64) for values in drawn])
    pandas = require("pandas", "foreign")
    given = {column.name: values for column, values in zip(columns, drawn, strict=True)}
    return pandas.DataFrame({name: given.get(name, values) for name, values in zip(names, drawn, strict=True)})


def _types() -> Any:
    return require("skl2onnx.common.data_types", "train")


# ------------------------------------------------------------------------------------------------------------ libraries


def _sklearn(given: Parameters, seed: int) -> tuple[bytes, dict[str, Array], Any, Any]:
    model = _load(given)
    if not hasattr(model, "predict"):
        raise InputError(f"a {type(model).__name__} does not predict, so nothing could be compared")
    apart = _by_column(model)
    rows = _rows(given, int(model.n_features_in_), _learned_names(model) if apart else None, seed, apart=apart)
    converter = require("skl2onnx", "train")
    classifies = hasattr(model, "predict_proba")
    options = {id(model): {"zipmap": False}} if classifies else None
    made = converter.convert_sklearn(
        model, initial_types=rows.types, target_opset={"": OPSET, "ai.onnx.ml": ML_OPSET}, options=options
    )
    labels = model.predict(rows.given) if classifies else None
    scores = model.predict_proba(rows.given) if classifies else model.predict(rows.given)
    return bytes(made.SerializeToString()), rows.arrays, labels, scores


def _load(given: Parameters) -> Any:
    """The object that was saved. This runs what it brings."""
    path = _path(given.data)
    if given.form == "skops" or path.suffix == ".skops":
        skops = require("skops.io", "foreign")
        return skops.load(path, trusted=skops.get_untrusted_types(file=path))
    import joblib  # comes with scikit-learn, and reads what pickle and cloudpickle wrote as well

    return joblib.load(path)


def _learned_names(model: Any) -> list[str] | None:
    names = getattr(model, "feature_names_in_", None)
    return None if names is None else [str(name) for name in names]


def _by_column(model: Any) -> bool:
    """Whether the model treats its columns apart, so that each must be an input of its own."""
    first = model.steps[0][1] if hasattr(model, "steps") else model
    return type(first).__name__ == "ColumnTransformer"


def _lightgbm(given: Parameters, seed: int) -> tuple[bytes, dict[str, Array], Any, Any]:
    lightgbm = require("lightgbm", "train")
    tools = require("onnxmltools", "train")
    path = _path(given.data)
    pickled = path.suffix in (".pkl", ".skops")
    model = _load(given) if pickled else lightgbm.Booster(model_file=str(path))
    features = int(model.n_features_in_ if pickled else model.num_feature())
    rows = _rows(given, features, None, seed, apart=False)
    made = tools.convert_lightgbm(model, initial_types=_tool_types(features), target_opset=15, zipmap=False)
    return bytes(made.SerializeToString()), rows.arrays, *_said(model, rows.given)


def _xgboost(given: Parameters, seed: int) -> tuple[bytes, dict[str, Array], Any, Any]:
    xgboost = require("xgboost", "foreign")
    tools = require("onnxmltools", "train")
    name = given.model_class.rpartition(".")[2]
    model = getattr(xgboost, name)() if name.startswith("XGB") else xgboost.Booster()
    model.load_model(str(_path(given.data)))
    booster = model.get_booster() if hasattr(model, "get_booster") else model
    booster.feature_names = None  # the converter knows columns by number alone
    rows = _rows(given, int(booster.num_features()), None, seed, apart=False)
    made = tools.convert_xgboost(model, initial_types=_tool_types(int(booster.num_features())), target_opset=15)
    said = _said(model, rows.given) if model is not booster else (None, booster.predict(xgboost.DMatrix(rows.given)))
    return bytes(made.SerializeToString()), rows.arrays, *said


def _tool_types(features: int) -> list[tuple[str, Any]]:
    types = require("onnxmltools.convert.common.data_types", "train")
    return [(_INPUT, types.FloatTensorType([None, features]))]


def _said(model: Any, given: Any) -> tuple[Any, Any]:
    if hasattr(model, "predict_proba"):
        return model.predict(given), model.predict_proba(given)
    return None, model.predict(given)


def _pytorch(given: Parameters, seed: int) -> tuple[bytes, dict[str, Array], Any, Any]:
    torch = require("torch", "torch")
    folder = _path(given.data)
    found = sorted(path for path in folder.rglob("*") if path.suffix in (".pth", ".pt", ".pt2"))
    if not found:
        raise InputError(f"there is no torch model under {given.data}")
    exported = found[0].suffix == ".pt2"
    model = torch.export.load(found[0]).module() if exported else torch.load(found[0], weights_only=False)
    if not exported:
        model.eval()
    array = _tensor(given, seed)
    tensor = torch.from_numpy(array)
    out = io.BytesIO()
    with torch.no_grad():
        scores = model(tensor).numpy()
        torch.onnx.export(
            model, (tensor,), out, input_names=[_INPUT], output_names=["output"], opset_version=OPSET,
            dynamic_axes={_INPUT: {0: "rows"}, "output": {0: "rows"}}, dynamo=False,
        )  # fmt: skip
    return out.getvalue(), {_INPUT: array}, None, scores


def _tensor(given: Parameters, seed: int) -> Array:
    """The example, or a tensor of the signature's shape."""
    if given.example is not None:
        return np.asarray(given.example, dtype=given.dtype)
    if not given.shape and given.columns:
        return _rows(given, len(given.columns), None, seed, apart=False).arrays[_INPUT]
    if not given.shape:
        raise InputError("the model says neither what it takes nor gives an example", fix="log it with input_example")
    shape = [ROWS if size < 0 else size for size in given.shape]
    return np.random.default_rng(seed).normal(size=shape).astype(given.dtype)
