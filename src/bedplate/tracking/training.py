"""How a training of the flow becomes a run beside those that clients log."""

import uuid
from typing import Any

import msgspec

from bedplate import clock
from bedplate.records import TrainResult
from bedplate.store import Transaction
from bedplate.store.filters import Clause
from bedplate.store.workspaces import DEFAULT
from bedplate.tracking.appends import Appended, Appends
from bedplate.tracking.runs import NAME_TAG
from bedplate.tracking.system import Code
from bedplate.tracking.validation import Metric, Param

RUN_TAG = "bedplate.run"


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One run of an experiment. A metric is (name, step, value); ``name`` carries model and slice."""

    experiment: str
    name: str
    parameters: dict[str, Any]
    tags: dict[str, str]
    metrics: tuple[tuple[str, int, float], ...]


def of_training(use_case: str, training: TrainResult, code: Code | None = None) -> Run:
    """The run that a training was. Metrics of the candidate keep their plain name; others say whose they are."""
    metrics = {
        _name(metric.metric, metric.model, metric.slice): (0, metric.estimate.value) for metric in training.metrics
    }
    tags = {
        RUN_TAG: training.run_id,
        "bedplate.code": training.code_digest,
        "bedplate.environment": training.environment_digest,
        "bedplate.seed": str(training.seed),
        "bedplate.isolated": str(training.isolated).lower(),
        "bedplate.data": ", ".join(f"{table.name}@{table.version}" for table in training.inputs),
    }
    if code is not None and code.commit is not None:
        tags["git.commit"] = code.commit
        tags["git.changed"] = code.changed or "no"
    return Run(
        experiment=use_case,
        name=training.run_id,
        parameters=dict(training.parameters),
        tags=tags,
        metrics=tuple((name, step, value) for name, (step, value) in metrics.items()),
    )


def save(tx: Transaction, appends: Appends, run: Run, *, actor: str) -> str:
    """Keep a finished run within the caller's transaction and return its id; the same run twice is kept once.

    It stands in the experiment named like the use case, in the default workspace.
    """
    now = int(clock.now().timestamp() * 1000)
    found = tx.experiments.by_name(DEFAULT, run.experiment)
    if found is None:
        found = tx.experiments.add(DEFAULT, run.experiment, now=now)
        tx.experiments.locate(found.id, f"mlflow-artifacts:/{found.id}")
    kept, _ = tx.search.runs(
        [found.id], [Clause("tag", RUN_TAG, "=", run.name)], (), lifecycles=("active", "deleted"), limit=1
    )
    if kept:
        return tx.runs.rows(kept)[0].id
    identifier = uuid.uuid4().hex
    row = tx.runs.add(
        identifier,
        found.id,
        name=run.name,
        user_id="",
        started=now,
        artifact_uri=f"mlflow-artifacts:/{found.id}/{identifier}/artifacts",
    )
    tx.runs.set_tags(row, {**run.tags, NAME_TAG: run.name}.items())
    item = Appended(
        DEFAULT,
        identifier,
        actor,
        metrics=[Metric(name, value, now, step) for name, step, value in run.metrics],
        params=[Param(key, str(value)) for key, value in run.parameters.items()],
    )
    (error,) = appends.write(tx, [item])
    assert error is None, "a run that was just begun can be logged to"
    tx.runs.update(row.key, name=row.name, status="FINISHED", ended=now)
    return row.id


def _name(metric: str, model: str, part: str) -> str:
    name = metric if model == "candidate" else f"{model}.{metric}"
    return name if part == "all" else f"{name}[{part}]"
