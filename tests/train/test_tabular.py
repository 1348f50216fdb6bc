"""The tabular recipe: honest baselines, intervals, and a graph that takes what a caller has."""

import json
from datetime import datetime, timedelta

import msgspec
import numpy as np
import onnxruntime
import pyarrow as pa
import pytest

from bedplate.compute.task import Task
from bedplate.errors import InputError
from bedplate.records import Comparison, Metric
from bedplate.train import tabular


def rows(n: int = 900, seed: int = 3) -> pa.Table:
    random = np.random.default_rng(seed)
    amount = random.normal(50, 20, n)
    colour = random.choice(["red", "green", "blue"], n)
    signal = (amount > 50) ^ (colour == "red")
    late = np.where(random.random(n) < 0.1, ~signal, signal)
    return pa.table(
        {
            "amount": np.where(random.random(n) < 0.05, np.nan, amount),
            "colour": colour,
            "noise": random.integers(0, 9, n),
            "when": pa.array([datetime(2024, 1, 1) + timedelta(hours=i) for i in range(n)], pa.timestamp("us")),
            "late": np.where(late, "yes", "no"),
            "cost": amount * 2 + (colour == "blue") * 30 + random.normal(0, 3, n),
            "grade": np.where(signal, "a", np.where(amount > 40, "b", "c")),
        }
    )


def run(table: pa.Table, target: str, **more):
    others = [c for c in ("late", "cost", "grade", "when") if c != target and c in table.column_names]
    parameters = {"target": target, "without": others, "rounds": 60, **more}
    result = tabular.train(Task(tables={"rows": table}, parameters=parameters))
    assert json.loads(json.dumps(result.result, allow_nan=False))
    return result


def values(result, metric, slice_="all"):
    return {
        m.model: m.estimate.value
        for m in msgspec.convert(result.result["metrics"], list[Metric])
        if m.metric == metric and m.slice == slice_
    }


def test_it_finds_an_interaction_that_no_baseline_can():
    """An exclusive-or of two columns is nothing to a linear model or to one column."""
    result = run(rows(), "late")
    found = msgspec.convert(result.result["comparisons"], list[Comparison])

    for metric in ("accuracy", "log_loss", "roc_auc"):
        low = {c.baseline: c.difference.low for c in found if c.metric == metric and c.slice == "all"}
        assert set(low) == {"majority", "best_single_feature", "logistic"}
        assert min(low.values()) > 0, metric
    assert values(result, "accuracy")["candidate"] > 0.8


def test_pure_noise_beats_no_baseline():
    """Where there is nothing to learn, no interval lies above zero."""
    table = rows()
    table = table.set_column(4, "late", pa.array(np.random.default_rng(9).permutation(table["late"].to_pylist())))
    found = msgspec.convert(run(table, "late").result["comparisons"], list[Comparison])

    assert min(c.difference.low for c in found if c.metric == "accuracy") <= 0


def test_regression_and_more_than_two_classes():
    """Errors count downwards; several classes give one score each."""
    regression = run(rows(), "cost")
    compared = msgspec.convert(regression.result["comparisons"], list[Comparison])
    several = run(rows(), "grade")

    assert min(c.difference.low for c in compared if c.baseline == "mean") > 0
    assert regression.result["signature"]["outputs"][0]["shape"] in ([-1, 1], (-1, 1))
    assert list(several.result["signature"]["outputs"][0]["shape"]) == [-1, 3]
    assert values(several, "accuracy")["candidate"] > 0.8


def test_the_graph_takes_absent_numbers_and_texts_never_seen():
    """What a request can hold that training rows did not."""
    model = run(rows(), "late").files[tabular.MODEL]
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])

    score = session.run(
        ["score"],
        {
            "amount": np.array([[np.nan], [70]], np.float32),
            "colour": np.array([["violet"], ["green"]], object),
            "noise": np.array([[1], [1]], np.float32),
        },
    )[0]

    assert score.shape == (2, 1)
    assert np.isfinite(score).all()
    assert score[1, 0] > 0.5


def test_a_holdout_of_time_is_the_newest_rows():
    """Nothing newer than the test rows is learned from."""
    result = run(rows(), "late", time="when", holdout="3 d")

    assert result.result["split"]["kind"] == "time"
    assert result.result["split"]["test_rows"] == 72


def test_slices_and_the_same_bytes_twice():
    """Figures for each group of a column; a run repeats to the bit."""
    first, second = run(rows(), "late", slices=["colour"]), run(rows(), "late", slices=["colour"])

    assert values(first, "accuracy", "colour=red")
    assert first.files == second.files
    assert first.result == second.result


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"target": "nothing"}, "no column 'nothing'"),
        ({"holdout": "0 %"}, "rows to learn from"),
        ({"holdout": "a lot"}, "holdout"),
        ({"table": "other"}, "no table 'other'"),
        ({"without": ["amount", "colour", "noise", "when", "cost", "grade"]}, "no column is left"),
        ({"unknown": 1}, "unknown"),
    ],
)
def test_what_does_not_suit_the_recipe_is_refused(change, found):
    """The error names the parameter and what to do."""
    parameters = {"target": "late", "without": ["when", "cost", "grade"], **change}

    with pytest.raises(InputError, match=found):
        tabular.train(Task(tables={"rows": rows(100)}, parameters=parameters))


def test_too_few_rows_are_refused():
    """An empty or tiny table is no ground for a model."""
    with pytest.raises(InputError, match="too few"):
        tabular.train(Task(tables={"rows": rows(100).slice(0, 10)}, parameters={"target": "late"}))
