"""Optuna's studies, nested and resumed runs, asynchronous logging, system metrics, searches over what came of it."""

import os
import time
import warnings

import optuna
from optuna_integration import MLflowCallback

import mlflow
from mlflow import MlflowClient

client = MlflowClient()


def study() -> None:
    """A run for each trial, by the callback that Optuna's documentation shows."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    callback = MLflowCallback(tracking_uri=mlflow.get_tracking_uri(), metric_name="loss")

    @callback.track_in_mlflow()
    def objective(trial: optuna.Trial) -> float:
        x = trial.suggest_float("x", -10, 10)
        mlflow.log_param("squared", "yes")
        return (x - 2) ** 2

    search = optuna.create_study(study_name="optuna", sampler=optuna.samplers.RandomSampler(seed=1))
    search.optimize(objective, n_trials=4, callbacks=[callback])
    found = mlflow.search_runs(experiment_names=["optuna"], order_by=["metrics.loss ASC"])
    assert len(found) == 4
    assert abs(found["metrics.loss"][0] - search.best_value) < 1e-12
    assert set(found["params.squared"]) == {"yes"}
    assert float(found["params.x"][0]) == search.best_params["x"]
    assert set(found["tags.state"]) == {"TrialState.COMPLETE"} or set(found["tags.state"]) == {"COMPLETE"}


def nested() -> None:
    """Parents, children, a failed run, one that is taken up again, one that is deleted."""
    mlflow.set_experiment("nested")
    with mlflow.start_run(run_name="parent", tags={"kind": "parent"}) as parent:
        for number in range(3):
            with mlflow.start_run(run_name=f"child {number}", nested=True) as child:
                mlflow.log_metric("score", number)
    children = client.search_runs([parent.info.experiment_id], f"tags.mlflow.parentRunId = '{parent.info.run_id}'")
    assert len(children) == 3
    assert mlflow.get_parent_run(child.info.run_id).info.run_id == parent.info.run_id
    with mlflow.start_run(run_id=parent.info.run_id) as again:
        mlflow.log_metrics({"late": 1.0, "later": 2.0}, step=5)
    assert again.info.run_id == parent.info.run_id
    assert client.get_run(parent.info.run_id).data.metrics == {"late": 1.0, "later": 2.0}
    try:
        with mlflow.start_run(run_name="fails") as failing:
            raise KeyError("on purpose")
    except KeyError:
        pass
    assert client.get_run(failing.info.run_id).info.status == "FAILED"
    mlflow.delete_run(failing.info.run_id)
    assert len(mlflow.search_runs()) == 4
    with mlflow.start_run(run_name="parameters"):
        mlflow.log_params({f"p{i}": i for i in range(150)})
        mlflow.set_tags({f"t{i}": i for i in range(150)})
    found = mlflow.search_runs(filter_string="attributes.run_name = 'parameters'")
    assert found["params.p149"][0] == "149"
    assert found["tags.t149"][0] == "149"


def asynchronous() -> None:
    """Calls that return before they are made; a flush waits for them."""
    with mlflow.start_run() as run:
        for step in range(200):
            mlflow.log_metric("fast", step, step=step, synchronous=False)
        mlflow.log_params({"a": 1}, synchronous=False)
        mlflow.flush_async_logging()
    assert len(client.get_metric_history(run.info.run_id, "fast")) == 200


def system_metrics() -> None:
    """Sampled while a run goes on."""
    os.environ["MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL"] = "0.1"
    os.environ["MLFLOW_SYSTEM_METRICS_SAMPLES_BEFORE_LOGGING"] = "2"
    with mlflow.start_run(log_system_metrics=True) as run:
        time.sleep(1.2)
    logged = client.get_run(run.info.run_id).data.metrics
    assert "system/cpu_utilization_percentage" in logged, sorted(logged)
    assert "system/system_memory_usage_megabytes" in logged, sorted(logged)


warnings.simplefilter("ignore")
study()
nested()
asynchronous()
system_metrics()
