"""The two-stage recommender: candidates from history, factors and popularity, then a ranker, trained on earlier weeks.

Time is cut into label windows of equal length. The newest is the test window: it is looked at once, after everything is
fixed. Each window has its own features and its own factors, made of what lay before it. The ranker learns from the
windows before the test window; hyper-parameters are chosen with ``validate`` on the newest of them.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from bedplate import ids
from bedplate.bundle import safetensors
from bedplate.compute.task import Result, Task
from bedplate.errors import InputError
from bedplate.records import Metric
from bedplate.serve.recommender import (
    CONFIG,
    ITEMS,
    RANKER,
    SIGNATURE,
    Config,
    Derived,
    Factors,
    RecommenderPredictor,
    Rows,
    assemble,
    pair_features,
)
from bedplate.serve.state import Floats, Ids, pad
from bedplate.train import evaluation, factors, indexing, ranker, ranking
from bedplate.train.indexing import IndexParameters
from bedplate.train.windows import Columns, Purchases, Views, Window, chunks, micros, reader, view_of, window

_CHUNK = 256
"""Households whose features are computed at once: bounds memory."""


class FactorParameters(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The factor model. ``min_buyers`` households must have bought a product for it to get a vector."""

    size: int = 32
    iterations: int = 8
    regularization: float = 1.0
    alpha: float = 10.0
    min_buyers: int = 5


class RankerParameters(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The ranker. ``negatives`` is the share of candidates without a purchase that it sees, weighted to make up."""

    rounds: int = 150
    negatives: float = 0.25
    lightgbm: dict[str, Any] = {}


class Parameters(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the recipe is told. ``as_of`` is newest first: the test window, then those to learn from.

    ``purchases`` names the table of purchase lines, ``people`` one with a row per household, whose columns
    ``people_slices`` make slices. ``latency`` is the time in which a request must be answered at its 99th percentile,
    in seconds, of which the search among the vectors gets a share. For the rest see
    :class:`bedplate.serve.recommender.Config`.
    """

    as_of: tuple[datetime, ...]
    holdout_days: float = 28
    purchases: str = "transactions"
    columns: Columns = Columns()
    people: str | None = None
    people_slices: tuple[str, ...] = ()
    views: Views
    weight: str
    count: str
    last: str
    groups: tuple[str, ...] = ()
    derived: tuple[Derived, ...] = ()
    without: tuple[str, ...] = ()
    top: int = 20
    nearest: int = 40
    popular: int = 40
    factors: FactorParameters = FactorParameters()
    ranker: RankerParameters = RankerParameters()
    index: IndexParameters = IndexParameters()
    latency: float | None = None
    threads: int = 1


def train(task: Task) -> Result:
    """Train, export, and evaluate on the newest window. ``task.parameters`` are :class:`Parameters`.

    Files: ``ranker.onnx``, ``items.safetensors``, ``recommender.json``, and those of an index where there
    is one. Result: ``metrics``, ``comparisons``, ``split``, ``parameters`` and ``signature``, as in
    :class:`bedplate.records.TrainResult`, and ``checks``.

    Raises:
        InputError: a parameter or a table is missing or makes no sense.
    """
    parameters = _parameters(task.parameters)
    purchases = Purchases.of(task.tables[parameters.purchases], parameters.columns)
    config = _config(parameters, task)
    parts: list[tuple[Floats, npt.NDArray[np.int8], Floats]] = []
    learn_from = parameters.as_of[1:]
    for number, moment in enumerate(learn_from):
        task.progress(f"features and factors as of {moment:%Y-%m-%d}", number, len(learn_from))
        past = _window(task, parameters, purchases, moment)
        model = _factors(parameters, config, past, purchases, task.seed)
        parts.append(_sample(config, past, model, parameters.ranker.negatives, task.seed + number))
    features = np.concatenate([part[0] for part in parts])
    labels = np.concatenate([part[1] for part in parts])
    weights = np.concatenate([part[2] for part in parts])
    parts.clear()
    task.progress(f"ranker on {len(labels):,} candidates", None, None)
    booster = ranker.fit(
        features,
        labels,
        weights,
        config.features,
        rounds=parameters.ranker.rounds,
        parameters=parameters.ranker.lightgbm,
        threads=parameters.threads,
        seed=task.seed,
    )
    exported = ranker.export(booster, len(config.features))
    worst = ranker.verify(booster, exported, features[:: max(1, len(features) // 20_000)])
    gain = booster.feature_importance("gain")
    importance = {n: round(float(g), 4) for n, g in zip(config.features, gain / max(gain.sum(), 1e-12), strict=True)}

    newest = parameters.as_of[0]
    task.progress(f"test on the purchases after {newest:%Y-%m-%d}", None, None)
    test = _window(task, parameters, purchases, newest, last=True)
    model = _factors(parameters, config, test, purchases, task.seed)
    files = {
        RANKER: exported,
        ITEMS: safetensors.write({"items": model.items, "vectors": model.vectors, "popular": model.popular}),
        CONFIG: ids.canonical(config),
        **_index(parameters, config, test, model, task),
    }
    report = _evaluate(task, parameters, assemble(files), test, purchases)
    report["checks"] |= {"onnx_difference": worst, "training_rows": len(labels), "positives": int(labels.sum())}
    report["importance"] = importance
    return Result(files=files, result=report)


def validate(task: Task) -> Result:
    """:func:`train` one window earlier: what hyper-parameters are chosen by. The test weeks are cut off first."""
    parameters = _parameters(task.parameters)
    table = task.tables[parameters.purchases]
    times = Purchases.of(table, parameters.columns)
    before = times.between(None, parameters.as_of[0])
    kept = table.sort_by(parameters.columns.time).slice(0, len(before.time))
    earlier = {**task.parameters, "as_of": [m.isoformat() for m in parameters.as_of[1:]]}
    tables = {**task.tables, parameters.purchases: kept}
    return train(Task(tables=tables, parameters=earlier, seed=task.seed, progress=task.progress))


def _parameters(given: dict[str, Any]) -> Parameters:
    try:
        parameters = msgspec.convert(given, Parameters)
    except msgspec.ValidationError as error:
        raise InputError(f"the recommender's parameters cannot be used: {error}", where="pipeline.py") from error
    if len(parameters.as_of) < 2:
        raise InputError("one window is no past to learn from", where="train", fix="give at least two moments in as_of")
    return parameters


def _config(p: Parameters, task: Task) -> Config:
    """What the predictor is told, with the order of the ranker's features."""
    c = p.columns
    household = view_of(task.tables[p.views.household], p.views.household, (c.household,))
    pairs = view_of(task.tables[p.views.pairs], p.views.pairs, (c.household, c.product))
    products = tuple(view_of(task.tables[n], n, (c.product,)) for n in p.views.products)
    grouped = [f"{g}_{kind}" for g in p.groups for kind in ("products", "count", "weight", "last")]
    names = [
        *household.columns,
        *(name for view in products for name in view.columns if name not in p.groups),
        *pairs.columns,
        *grouped,
        *(d.name for d in p.derived),
        "affinity",
        "known",
    ]
    if len(set(names)) != len(names):
        twice = next(n for n in names if names.count(n) > 1)
        raise InputError(f"two features are called {twice!r}", where="pipeline.py", fix="rename one of them")
    return Config(
        household=household,
        pairs=pairs,
        products=products,
        groups=p.groups,
        weight=p.weight,
        count=p.count,
        last=p.last,
        derived=p.derived,
        features=tuple(n for n in names if n not in p.without),
        top=p.top,
        nearest=p.nearest,
        popular=p.popular,
        alpha=p.factors.alpha,
        regularization=p.factors.regularization,
    )


def _window(task: Task, p: Parameters, purchases: Purchases, moment: datetime, *, last: bool = False) -> Window:
    until = None if last else moment + timedelta(days=p.holdout_days)
    return window(task.tables, p.views, p.columns, moment, purchases.between(moment, until))


def _factors(p: Parameters, config: Config, past: Window, purchases: Purchases, seed: int) -> Factors:
    f = p.factors
    return factors.fit(
        past,
        config.pairs.columns.index(config.weight),
        ranking.popularity(purchases.between(None, past.as_of), max(p.popular, 2 * p.top)),
        size=f.size,
        iterations=f.iterations,
        regularization=f.regularization,
        alpha=f.alpha,
        min_buyers=f.min_buyers,
        threads=p.threads,
        seed=seed,
    )


def _index(parameters: Parameters, config: Config, past: Window, model: Factors, task: Task) -> dict[str, bytes]:
    """The index of the newest factors, chosen with the vectors of households that bought in the test weeks."""
    weight = config.pairs.columns.index(config.weight)
    asked = sorted(past.truth)
    chosen = asked[:: max(1, len(asked) // parameters.index.queries)][: parameters.index.queries]
    bounds = [past.bounds[household] for household in chosen]
    queries = [model.fold_in(past.items[low:high], past.pairs[low:high, weight]) for low, high in bounds]
    return indexing.choose(
        model.vectors,
        np.array(queries, np.float32).reshape(len(queries), -1),
        parameters.index,
        top=parameters.top,
        count=parameters.nearest,
        budget_ms=None if parameters.latency is None else parameters.latency * 1e3,
        seed=task.seed,
        progress=lambda text: task.progress(text, None, None),
    )


def _sample(
    config: Config, past: Window, model: Factors, negatives: float, seed: int
) -> tuple[Floats, npt.NDArray[np.int8], Floats]:
    """Ranker input, labels and weights of the households that bought in the label weeks."""
    random = np.random.default_rng(seed)
    x, y, w = [], [], []
    for batch in chunks(sorted(past.truth), _CHUNK):
        rows, labels = _rows(config, past, model, batch)
        kept = (labels == 1) | (random.random(len(labels)) < negatives)
        x.append(pair_features(config, rows)[kept])
        y.append(labels[kept])
        w.append(np.where(labels[kept] == 1, np.float32(1), np.float32(1 / negatives)))
    return np.concatenate(x), np.concatenate(y), np.concatenate(w)


def _rows(config: Config, past: Window, model: Factors, households: list[int]) -> tuple[Rows, npt.NDArray[np.int8]]:
    weight = config.pairs.columns.index(config.weight)
    items: list[Ids] = []
    affinity, pairs, known, labels = [], [], [], []
    for household in households:
        low, high = past.bounds[household]
        history, values = past.items[low:high], past.pairs[low:high]
        proposed, near = model.propose(history, values[:, weight], config.nearest, config.popular)
        items.append(proposed)
        affinity.append(near)
        pairs.append(pad(values, len(proposed)))
        known.append(np.arange(len(proposed)) < len(history))
        labels.append(np.isin(proposed, past.truth[household]).astype(np.int8))
    rows = Rows(
        owner=np.repeat(np.arange(len(households)), [len(i) for i in items]),
        households=past.households.rows(np.array(households, np.int64)),
        products=past.product_rows(np.concatenate(items)),
        pairs=np.concatenate(pairs),
        known=np.concatenate(known),
        affinity=np.concatenate(affinity),
    )
    return rows, np.concatenate(labels)


def _evaluate(
    task: Task, p: Parameters, predictor: RecommenderPredictor, test: Window, purchases: Purchases
) -> dict[str, Any]:
    """What the predictor itself, with the online features of the cut, answers to every household of the test window."""
    households = list(test.truth)
    before = purchases.between(None, test.as_of)
    online = reader(task.tables, p.views, p.columns, test.as_of)
    lists: dict[int, Ids] = {}
    found = []
    for household in households:
        ranked = predictor.rank(household, online)
        assert ranked is not None
        lists[household] = ranked[0][: p.top]
        found.append(np.isin(ranked[0], test.truth[household]).sum() / len(test.truth[household]))
    end = micros(test.as_of)
    models = {evaluation.CANDIDATE: lists, **ranking.baselines(before, households, p.top, end)}
    k = p.top
    per_unit = {
        f"recall@{k}": {m: ranking.recall(x, test.truth, k) for m, x in models.items()},
        f"ndcg@{k}": {m: ranking.ndcg(x, test.truth, k) for m, x in models.items()},
        f"novelty@{k}": {m: ranking.novelty(x, test.truth, k, before) for m, x in models.items()},
    }
    slices = _slices(task, p, households, before)
    metrics, comparisons = evaluation.summarise(per_unit, slices, seed=task.seed)
    covered = tuple(
        Metric(
            metric=f"coverage@{k}",
            model=m,
            slice="all",
            estimate=evaluation.exact(ranking.coverage(x, test.truth, k, before), len(households)),
        )
        for m, x in models.items()
    )
    return {
        "metrics": msgspec.to_builtins(metrics + covered),
        "comparisons": msgspec.to_builtins(comparisons),
        "signature": msgspec.to_builtins(SIGNATURE),
        "parameters": msgspec.to_builtins(p),
        "split": {
            "kind": "time",
            "test_from": test.as_of.isoformat(),
            "learned_from": [m.isoformat() for m in p.as_of[1:]],
            "label_days": p.holdout_days,
            "households": len(households),
            "slices": {name: int(mask.sum()) for name, mask in slices.items()},
        },
        "checks": {"candidate_recall": float(np.mean(found)), "catalogue": len(np.unique(before.product))},
    }


def _slices(task: Task, p: Parameters, households: list[int], before: Purchases) -> dict[str, npt.NDArray[np.bool_]]:
    owners, counts = np.unique(
        np.unique(np.stack([before.household, before.basket], 1), axis=0)[:, 0], return_counts=True
    )
    order = np.array(households)
    light, heavy = evaluation.by_size(counts[np.searchsorted(owners, order)].astype(np.float64))
    slices = {"all": np.ones(len(order), bool), "light_households": light, "heavy_households": heavy}
    for column, value, members in _people(task, p):
        slices[f"{column}={value}"] = np.isin(order, members)
    return slices


def _people(task: Task, p: Parameters) -> Iterator[tuple[str, str, Ids]]:
    if p.people is None:
        return
    table = task.tables[p.people]
    owners = table[p.columns.household].to_numpy()
    for column in p.people_slices:
        values = np.array(table[column].cast("string").to_pylist(), dtype=object)
        for value in sorted({v for v in values if v is not None}):
            yield column, value, owners[values == value]
