"""Experiments, runs and metrics as MLflow's API writes them. What is empty is left out, as its messages do."""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from bedplate.store.experiments import ExperimentRow
from bedplate.store.runs import RunRow

Pairs = Iterable[tuple[str, str]]


class KeyValue(msgspec.Struct, gc=False):
    """A tag or a param."""

    key: str
    value: str = ""


class Metric(msgspec.Struct, gc=False):
    """One value of a metric; JSON has no NaN and no infinity, so they are words."""

    key: str
    value: float | str
    timestamp: int
    step: int


class MetricOfRun(msgspec.Struct, gc=False):
    """One value of a metric, with the run it belongs to."""

    key: str
    value: float | str
    timestamp: int
    step: int
    run_id: str


class RunInfo(msgspec.Struct, gc=False):
    """What a run is."""

    run_uuid: str
    experiment_id: str
    run_name: str
    user_id: str
    status: str
    start_time: int
    end_time: int | UnsetType
    artifact_uri: str
    lifecycle_stage: str
    run_id: str


class RunData(msgspec.Struct, gc=False):
    """What a run logged."""

    metrics: list[Metric] | UnsetType = UNSET
    params: list[KeyValue] | UnsetType = UNSET
    tags: list[KeyValue] | UnsetType = UNSET


class Run(msgspec.Struct, gc=False):
    """A run with all that belongs to it."""

    info: RunInfo
    data: RunData
    inputs: Any
    outputs: Any = UNSET


class Experiment(msgspec.Struct, gc=False):
    """An experiment."""

    experiment_id: str
    name: str
    artifact_location: str
    lifecycle_stage: str
    last_update_time: int
    creation_time: int
    workspace: str
    tags: list[KeyValue] | UnsetType = UNSET


def number(value: float) -> float | str:
    """A value as JSON can hold it."""
    if value - value == 0.0:  # neither NaN nor infinite
        return value
    return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"


def key_values(pairs: Pairs) -> list[KeyValue] | UnsetType:
    """Tags or params; none is left out."""
    return [KeyValue(key, value) for key, value in pairs] or UNSET


def run_info(run: RunRow) -> RunInfo:
    """What a run is."""
    return RunInfo(
        run.id,
        str(run.experiment),
        run.name,
        run.user_id,
        run.status,
        run.started,
        run.ended or UNSET,  # MLflow leaves an end at 0 out as well
        run.artifact_uri,
        run.lifecycle,
        run.id,
    )


def run_data(latest: Sequence[tuple[str, float, int, int]], params: Pairs, tags: Pairs) -> RunData:
    """What a run logged: (metric, value, timestamp, step), and params and tags by name."""
    metrics = [Metric(key, number(value), timestamp, step) for key, value, timestamp, step in latest]
    return RunData(metrics or UNSET, key_values(params), key_values(tags))


def experiment(row: ExperimentRow, tags: Pairs) -> Experiment:
    """An experiment with its tags."""
    return Experiment(
        str(row.id),
        row.name,
        row.artifact_location,
        row.lifecycle,
        row.updated,
        row.created,
        row.workspace,
        key_values(tags),
    )
