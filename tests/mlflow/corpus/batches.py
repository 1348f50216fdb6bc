"""log-batch: what it takes at once, its limits, and that a refused batch leaves nothing behind."""

from typing import Any

from tests.mlflow.corpus.runs import NOBODY
from tests.mlflow.steps import Step, get, post, strict


def metrics(count: int, key: str = "m") -> list[dict[str, Any]]:
    """Points of one metric."""
    return [{"key": key, "value": i / 8, "timestamp": 1000 + i, "step": i} for i in range(count)]


def pairs(count: int, prefix: str) -> list[dict[str, str]]:
    """Params or tags."""
    return [{"key": f"{prefix}{i}", "value": str(i)} for i in range(count)]


def batch(**parts: Any) -> Step:
    """A batch for ``$r``."""
    return post("runs/log-batch", {"run_id": "$r", **parts})


BATCHES = (
    post("experiments/create", {"name": "batches"}, keep={"e": "experiment_id"}),
    post("runs/create", {"experiment_id": "$e", "start_time": 1000, "run_name": "batches"}, keep={"r": "run.info.run_id"}),
    post("runs/create", {"experiment_id": "$e", "start_time": 2000, "run_name": "bad"}, keep={"b": "run.info.run_id"}),
    batch(metrics=metrics(3), params=pairs(3, "p"), tags=pairs(3, "t")),
    batch(),
    batch(metrics=[], params=[], tags=[]),
    batch(metrics=metrics(3)),
    batch(params=pairs(3, "p")),
    batch(tags=[{"key": "t0", "value": "changed"}, {"key": "t0", "value": "changed twice"}]),
    batch(metrics=[{"key": "bare", "value": 1.0, "timestamp": 1}, {"key": "odd", "value": "NaN", "timestamp": 1}, {"key": "odd2", "value": "Infinity", "timestamp": 1, "step": "3"}]),
    batch(metrics=[{"key": "latest", "value": 1.0, "timestamp": 1, "step": 5}, {"key": "latest", "value": 2.0, "timestamp": 1, "step": 4}, {"key": "latest", "value": 3.0, "timestamp": 1, "step": 5}]),
    batch(metrics=[{"key": "m", "value": 1.0, "timestamp": 1, "step": 1, "unknown": 5}], unknown=[1]),
    batch(metrics=[{"key": "on data", "value": 1.0, "timestamp": 1, "step": 1, "dataset_name": "d", "dataset_digest": "x"}]),
    get("runs/get", {"run_id": "$r"}),
    get("metrics/get-history", {"run_id": "$r", "metric_key": "m"}),
    get("metrics/get-history", {"run_id": "$r", "metric_key": "latest"}),
    # at the limits and above them
    batch(metrics=metrics(1000, "thousand")),
    batch(metrics=metrics(1001, "more")),
    batch(params=pairs(100, "q")),
    batch(params=pairs(101, "r")),
    batch(tags=pairs(100, "u")),
    batch(tags=pairs(101, "v")),
    batch(metrics=metrics(901, "sum"), params=pairs(50, "s"), tags=pairs(50, "s")),
    batch(metrics=metrics(900, "sum"), params=pairs(50, "s"), tags=pairs(50, "s")),
    # refused, and nothing of it stays
    batch(metrics=metrics(1, "gone"), params=[{"key": "p0", "value": "another"}], tags=[{"key": "gone", "value": "x"}]),
    batch(metrics=metrics(1, "gone"), params=[{"key": "twice", "value": "1"}, {"key": "twice", "value": "2"}]),
    batch(metrics=metrics(1, "gone"), params=[{"key": "twice", "value": "1"}, {"key": "twice", "value": "1"}]),
    batch(metrics=[*metrics(1, "gone"), {"key": "a;b", "value": 1, "timestamp": 1}]),
    batch(metrics=[*metrics(1, "gone"), {"key": "k", "value": 1}]),
    batch(metrics=[*metrics(1, "gone"), {"key": "k", "timestamp": 1}]),
    batch(metrics=[*metrics(1, "gone"), {"value": 1, "timestamp": 1}]),
    batch(metrics=[*metrics(1, "gone"), {"key": "", "value": 1, "timestamp": 1}]),
    strict(post("runs/log-batch", {"run_id": "$b", "metrics": [*metrics(1, "gone"), {"key": "k", "value": "x", "timestamp": 1}]})),
    batch(metrics=[*metrics(1, "gone"), {"key": "k", "value": None, "timestamp": 1}]),
    batch(metrics=[*metrics(1, "gone"), {"key": "k", "value": 1, "timestamp": -1}]),
    batch(metrics=[*metrics(1, "gone"), {"key": "k" * 251, "value": 1, "timestamp": 1}]),
    batch(params=[*pairs(1, "gone"), {"key": "a/../b", "value": "x"}]),
    batch(params=[*pairs(1, "gone"), {"value": "x"}]),
    batch(params=[*pairs(1, "gone"), {"key": "k" * 251, "value": "x"}]),
    batch(params=[{"key": "no value"}]),
    batch(params=[{"key": "long", "value": "v" * 6000}, {"key": "longer", "value": "v" * 6001}]),
    batch(tags=[*pairs(1, "gone"), {"key": "../up", "value": "x"}]),
    batch(tags=[*pairs(1, "gone"), {"value": "x"}]),
    batch(tags=[{"key": "long", "value": "v" * 8000}, {"key": "longer", "value": "v" * 8001}]),
    batch(metrics={"key": "m"}),
    batch(params="p"),
    batch(tags=5),
    batch(metrics=None),
    post("runs/log-batch", {"metrics": metrics(1)}),
    post("runs/log-batch", {"run_id": "", "metrics": metrics(1)}),
    post("runs/log-batch", {"run_id": 5, "metrics": metrics(1)}),
    post("runs/log-batch", {"run_id": NOBODY, "metrics": metrics(1)}),
    post("runs/log-batch", {"run_id": NOBODY}),
    get("runs/get", {"run_id": "$r"}),
    get("metrics/get-history", {"run_id": "$r", "metric_key": "gone"}),
)

CONVERSATIONS = {"batches": BATCHES}
