"""Every tracking and registry call of ``MlflowClient``, each with what it returned, as one JSON document.

Run by the comparison against two servers; what it writes is compared as replies are.

usage: client_round.py FILE
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mlflow.entities import (
    Dataset,
    DatasetInput,
    InputTag,
    LoggedModelInput,
    LoggedModelOutput,
    LoggedModelParameter,
    Metric,
    Param,
    RunTag,
    ViewType,
)
from mlflow.exceptions import MlflowException

from mlflow import MlflowClient

client = MlflowClient()
seen: list[dict[str, Any]] = []


def plain(value: Any) -> Any:
    """An entity of the client as JSON."""
    if isinstance(value, dict):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [plain(item) for item in value]
    if value is None or isinstance(value, str | int | bool):
        return value
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else str(value)
    if hasattr(value, "to_dictionary"):
        return plain(value.to_dictionary())
    if not hasattr(value, "__dict__"):
        return str(value)
    return {name.lstrip("_"): plain(item) for name, item in sorted(vars(value).items())}


def do(name: str, call: Callable[..., Any], /, *arguments: Any, **named: Any) -> Any:
    """Call, note what came back or why not, and return it."""
    try:
        result = call(*arguments, **named)
    except MlflowException as error:
        seen.append({"call": name, "error": error.error_code, "status": error.get_http_status_code()})
        return None
    entry: dict[str, Any] = {"call": name, "result": plain(result)}
    token = getattr(result, "token", None)
    if token:
        entry["next_page_token"] = token
    seen.append(entry)
    return result


def experiments() -> str:
    """Experiments, from their creation to their restoration."""
    made: str = do("create_experiment", client.create_experiment, "client", tags={"a": "1"})
    seen[-1]["result"] = {"experiment_id": made}
    do("create_experiment again", client.create_experiment, "client")
    do("get_experiment", client.get_experiment, made)
    do("get_experiment of nobody", client.get_experiment, "424242")
    do("get_experiment_by_name", client.get_experiment_by_name, "client")
    do("get_experiment_by_name of nobody", client.get_experiment_by_name, "nobody")
    do("set_experiment_tag", client.set_experiment_tag, made, "b", 2)
    do("delete_experiment_tag", client.delete_experiment_tag, made, "a")
    do("rename_experiment", client.rename_experiment, made, "client renamed")
    do("delete_experiment", client.delete_experiment, made)
    do(
        "search deleted",
        client.search_experiments,
        view_type=ViewType.DELETED_ONLY,
        filter_string="name LIKE 'client%'",
    )
    do("restore_experiment", client.restore_experiment, made)
    do("search_experiments", client.search_experiments, filter_string="name LIKE 'client%'", order_by=["name DESC"])
    return made


def runs(experiment: str) -> str:
    """One run with everything, and some beside it."""
    run = do("create_run", client.create_run, experiment, start_time=1000, run_name="whole", tags={"t": "1"})
    key = run.info.run_id
    do("log_metric", client.log_metric, key, "m", 0.5, timestamp=1000, step=1)
    do("log_metric NaN", client.log_metric, key, "nan", float("nan"), timestamp=1000)
    do("log_metric with a bad name", client.log_metric, key, "a;b", 1.0, timestamp=1)
    do("log_param", client.log_param, key, "p", 5)
    do("log_param again", client.log_param, key, "p", 5)
    do("log_param otherwise", client.log_param, key, "p", 6)
    do("set_tag", client.set_tag, key, "t", "2")
    do("delete_tag", client.delete_tag, key, "t")
    do("delete_tag again", client.delete_tag, key, "t")
    do(
        "log_batch",
        client.log_batch,
        key,
        metrics=[Metric("m", i / 4, 1000 + i, i) for i in range(50)],
        params=[Param(f"p{i}", str(i)) for i in range(5)],
        tags=[RunTag(f"t{i}", str(i)) for i in range(5)],
    )
    do("log_batch of 1001", client.log_batch, key, metrics=[Metric("m", 1.0, 1, i) for i in range(1001)])
    do(
        "log_inputs",
        client.log_inputs,
        key,
        datasets=[
            DatasetInput(Dataset("d", "1", "local", "{}", "{}", "{}"), [InputTag("mlflow.data.context", "train")])
        ],
    )
    do("update_run", client.update_run, key, status="FAILED", name="updated")
    do("set_terminated", client.set_terminated, key, "FINISHED", 9000)
    do("get_run", client.get_run, key)
    do("get_run of nobody", client.get_run, "0" * 32)
    do("get_metric_history", client.get_metric_history, key, "m")
    do("get_metric_history of nothing", client.get_metric_history, key, "never")
    do("get_parent_run", client.get_parent_run, key)
    child = do(
        "create child",
        client.create_run,
        experiment,
        start_time=2000,
        run_name="child",
        tags={"mlflow.parentRunId": key},
    )
    do("get_parent_run of the child", client.get_parent_run, child.info.run_id)
    do("delete_run", client.delete_run, child.info.run_id)
    do("restore_run", client.restore_run, child.info.run_id)
    for number in range(3):
        do("create_run more", client.create_run, experiment, start_time=3000 + number, run_name=f"more {number}")
    page = do("search_runs", client.search_runs, [experiment], max_results=2, order_by=["start_time"])
    do(
        "search_runs, next",
        client.search_runs,
        [experiment],
        max_results=2,
        order_by=["start_time"],
        page_token=page.token,
    )
    do("search_runs, filter", client.search_runs, [experiment], "metrics.m > 1 and params.p = '5'")
    do("search_runs, all", client.search_runs, [experiment], run_view_type=ViewType.ALL, order_by=["start_time DESC"])
    do("search_runs, bad filter", client.search_runs, [experiment], "metrics.m > 'x'")
    return str(key)


def logged_models(experiment: str, run: str) -> str:
    """Logged models."""
    model = do(
        "create_logged_model",
        client.create_logged_model,
        experiment,
        name="lm",
        source_run_id=run,
        tags={"a": "1"},
        params={"p": "1"},
        model_type="agent",
    )
    key = model.model_id
    do("log_model_params", client.log_model_params, key, {"q": "2"})
    do("set_logged_model_tags", client.set_logged_model_tags, key, {"b": "2"})
    do("delete_logged_model_tag", client.delete_logged_model_tag, key, "a")
    do("log_metric for a model", client.log_metric, run, "acc", 0.9, timestamp=5000, step=1, model_id=key)
    do("log_inputs, models", client.log_inputs, run, models=[LoggedModelInput(key)])
    do("log_outputs", client.log_outputs, run, [LoggedModelOutput(key, 7)])
    do("finalize_logged_model", client.finalize_logged_model, key, "READY")
    do("get_logged_model", client.get_logged_model, key)
    do("search_logged_models", client.search_logged_models, [experiment], filter_string="params.p = '1'")
    gone = do("create another", client.create_logged_model, experiment, name="gone", params={"x": "1"})
    do("delete_logged_model", client.delete_logged_model, gone.model_id)
    do("get_logged_model, deleted", client.get_logged_model, gone.model_id)
    do("get_run with its models", client.get_run, run)
    assert LoggedModelParameter("q", "2").key == "q"
    return str(key)


def registry(run: str, model: str, source: str) -> None:
    """Registered models and versions."""
    do("create_registered_model", client.create_registered_model, "cl", tags={"a": "1"}, description="d")
    do("create_registered_model again", client.create_registered_model, "cl")
    do(
        "create_model_version",
        client.create_model_version,
        "cl",
        f"{source}/model",
        run,
        tags={"k": "v"},
        description="one",
    )
    do(
        "create_model_version of a logged model",
        client.create_model_version,
        "cl",
        f"models:/{model}",
        run,
        model_id=model,
    )
    do("update_registered_model", client.update_registered_model, "cl", "described")
    do("update_model_version", client.update_model_version, "cl", "1", "described")
    do("set_registered_model_tag", client.set_registered_model_tag, "cl", "b", "2")
    do("delete_registered_model_tag", client.delete_registered_model_tag, "cl", "a")
    do("set_model_version_tag", client.set_model_version_tag, "cl", "1", "t", "x")
    do("delete_model_version_tag", client.delete_model_version_tag, "cl", "1", "k")
    do("set_registered_model_alias", client.set_registered_model_alias, "cl", "candidate", "1")
    do("get_model_version_by_alias", client.get_model_version_by_alias, "cl", "candidate")
    do("transition", client.transition_model_version_stage, "cl", "1", "Staging")
    do("get_latest_versions", client.get_latest_versions, "cl")
    do("get_latest_versions of a stage", client.get_latest_versions, "cl", ["Staging"])
    do("get_registered_model", client.get_registered_model, "cl")
    do("get_model_version", client.get_model_version, "cl", "1")
    do("get_model_version_download_uri", client.get_model_version_download_uri, "cl", "1")
    do("get_model_version_stages", client.get_model_version_stages, "cl", "1")
    do("search_registered_models", client.search_registered_models, "name LIKE 'cl%'")
    do("search_model_versions", client.search_model_versions, "name = 'cl'", order_by=["version_number"])
    do("search_model_versions of a run", client.search_model_versions, f"run_id = '{run}'", order_by=["version_number"])
    do("copy_model_version", client.copy_model_version, "models:/cl/1", "cl copy")
    do("delete_registered_model_alias", client.delete_registered_model_alias, "cl", "candidate")
    do("get_model_version_by_alias, gone", client.get_model_version_by_alias, "cl", "candidate")
    do("rename_registered_model", client.rename_registered_model, "cl", "cl renamed")
    do("delete_model_version", client.delete_model_version, "cl renamed", "2")
    do("delete_registered_model", client.delete_registered_model, "cl renamed")
    do("get_registered_model, gone", client.get_registered_model, "cl renamed")


def artifacts(run: str) -> None:
    """Files of a run."""
    do("log_text", client.log_text, run, "text", "a/b.txt")
    do("log_dict", client.log_dict, run, {"a": 1}, "c.json")
    do("list_artifacts", client.list_artifacts, run)
    do("list_artifacts of a folder", client.list_artifacts, run, "a")
    do("list_artifacts of nothing", client.list_artifacts, run, "never")


def main() -> None:
    """Everything, in order."""
    experiment = experiments()
    run = runs(experiment)
    model = logged_models(experiment, run)
    artifacts(run)
    registry(run, model, client.get_run(run).info.artifact_uri)
    Path(sys.argv[1]).write_text(json.dumps(seen))


main()
