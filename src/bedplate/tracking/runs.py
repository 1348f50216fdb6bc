"""Runs as values, and how a training becomes one. The server of part 2 of the product adds to this."""

from typing import Any, Protocol

import msgspec

from bedplate.records import TrainResult
from bedplate.store.runs import Runs
from bedplate.tracking.system import Code


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One run of an experiment. A metric is (name, step, value); ``name`` carries model and slice."""

    experiment: str
    name: str
    parameters: dict[str, Any]
    tags: dict[str, str]
    metrics: tuple[tuple[str, int, float], ...]


class Writes(Protocol):
    """A write transaction of the store."""

    @property
    def runs(self) -> Runs: ...


def of_training(use_case: str, training: TrainResult, code: Code | None = None) -> Run:
    """The run that a training was. Metrics of the candidate keep their plain name; others say whose they are."""
    metrics = {
        _name(metric.metric, metric.model, metric.slice): (0, metric.estimate.value) for metric in training.metrics
    }
    tags = {
        "bedplate.run": training.run_id,
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


def save(tx: Writes, run: Run) -> str:
    """Keep a finished run within the caller's transaction and return its id; the same run twice is kept once."""
    experiment = tx.runs.experiment(run.experiment)
    for kept in tx.runs.list(experiment):
        if kept.name == run.name:
            return kept.id
    row = tx.runs.start(experiment, run.name, run.parameters, run.tags)
    tx.runs.log(row.id, run.metrics)
    tx.runs.end(row.id, "finished")
    return row.id


def _name(metric: str, model: str, part: str) -> str:
    name = metric if model == "candidate" else f"{model}.{metric}"
    return name if part == "all" else f"{name}[{part}]"
