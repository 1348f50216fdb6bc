"""Metrics: single values, the history and its pages, bulk and interval reads."""

from tests.mlflow.corpus.runs import NOBODY
from tests.mlflow.steps import Step, get, post, strict

BULK = "/ajax-api/2.0/mlflow/metrics/get-history-bulk"
INTERVAL = "/ajax-api/2.0/mlflow/metrics/get-history-bulk-interval"


def metric(key: object, value: object, timestamp: object = 1000, step: object = None, **more: object) -> dict[str, object]:
    """The body of log-metric: for ``$r``, and what is named bad for ``$b``, which nobody reads: MLflow keeps some of it."""
    body = {"run_id": "$b" if key == "bad" else "$r", "key": key, "value": value, "timestamp": timestamp, **more}
    return body if step is None else {**body, "step": step}


def history(key: str, **more: object) -> Step:
    """Read the history of a metric of ``$r``."""
    return get("metrics/get-history", {"run_id": "$r", "metric_key": key, **more})


VALUES = (
    post("experiments/create", {"name": "metrics"}, keep={"e": "experiment_id"}),
    post("runs/create", {"experiment_id": "$e", "start_time": 1000, "run_name": "metrics"}, keep={"r": "run.info.run_id"}),
    post("runs/create", {"experiment_id": "$e", "start_time": 2000, "run_name": "bad"}, keep={"b": "run.info.run_id"}),
    *(post("runs/log-metric", metric("loss", value, 1000 + i, i)) for i, value in enumerate((0.5, 1, -2.25, 1e300, 1e-300, 0, -0.0, 12345678901234567890, 0.1))),
    *(post("runs/log-metric", metric(f"odd{i}", value)) for i, value in enumerate(("NaN", "Infinity", "-Infinity", "1.5", "1e300", 1e308))),
    *(post("runs/log-metric", metric("mixed", value, 1000, i)) for i, value in enumerate((1.0, "NaN", "Infinity", 3.0, "-Infinity"))),
    *(history(key) for key in ("loss", "odd0", "odd1", "odd2", "odd3", "odd4", "odd5", "mixed")),
    get("runs/get", {"run_id": "$r"}),
    # the same point twice, the same step with another value, and what counts as the latest
    *(post("runs/log-metric", metric("twice", 1.5, 1000, 3)) for _ in range(3)),
    post("runs/log-metric", metric("twice", 2.5, 1000, 3)),
    post("runs/log-metric", metric("twice", 0.5, 2000, 3)),
    post("runs/log-metric", metric("twice", 9.5, 9000, 1)),
    post("runs/log-metric", metric("twice", 7.5, 500, -4)),
    history("twice"),
    get("runs/get", {"run_id": "$r"}),
    post("runs/log-metric", metric("ties", 1.0, 1000, 1)),
    post("runs/log-metric", metric("ties", 3.0, 1000, 1)),
    post("runs/log-metric", metric("ties", 2.0, 1000, 1)),
    get("runs/get", {"run_id": "$r"}),
    post("runs/log-metric", metric("steps", 1.0, 1000, "7")),
    post("runs/log-metric", metric("steps", 2.0, "1001", 9007199254740993)),
    post("runs/log-metric", metric("steps", 3.0, 1000, -9)),
    post("runs/log-metric", metric("steps", 4.0, 0)),
    history("steps"),
    post("runs/log-metric", metric("on data", 1.0, 1000, 1, dataset_name="d", dataset_digest="123", unknown="x")),
    history("on data"),
    post("runs/log-metric", {"run_uuid": "$r", "key": "by uuid", "value": 1.0, "timestamp": 1}),
    *(post("runs/log-metric", metric(key, 1.0)) for key in ("a/b c-d_e.f:g", "ünïcode ☃", "k" * 250, "k" * 251, "", "a;b", "../up", "/abs", "a//b", "..", ".", 5, None)),
    *(post("runs/log-metric", metric("bad", value)) for value in ("x", None, [1], {"a": 1}, "")),
    strict(post("runs/log-metric", metric("bad", True))),
    strict(post("runs/log-metric", metric("bad", "1e400"))),
    *(post("runs/log-metric", metric("bad", 1.0, timestamp)) for timestamp in (None, "x", -1, [1], "")),
    strict(post("runs/log-metric", metric("bad", 1.0, 1.5))),
    strict(post("runs/log-metric", metric("bad", 1.0, 9223372036854775808))),
    *(post("runs/log-metric", metric("bad", 1.0, 1000, step)) for step in ("x", [1], "")),
    strict(post("runs/log-metric", metric("bad", 1.0, 1000, 1.5))),
    post("runs/log-metric", {"run_id": "$r", "key": "bad", "value": 1.0}),
    post("runs/log-metric", {"run_id": "$r", "key": "bad", "timestamp": 1}),
    post("runs/log-metric", {"run_id": "$r", "value": 1.0, "timestamp": 1}),
    post("runs/log-metric", {"key": "bad", "value": 1.0, "timestamp": 1}),
    post("runs/log-metric", {"run_id": NOBODY, "key": "bad", "value": 1.0, "timestamp": 1}),
    post("runs/log-metric", {"run_id": "$r", "key": "int64", "value": 1.0, "timestamp": 9223372036854775807}),
    history("int64"),
    get("runs/get", {"run_id": "$r"}),
)

PAGES = (
    post("experiments/create", {"name": "history"}, keep={"e": "experiment_id"}),
    post("runs/create", {"experiment_id": "$e", "start_time": 1000, "run_name": "history"}, keep={"r": "run.info.run_id"}),
    post("runs/create", {"experiment_id": "$e", "start_time": 2000, "run_name": "other"}, keep={"other": "run.info.run_id"}),
    post("runs/log-batch", {"run_id": "$r", "metrics": [{"key": "m", "value": i / 4, "timestamp": 1000 + (i % 7), "step": i // 2} for i in range(25)]}),
    post("runs/log-batch", {"run_id": "$other", "metrics": [{"key": "m", "value": 100 + i, "timestamp": 3000 - i, "step": i * 3} for i in range(12)]}),
    history("m"),
    history("m", max_results=10),
    get("metrics/get-history", {"run_id": "$r", "metric_key": "m", "max_results": 10}, keep={"page": "next_page_token"}),
    get("metrics/get-history", {"run_id": "$r", "metric_key": "m", "max_results": 10, "page_token": "$page"}, keep={"page": "next_page_token"}),
    get("metrics/get-history", {"run_id": "$r", "metric_key": "m", "max_results": 10, "page_token": "$page"}),
    history("m", max_results=25),
    history("m", max_results=1000000),
    history("never"),
    history(""),
    history("m", max_results=0),
    history("m", max_results=-1),
    strict(history("m", max_results="many")),
    history("m", max_results=5, page_token="not a token"),
    get("metrics/get-history", {"run_id": "$r"}),
    get("metrics/get-history", {"metric_key": "m"}),
    get("metrics/get-history", {"run_id": NOBODY, "metric_key": "m"}),
    get("metrics/get-history", {"run_uuid": "$r", "metric_key": "m", "max_results": 2}),
    # bulk
    get(BULK, {"run_id": ["$r"], "metric_key": "m"}),
    get(BULK, {"run_id": ["$r"], "metric_key": "m", "max_results": 5}),
    get(BULK, {"run_id": ["$r"], "metric_key": "never"}),
    get(BULK, {"run_id": [NOBODY], "metric_key": "m"}),
    get(BULK, {"metric_key": "m"}),
    get(BULK, {"run_id": ["$r"]}),
    get(BULK, {"run_id": ["$r"] * 101, "metric_key": "m"}),
    get(BULK, {"run_id": ["$r"], "metric_key": "m", "max_results": "many"}),
    # interval
    *(
        get(path, query)
        for path in (INTERVAL, "metrics/get-history-bulk-interval")
        for query in (
            {"run_ids": ["$r"], "metric_key": "m"},
            {"run_ids": ["$r"], "metric_key": "m", "max_results": 3},
            {"run_ids": ["$r"], "metric_key": "m", "max_results": 1},
            {"run_ids": ["$r"], "metric_key": "m", "start_step": 2, "end_step": 5},
            {"run_ids": ["$r"], "metric_key": "m", "start_step": 2, "end_step": 9, "max_results": 4},
            {"run_ids": ["$other"], "metric_key": "m", "start_step": 0, "end_step": 1000, "max_results": 5},
            {"run_ids": ["$r"], "metric_key": "never"},
            {"run_ids": [NOBODY], "metric_key": "m"},
            {"run_ids": ["$r"], "metric_key": "m", "start_step": 5, "end_step": 2},
            {"run_ids": ["$r"], "metric_key": "m", "start_step": 5},
            {"run_ids": ["$r"], "metric_key": "m", "end_step": 5},
            {"run_ids": ["$r"], "metric_key": "m", "max_results": 0},
            {"run_ids": ["$r"], "metric_key": "m", "max_results": 2501},
            {"run_ids": ["$r"], "metric_key": "m", "max_results": "many"},
            {"run_ids": ["$r"] * 101, "metric_key": "m"},
            {"run_ids": ["$r"]},
            {"metric_key": "m"},
        )
    ),
)

CONVERSATIONS = {"metrics": VALUES, "metric history": PAGES}
