"""Data sets and models that a run took in, and the models that came out of it."""

from typing import Any

from tests.mlflow.corpus.runs import NOBODY
from tests.mlflow.steps import Step, get, post


def data(name: str = "d", digest: str = "1", **more: Any) -> dict[str, Any]:
    """A data set."""
    return {"name": name, "digest": digest, "source_type": "local", "source": "{\"uri\": \"x.csv\"}", **more}


def given(*datasets: dict[str, Any], run: str = "$r", **more: Any) -> Step:
    """log-inputs."""
    return post("runs/log-inputs", {"run_id": run, "datasets": list(datasets), **more})


def context(value: str) -> list[dict[str, str]]:
    """The tag by which a data set's use is told."""
    return [{"key": "mlflow.data.context", "value": value}]


SEARCH = "/ajax-api/2.0/mlflow/experiments/search-datasets"

INPUTS = (
    post("experiments/create", {"name": "inputs"}, keep={"e": "experiment_id"}),
    post("runs/create", {"experiment_id": "$e", "start_time": 1000, "run_name": "inputs"}, keep={"r": "run.info.run_id"}),
    post("runs/create", {"experiment_id": "$e", "start_time": 2000, "run_name": "second"}, keep={"s": "run.info.run_id"}),
    given({"dataset": data(), "tags": context("training")}),
    given({"dataset": data(), "tags": context("training")}),
    given({"dataset": data(), "tags": context("testing")}),
    given({"dataset": data("whole", "2", schema="{}", profile="{\"rows\": 5}"), "tags": [*context("x"), {"key": "more", "value": ""}]}),
    given({"dataset": data("no tags", "3")}),
    given({"dataset": data("a", "4")}, {"dataset": data("b", "5"), "tags": context("y")}),
    given({"dataset": data("in both", "6")}, run="$s"),
    given({"dataset": data("in both", "6")}),
    given(),
    get("runs/get", {"run_id": "$r"}),
    get("runs/get", {"run_id": "$s"}),
    post("runs/search", {"experiment_ids": ["$e"], "order_by": ["start_time"], "filter": "dataset.name = 'in both'"}),
    post(SEARCH, {"experiment_ids": ["$e"]}),
    post(SEARCH, {"experiment_ids": ["424242"]}),
    post(SEARCH, {"experiment_ids": []}),
    post(SEARCH, {}),
    post(SEARCH, {"experiment_ids": ["$e"] * 21}),
    # limits
    given({"dataset": data("n" * 500, "7")}),
    given({"dataset": data("n" * 501, "7")}),
    given({"dataset": data("digest", "w" * 36)}),
    given({"dataset": data("digest", "w" * 37)}),
    given({"dataset": data("tags", "8"), "tags": [{"key": "k" * 255, "value": "v" * 500}]}),
    given({"dataset": data("tags", "9"), "tags": [{"key": "k" * 256, "value": "v"}]}),
    given({"dataset": data("tags", "9"), "tags": [{"key": "k", "value": "v" * 501}]}),
    given({"dataset": data("source", "10", source="s" * 65535)}),
    given({"dataset": data("source", "11", source="s" * 65536)}),
    # refused
    given({"dataset": {"name": "d", "digest": "1"}}),
    given({"dataset": data("", "12")}),
    given({"dataset": data("no digest", "")}),
    given({"tags": context("x")}),
    given({"dataset": data("bad", "13"), "tags": [{"value": "x"}]}),
    given({"dataset": data("bad", "14"), "tags": [{"key": "", "value": "x"}]}),
    given(run=NOBODY),
    given({"dataset": data()}, run=NOBODY),
    post("runs/log-inputs", {"datasets": []}),
    post("runs/log-inputs", {"run_id": "$r", "datasets": {"dataset": data()}}),
    post("runs/log-inputs", {"run_id": "$r", "datasets": "x"}),
    post("runs/log-inputs", {"run_id": "$r"}),
    # models in and out
    post("logged-models", {"experiment_id": "$e", "name": "in", "source_run_id": "$r"}, keep={"m": "model.info.model_id"}),
    post("logged-models", {"experiment_id": "$e", "name": "out", "source_run_id": "$r"}, keep={"o": "model.info.model_id"}),
    given(models=[{"model_id": "$m"}]),
    given(models=[{"model_id": "$m"}]),
    post("runs/outputs", {"run_id": "$r", "models": [{"model_id": "$o", "step": 3}]}),
    post("runs/outputs", {"run_id": "$r", "models": [{"model_id": "$o", "step": 4}]}),
    post("runs/outputs", {"run_id": "$r", "models": [{"model_id": "$m"}]}),
    get("runs/get", {"run_id": "$r"}),
    post("runs/outputs", {"run_id": "$r", "models": []}),
    post("runs/outputs", {"run_id": "$r"}),
    post("runs/outputs", {"models": [{"model_id": "$o"}]}),
    post("runs/outputs", {"run_id": NOBODY, "models": [{"model_id": "$o", "step": 1}]}),
    post("runs/outputs", {"run_id": "$r", "models": "x"}),
    get("logged-models/$o"),
)

_MODEL = '{"artifact_path": "model", "flavors": {"sklearn": {}}, "utc_time_created": "2024-01-01 00:00:00.0", "run_id": "$r"}'

OLD_MODELS = (
    post("experiments/create", {"name": "old models"}, keep={"e": "experiment_id"}),
    post("runs/create", {"experiment_id": "$e", "start_time": 1000, "run_name": "old"}, keep={"r": "run.info.run_id"}),
    post("runs/log-model", {"run_id": "$r", "model_json": _MODEL}),
    post("runs/log-model", {"run_id": "$r", "model_json": _MODEL.replace('"model"', '"second"')}),
    get("runs/get", {"run_id": "$r"}),
    post("runs/log-model", {"run_id": "$r", "model_json": "{"}),
    post("runs/log-model", {"run_id": "$r", "model_json": "{}"}),
    post("runs/log-model", {"run_id": "$r", "model_json": ""}),
    post("runs/log-model", {"run_id": "$r"}),
    post("runs/log-model", {"model_json": _MODEL}),
    post("runs/log-model", {"run_id": NOBODY, "model_json": _MODEL}),
)

CONVERSATIONS = {"inputs and outputs": INPUTS, "log-model": OLD_MODELS}
