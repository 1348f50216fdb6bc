"""How a training of the flow becomes a run beside those that clients log."""

import uuid
from collections.abc import Mapping
from typing import Any

import msgspec

from bedplate import clock
from bedplate.bundle.environment import installed
from bedplate.ids import Digest
from bedplate.records import TrainResult
from bedplate.store import Transaction
from bedplate.store.filters import Clause
from bedplate.store.lacking import RUN
from bedplate.store.workspaces import DEFAULT
from bedplate.tracking.actors import Actor
from bedplate.tracking.appends import Appended, Appends
from bedplate.tracking.artifacts import name_content
from bedplate.tracking.runs import NAME_TAG
from bedplate.tracking.system import Code, SystemMetrics
from bedplate.tracking.validation import Metric, Param

RUN_TAG = "bedplate.run"


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One run of an experiment. Times are in milliseconds since 1970; ``files`` are texts to keep as artifacts."""

    experiment: str
    name: str
    began: int
    ended: int
    parameters: dict[str, Any]
    tags: dict[str, str]
    metrics: tuple[Metric, ...]
    files: dict[str, str]


def of_training(
    use_case: str, training: TrainResult, code: Code | None = None, system: SystemMetrics | None = None
) -> Run:
    """The run that a training was, which ended now.

    Metrics of the candidate keep their plain name; others say whose they are. What the process used stands beside them
    under ``system/``. The code's changes since its commit and the installed distributions are kept as artifacts.
    """
    ended = int(clock.now().timestamp() * 1000)
    began = ended - int(training.seconds * 1000)
    metrics = {_name(metric.metric, metric.model, metric.slice): metric.estimate.value for metric in training.metrics}
    tags = {
        RUN_TAG: training.run_id,
        "bedplate.code": training.code_digest,
        "bedplate.environment": training.environment_digest,
        "bedplate.seed": str(training.seed),
        "bedplate.isolated": str(training.isolated).lower(),
        "bedplate.data": ", ".join(f"{table.name}@{table.version}" for table in training.inputs),
    }
    files = {"environment/requirements.txt": _requirements()}
    if code is not None and code.commit is not None:
        tags["mlflow.source.git.commit"] = code.commit
        tags["bedplate.code.changed"] = str(code.changes is not None).lower()
        if code.changes is not None:
            files["code/changes.diff"] = code.changes + "\n"
    return Run(
        experiment=use_case,
        name=training.run_id,
        began=began,
        ended=ended,
        parameters=dict(training.parameters),
        tags=tags,
        metrics=(
            *(Metric(name, value, ended, 0) for name, value in metrics.items()),
            *(system.metrics(began) if system is not None else ()),
        ),
        files=files,
    )


def _requirements() -> str:
    return "".join(f"{name}=={version}\n" for name, version in installed().items() if name != "python")


def save(tx: Transaction, appends: Appends, run: Run, files: Mapping[str, tuple[Digest, int]], *, by: Actor) -> str:
    """Keep a finished run within the caller's transaction and return its id; the same run twice is kept once.

    It stands in the experiment named like the use case, in the default workspace. ``files`` are digest and size of the
    run's files, which are in place already.
    """
    found = tx.experiments.by_name(DEFAULT, run.experiment)
    if found is None:
        found = tx.experiments.add(DEFAULT, run.experiment, now=run.began)
        tx.experiments.locate(found.id, f"mlflow-artifacts:/{found.id}")
    kept, _ = tx.search.runs(
        [found.id], [Clause("tag", RUN_TAG, "=", run.name)], (), lifecycles=("active", "deleted"), limit=1
    )
    if kept:
        return tx.runs.rows(kept)[0].id
    identifier = uuid.uuid4().hex
    folder = f"{found.id}/{identifier}/artifacts"
    row = tx.runs.add(
        identifier,
        found.id,
        name=run.name,
        user_id=by.name,
        started=run.began,
        artifact_uri=f"mlflow-artifacts:/{folder}",
    )
    tx.runs.set_tags(row, {**run.tags, NAME_TAG: run.name}.items())
    params = [Param(key, str(value)) for key, value in run.parameters.items()]
    (error,) = appends.write(tx, [Appended(DEFAULT, identifier, by.name, metrics=run.metrics, params=params)])
    assert error is None, "a run that was just begun can be logged to"
    for name, (digest, size) in files.items():
        name_content(tx, DEFAULT, f"{folder}/{name}", digest, size, by=by)
    tx.runs.update(row.key, name=row.name, status="FINISHED", ended=run.ended)
    by.record(tx, "run.create", f"{RUN}{identifier}", workspace=DEFAULT, experiment=found.id, name=run.name)
    return identifier


def _name(metric: str, model: str, part: str) -> str:
    name = metric if model == "candidate" else f"{model}.{metric}"
    return name if part == "all" else f"{name}[{part}]"
