"""The tabular recipe: one table, one target, gradient-boosted trees against honest baselines, released as ONNX.

The served graph takes each feature as a column, ``float32 [n, 1]`` or for texts ``BYTES [n, 1]``, encodes what is text,
and gives ``score``: a probability, one for each class, or a value. So a caller sends what it has, and nothing but the
graph is needed. Baselines know only the training rows: the majority or mean, the best single feature (a tree of depth
two, chosen by cross-validation), and a linear model. Columns that hold times are left out.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt
from scipy import stats

from bedplate.compute.task import Result, Task
from bedplate.errors import InputError
from bedplate.extensions import require
from bedplate.records import Comparison, Estimate, Metric, ModelSignature, TensorSpec
from bedplate.serve import joining
from bedplate.train import evaluation
from bedplate.train.columns import MISSING, Column, Matrix, columns_of, encode, export, verify
from bedplate.train.joined import Join, config_of, join
from bedplate.usecase import quantities

if TYPE_CHECKING:
    import pyarrow as pa

MODEL = "model.onnx"
Values = npt.NDArray[np.float64]
_MAX_CLASSES = 50
_RESAMPLES = 500


class Parameters(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the recipe is told. ``holdout`` is a share (``20 %``) or, with ``time``, a stretch (``28 d``).

    ``table`` may be left out when there is one table. ``without`` names columns that are no features (ids, names).
    Of two classes the second in sorted order is the one that ``score`` speaks of. With ``features``, those that each
    row's entity had at its ``time`` are joined to the table, and a request names the entity.
    """

    target: str
    task: Literal["classification", "regression"] | None = None
    table: str | None = None
    holdout: str = "20 %"
    time: str | None = None
    without: tuple[str, ...] = ()
    slices: tuple[str, ...] = ()
    rounds: int = 200
    lightgbm: dict[str, Any] = {}
    threads: int = 1
    as_of: tuple[str, ...] = ()
    features: Join | None = None


@dataclass(frozen=True)
class Split:
    """Features and target of the rows to learn from and of those held out; ``classes`` is empty for a regression."""

    columns: tuple[Column, ...]
    train: Matrix
    test: Matrix
    y_train: Values
    y_test: Values
    classes: tuple[Any, ...]


@dataclass(frozen=True)
class Rows:
    """What a task says once it was read: the table, which of its rows are held out, and both as features."""

    parameters: Parameters
    table: "pa.Table"
    joined: joining.Joined | None
    held_out: npt.NDArray[np.bool_]
    split: Split


def train(task: Task) -> Result:
    """Train, export and evaluate. Files: ``model.onnx``. Result: as :func:`bedplate.train.recommender.train`.

    Raises:
        InputError: the table, the target or a parameter does not suit the recipe.
    """
    rows = _rows(task)
    model, exported, worst = _fitted(task, rows)
    task.progress("baselines and intervals", None, None)
    result = _measured(rows, _predict(model, rows.split), task.seed)
    result["signature"] = msgspec.to_builtins(_signature(rows.split, rows.joined))
    result["checks"]["onnx_difference"] = worst
    config = {joining.CONFIG: msgspec.json.encode(rows.joined)} if rows.joined else {}
    return Result(files={MODEL: exported, **config}, result=result)


def fit(task: Task, **lightgbm: Any) -> bytes:
    """The recipe's model as ONNX, not measured: for who measures it as a part of something larger.

    ``lightgbm`` are settings of LightGBM beside those of the task.

    Raises:
        InputError: the table, the target or a parameter does not suit the recipe.
    """
    return _fitted(task, _rows(task), **lightgbm)[1]


def _fitted(task: Task, rows: Rows, **lightgbm: Any) -> tuple[Any, bytes, float]:
    """The model, as ONNX, and the largest difference between what both say of the rows held out."""
    split, classes = rows.split, len(rows.split.classes)
    task.progress(f"trees on {len(split.y_train):,} rows of {len(split.columns)} features", None, None)
    model = _boost(split, rows.parameters, task.seed, **lightgbm)
    exported = export(model, split.columns, classes=classes)
    return model, exported, verify(model, exported, split.columns, split.test, classes=classes)


def evaluate(task: Task, answer: Callable[["pa.Table", int], Values]) -> dict[str, Any]:
    """How a model does that was not trained here: metrics, comparisons and what they rest on, but no signature.

    ``answer`` gets the rows held out and the number of classes (none for a regression), and gives the probability of
    each class, shape (rows, classes), or values, shape (rows,).

    Raises:
        InputError: the table, the target or a parameter does not suit the recipe.
    """
    rows = _rows(task)
    return _measured(rows, answer(rows.table.filter(rows.held_out), len(rows.split.classes)), task.seed)


def _rows(task: Task) -> Rows:
    p = _parameters(task.parameters)
    table, name = _table(task, p)
    table, joined = _features(task, table, p)
    held_out = _held_out(table, p, task.seed)
    return Rows(p, table, joined, held_out, _split(table, name, p, held_out))


def _measured(rows: Rows, candidate: Values, seed: int) -> dict[str, Any]:
    p, table, split = rows.parameters, rows.table, rows.split
    predictions = {evaluation.CANDIDATE: candidate, **_baselines(split, seed)}
    per_unit = _metrics(split, predictions)
    slices = {"all": np.ones(len(split.y_test), bool), **_slices(table, p, rows.held_out)}
    lower = frozenset({"log_loss", "squared_error", "absolute_error"})
    metrics, comparisons = evaluation.summarise(per_unit, slices, lower_is_better=lower, seed=seed)
    if split.classes and len(split.classes) == 2:
        more, compared = _ranked(split, predictions, slices, seed)
        metrics, comparisons = metrics + more, comparisons + compared
    return {
        "metrics": msgspec.to_builtins(metrics),
        "comparisons": msgspec.to_builtins(comparisons),
        "parameters": msgspec.to_builtins(p),
        "split": {
            "kind": "time" if p.time else "share",
            "train_rows": len(split.y_train),
            "test_rows": len(split.y_test),
            "classes": [str(c) for c in split.classes],
            "slices": {name: int(mask.sum()) for name, mask in slices.items()},
        },
        "checks": {"left_out": [*p.without, *_times(table)]},
    }


def _parameters(given: dict[str, Any]) -> Parameters:
    try:
        return msgspec.convert(given, Parameters)
    except msgspec.ValidationError as error:
        raise InputError(f"the tabular recipe's parameters cannot be used: {error}", where="train") from error


def _table(task: Task, p: Parameters) -> "tuple[Any, str]":
    tables = [name for name in task.tables if p.features is None or name not in p.features.views]
    if p.table is None and len(tables) != 1:
        raise InputError(
            f"there are {len(tables)} tables",
            where="train.parameters.table",
            fix=f"name one: {', '.join(tables)}",
        )
    name = p.table or tables[0]
    if name not in task.tables:
        raise InputError(
            f"there is no table {name!r}", where="train.parameters.table", fix=f"use {', '.join(task.tables)}"
        )
    table = task.tables[name]
    for column in (p.target, *p.slices, *([p.time] if p.time else [])):
        if column not in table.column_names:
            raise InputError(f"table {name!r} has no column {column!r}", where="train", fix=f"use {table.column_names}")
    if table[p.target].null_count:
        table = table.filter(table[p.target].is_valid())
    if table.num_rows < 20:
        raise InputError(f"{table.num_rows} rows with a target are too few", where=name, fix="give at least 20 rows")
    return table, name


def _features(task: Task, table: Any, p: Parameters) -> "tuple[Any, joining.Joined | None]":
    """The table with the features of its entities, and what the release says of them."""
    if p.features is None:
        return table, None
    absent = [f"a feature view {name!r}" for name in p.features.views if name not in task.tables]
    if missing := [*absent, *(("a time",) if p.time is None else ())]:
        raise InputError(f"features are joined, but there is not {missing[0]}", where="train.parameters.features")
    assert p.time is not None
    config = config_of(p.features, task.tables)
    return join(table, p.time, task.tables, config), config


def _held_out(table: Any, p: Parameters, seed: int) -> npt.NDArray[np.bool_]:
    """Which rows nothing is tuned on: the newest stretch of time, or a share drawn at random."""
    mask = np.zeros(table.num_rows, bool)
    try:
        if p.time is not None:
            times = table[p.time].to_numpy().astype("datetime64[us]")
            stretch = np.timedelta64(int(quantities.parse(p.holdout, "duration") * 1e6), "us")
            mask = times > times.max() - stretch
        else:
            count = round(table.num_rows * quantities.parse(p.holdout, "share"))
            mask[np.random.default_rng(seed).permutation(table.num_rows)[:count]] = True
    except quantities.QuantityError as error:
        raise InputError(f"holdout: {error}", where="train.holdout", fix=error.allowed) from error
    if not 0 < mask.sum() < len(mask):
        raise InputError(
            f"a holdout of {p.holdout} leaves {int((~mask).sum())} rows to learn from and {int(mask.sum())} to test on",
            where="train.holdout",
            fix="choose one that leaves both",
        )
    return mask


def _split(table: Any, name: str, p: Parameters, held_out: npt.NDArray[np.bool_]) -> Split:
    left_out = {p.target, p.time, *p.without, *_times(table), *([p.features.entity] if p.features else [])}
    learned = table.filter(~held_out)
    columns = columns_of(learned, [c for c in table.column_names if c not in left_out])
    if not columns:
        raise InputError("no column is left to learn from", where=name, fix="leave more columns in")
    values = table[p.target]
    kind = p.task or ("regression" if values.type in _floating() else "classification")
    classes: tuple[Any, ...] = ()
    if kind == "regression":
        y = np.asarray(values.to_numpy(), np.float64)
    else:
        plain = np.array(values.to_pylist(), dtype=object)
        classes = tuple(sorted(set(plain.tolist())))
        if not 2 <= len(classes) <= _MAX_CLASSES:
            raise InputError(f"{p.target!r} has {len(classes)} classes", where=name, fix=f"use 2 to {_MAX_CLASSES}")
        y = np.searchsorted(np.array(classes, dtype=object), plain).astype(np.float64)
    return Split(
        columns=columns,
        train=encode(learned, columns),
        test=encode(table.filter(held_out), columns),
        y_train=y[~held_out],
        y_test=y[held_out],
        classes=classes,
    )


def _times(table: Any) -> tuple[str, ...]:
    """Columns that say when: a moment is no feature, since those of the rows to come were never seen."""
    import pyarrow as pa

    return tuple(field.name for field in table.schema if pa.types.is_temporal(field.type))


def _floating() -> tuple[Any, ...]:
    import pyarrow as pa

    return (pa.float32(), pa.float64())


def _boost(split: Split, p: Parameters, seed: int, **changes: Any) -> Any:
    lightgbm = require("lightgbm", "train")
    classes = len(split.classes)
    objective = "regression" if not classes else "binary" if classes == 2 else "multiclass"
    settings = {
        "objective": objective,
        "verbose": -1,
        "num_threads": p.threads,
        "deterministic": True,
        "force_col_wise": True,
        "seed": seed,
        "use_missing": False,
        "learning_rate": 0.05,
        "num_leaves": 15,
        "min_data_in_leaf": max(5, min(50, len(split.y_train) // 50)),
        **({"num_class": classes} if classes > 2 else {}),
        **p.lightgbm,
        **changes,
    }
    data = lightgbm.Dataset(split.train, split.y_train, params=settings)
    return lightgbm.train(settings, data, num_boost_round=p.rounds)


def _predict(model: Any, split: Split) -> Values:
    """Class probabilities, shape (rows, classes), or values, shape (rows,)."""
    raw = np.asarray(model.predict(split.test), np.float64)
    return np.column_stack([1 - raw, raw]) if len(split.classes) == 2 else raw


def _baselines(split: Split, seed: int) -> dict[str, Values]:
    linear_model = require("sklearn.linear_model", "train")
    tree = require("sklearn.tree", "train")
    scaler = require("sklearn.preprocessing", "train")
    pipe = require("sklearn.pipeline", "train")
    selection = require("sklearn.model_selection", "train")
    n = len(split.y_test)
    flat, flat_test = _one_hot(split, split.train), _one_hot(split, split.test)
    if split.classes:
        share = np.bincount(split.y_train.astype(int), minlength=len(split.classes)) / len(split.y_train)
        first = {"majority": np.tile(share, (n, 1))}
        stump: Any = tree.DecisionTreeClassifier(max_depth=2, min_samples_leaf=5, random_state=seed)
        linear: Any = linear_model.LogisticRegression(max_iter=500)
        measure = "neg_log_loss"
    else:
        first = {"mean": np.full(n, split.y_train.mean())}
        stump = tree.DecisionTreeRegressor(max_depth=2, min_samples_leaf=5, random_state=seed)
        linear = linear_model.Ridge()
        measure = "neg_mean_squared_error"
    folds = min(3, int(np.bincount(split.y_train.astype(int)).min())) if split.classes else 3
    best, score = 0, -np.inf
    for i in range(len(split.columns)):
        if folds < 2:
            break
        found = float(
            np.mean(selection.cross_val_score(stump, split.train[:, [i]], split.y_train, cv=folds, scoring=measure))
        )
        if found > score:
            best, score = i, found
    stump.fit(split.train[:, [best]], split.y_train)
    model = pipe.make_pipeline(scaler.StandardScaler(), linear).fit(flat, split.y_train)
    say = "predict_proba" if split.classes else "predict"
    return {
        **first,
        "best_single_feature": np.asarray(getattr(stump, say)(split.test[:, [best]])),
        ("logistic" if split.classes else "linear"): np.asarray(getattr(model, say)(flat_test)),
    }


def _one_hot(split: Split, values: Matrix) -> Matrix:
    """What a linear model can use: texts as indicators, absent numbers as the mean of the training rows."""
    parts = []
    for i, column in enumerate(split.columns):
        if column.categories is None:
            known = split.train[:, i][split.train[:, i] != MISSING]
            middle = known.mean() if len(known) else 0.0
            parts.append(np.where(values[:, i] == MISSING, middle, values[:, i])[:, None])
        else:
            parts.append((values[:, [i]] == np.arange(len(column.categories))).astype(np.float32))
    return np.hstack(parts).astype(np.float32)


def _metrics(split: Split, predictions: dict[str, Values]) -> dict[str, dict[str, Values]]:
    """Metrics that are means over rows; RMSE and MAE are judged as squared and absolute error per row."""
    y = split.y_test
    if not split.classes:
        return {
            "squared_error": {m: (p - y) ** 2 for m, p in predictions.items()},
            "absolute_error": {m: np.abs(p - y) for m, p in predictions.items()},
        }
    rows, label = np.arange(len(y)), y.astype(int)
    return {
        "accuracy": {m: (p.argmax(1) == label).astype(np.float64) for m, p in predictions.items()},
        "log_loss": {m: -np.log(np.clip(p[rows, label], 1e-9, 1)) for m, p in predictions.items()},
    }


def _ranked(
    split: Split, predictions: dict[str, Values], slices: dict[str, npt.NDArray[np.bool_]], seed: int
) -> tuple[tuple[Metric, ...], tuple[Comparison, ...]]:
    """ROC AUC, which is no mean over rows: rows are drawn for all models at once and the area taken of each draw."""
    metrics, comparisons = [], []
    for name, mask in slices.items():
        y = split.y_test[mask].astype(bool)
        if not 0 < y.sum() < len(y):
            continue
        random = np.random.default_rng(seed)
        drawn = random.integers(0, len(y), (_RESAMPLES, len(y)))
        areas = {m: np.array([_area(y[d], p[mask, 1][d]) for d in drawn]) for m, p in predictions.items()}
        points = {m: _area(y, p[mask, 1]) for m, p in predictions.items()}
        for model, values in areas.items():
            found = _interval(points[model], values, len(y))
            metrics.append(Metric(metric="roc_auc", model=model, slice=name, estimate=found))
            if model != evaluation.CANDIDATE:
                gap = points[evaluation.CANDIDATE] - points[model]
                found = _interval(gap, areas[evaluation.CANDIDATE] - values, len(y))
                comparisons.append(Comparison(metric="roc_auc", baseline=model, slice=name, difference=found))
    return tuple(metrics), tuple(comparisons)


def _interval(value: float, draws: Values, n: int) -> Estimate:
    low, high = np.nanquantile(draws, [0.025, 0.975])
    return Estimate(value=value, low=float(low), high=float(high), n=n, method="paired bootstrap percentile")


def _area(y: npt.NDArray[np.bool_], score: Values) -> float:
    """The Mann-Whitney form of the area under the ROC curve; ties count half."""
    ranks = stats.rankdata(score)
    ones = int(y.sum())
    zeros = len(y) - ones
    if not ones or not zeros:
        return float("nan")
    return float((ranks[y].sum() - ones * (ones + 1) / 2) / (ones * zeros))


def _slices(table: Any, p: Parameters, held_out: npt.NDArray[np.bool_]) -> dict[str, npt.NDArray[np.bool_]]:
    found = {}
    for column in p.slices:
        values = np.array(table[column].cast("string").to_pylist(), dtype=object)[held_out]
        for value in sorted({v for v in values if v is not None}):
            found[f"{column}={value}"] = values == value
    return found


def _signature(split: Split, joined: "joining.Joined | None") -> ModelSignature:
    inputs = tuple(
        TensorSpec(name=c.name, datatype="FP32" if c.categories is None else "BYTES", shape=(-1, 1))
        for c in split.columns
    )
    width = len(split.classes) if len(split.classes) > 2 else 1
    outputs = (TensorSpec(name="score", datatype="FP32", shape=(-1, width)),)
    if joined is not None:
        return joining.signature(joined, inputs, outputs)
    return ModelSignature(predictor="onnx", inputs=inputs, outputs=outputs)
