"""Table columns as features, and the ONNX graph that does to a request what was done to the training rows."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import numpy.typing as npt

from bedplate.errors import InputError, IntegrityError
from bedplate.extensions import require
from bedplate.train import trees

if TYPE_CHECKING:
    import pyarrow as pa

Matrix = npt.NDArray[np.float32]
MISSING = np.float32(-1e30)
"""What an absent number becomes: below every real one."""
MAX_CATEGORIES = 1000


class Column(msgspec.Struct, frozen=True, kw_only=True):
    """One feature. ``categories`` are the texts seen in training, in the order of their codes; None for a number."""

    name: str
    categories: tuple[str, ...] | None = None


def columns_of(table: "pa.Table", names: Sequence[str]) -> tuple[Column, ...]:
    """The features among ``names`` as the training rows show them.

    Raises:
        InputError: a column is neither number, truth value nor text, or has too many texts to be a category.
    """
    import pyarrow as pa

    found = []
    for name in names:
        kind = table.schema.field(name).type
        if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind):
            found.append(Column(name=name))
            continue
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_dictionary(kind)):
            raise InputError(
                f"{name!r} is {kind}, which the recipe cannot use",
                where="train",
                fix="add it to train.parameters.without",
            )
        texts = {v for v in table[name].to_pylist() if v is not None}
        if len(texts) > MAX_CATEGORIES:
            raise InputError(
                f"{name!r} holds {len(texts)} different texts", where="train", fix="add it to train.parameters.without"
            )
        found.append(Column(name=name, categories=tuple(sorted(texts))))
    return tuple(found)


def encode(table: "pa.Table", columns: Sequence[Column]) -> Matrix:
    """Features as float32 (rows, columns): numbers as they are, texts as codes, -1 for a text never seen."""
    out = np.empty((table.num_rows, len(columns)), np.float32)
    for i, column in enumerate(columns):
        if column.categories is None:
            values = table[column.name].cast("float32", safe=False).to_numpy()
            out[:, i] = np.where(np.isnan(values), MISSING, values)
        else:
            codes = {text: code for code, text in enumerate(column.categories)}
            out[:, i] = [codes.get(text, -1) for text in table[column.name].to_pylist()]
    return out


def export(booster: Any, columns: Sequence[Column], *, classes: int) -> bytes:
    """The model as ONNX: one input per column, (n, 1); output ``score``, (n, 1) or (n, classes) for more than two."""
    onnx = require("onnx", "train")
    helper, kinds = onnx.helper, onnx.TensorProto
    targets = classes if classes > 2 else 1
    nodes, inputs, ready = [], [], []
    for i, column in enumerate(columns):
        kind = kinds.FLOAT if column.categories is None else kinds.STRING
        inputs.append(helper.make_tensor_value_info(column.name, kind, [None, 1]))
        ready.append(f"ready_{i}")
        if column.categories is None:
            nodes.append(helper.make_node("IsNaN", [column.name], [f"absent_{i}"]))
            nodes.append(helper.make_node("Where", [f"absent_{i}", "missing", column.name], [ready[-1]]))
            continue
        nodes.append(
            helper.make_node(
                "LabelEncoder",
                [column.name],
                [ready[-1]],
                domain="ai.onnx.ml",
                keys_strings=list(column.categories) or [""],
                values_floats=[float(code) for code in range(max(1, len(column.categories)))],
                default_float=-1.0,
            )
        )
    nodes.append(helper.make_node("Concat", ready, ["features"], axis=1))
    nodes.append(trees.ensemble(booster, "features", "raw", targets))
    last = "Identity" if not classes else "Sigmoid" if classes == 2 else "Softmax"
    nodes.append(helper.make_node(last, ["raw"], ["score"]))
    missing = helper.make_tensor("missing", kinds.FLOAT, [], [float(MISSING)])
    score = helper.make_tensor_value_info("score", kinds.FLOAT, [None, targets])
    numbers = any(column.categories is None for column in columns)
    return trees.model(nodes, inputs, [score], (missing,) if numbers else ())


def verify(
    booster: Any, model: bytes, columns: Sequence[Column], values: Matrix, *, classes: int, tolerance: float = 1e-5
) -> float:
    """The largest difference between booster and export over ``values``, relative to scores above one.

    Raises:
        IntegrityError: it is above ``tolerance``.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    feed: dict[str, Any] = {}
    for i, column in enumerate(columns):
        if column.categories is None:
            feed[column.name] = np.where(values[:, [i]] == MISSING, np.float32(np.nan), values[:, [i]])
        else:
            texts = [column.categories[int(c)] if c >= 0 else "\0 never seen" for c in values[:, i]]
            feed[column.name] = np.array(texts, dtype=object)[:, None]
    exported = np.asarray(session.run(["score"], feed)[0], np.float64)
    trained = np.asarray(booster.predict(values), np.float64).reshape(exported.shape)
    worst = float((np.abs(exported - trained) / np.maximum(1, np.abs(trained))).max())
    if not worst <= tolerance:
        raise IntegrityError(f"the exported model differs from the trained one by {worst:.2g}", where="model.onnx")
    return worst
