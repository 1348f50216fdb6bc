"""What the page of a run shows: what it is, what it logged over time, what it read and made, and where it led."""

import math
from collections.abc import Callable, Mapping, Sequence

import msgspec

from bedplate.app import queries
from bedplate.app.tracking_pages import COMMIT, NOTE, PARENT, SOURCE, SYSTEM
from bedplate.errors import InputError
from bedplate.ids import Digest
from bedplate.release import searching
from bedplate.release.searching import Tagged
from bedplate.store import Store, Transaction
from bedplate.store.datasets import DatasetInput
from bedplate.store.experiments import ExperimentRow
from bedplate.store.logged_models import LoggedModelRow
from bedplate.store.metrics import Stored
from bedplate.store.runs import RunRow
from bedplate.store.workspaces import DEFAULT
from bedplate.tracking import inputs, metrics
from bedplate.tracking.runs import USER_TAG
from bedplate.tracking.training import RUN_TAG

POINTS = 1_000
"""Points of one curve."""
CURVES = 60
"""Curves that are asked for at once."""
CHILDREN = 100
_ENDLESS = (math.inf, -math.inf)
_VERSIONS = 20


class Value(msgspec.Struct, frozen=True):
    """The latest value of a metric."""

    key: str
    value: float
    timestamp: int
    step: int


class Made(msgspec.Struct, frozen=True):
    """A model that a run logged, at a step; ``row`` is None if there is no such model here."""

    id: str
    step: int
    row: LoggedModelRow | None


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """The use case whose line made a run: its training as evidence, a prediction that was traced back to it."""

    use_case: str
    training: Digest | None = None
    prediction: str | None = None


class RunDetail(msgspec.Struct, frozen=True, kw_only=True):
    """Everything the page of one run shows."""

    workspace: str
    row: RunRow
    experiment: ExperimentRow
    metrics: tuple[Value, ...]
    drawn: tuple[str, ...]
    """Metrics that make a curve: those with several values, and all while the run is going and more may come."""
    system: tuple[Value, ...]
    params: tuple[tuple[str, str], ...]
    tags: Mapping[str, str]
    datasets: tuple[DatasetInput, ...] = ()
    used: tuple[Made, ...] = ()
    made: tuple[Made, ...] = ()
    versions: tuple[Tagged, ...] = ()
    children: tuple[RunRow, ...] = ()
    parent: RunRow | None = None
    line: Line | None = None

    @property
    def user(self) -> str:
        """Who started it, as far as it is known."""
        return self.tags.get(USER_TAG) or self.row.user_id

    @property
    def source(self) -> str:
        """What was run."""
        return self.tags.get(SOURCE, "")

    @property
    def commit(self) -> str:
        """The commit of the code that was run."""
        return self.tags.get(COMMIT) or self.tags.get("git.commit", "")

    @property
    def note(self) -> str:
        """What people wrote about it."""
        return self.tags.get(NOTE, "")

    @property
    def running(self) -> bool:
        """Whether it is going."""
        return self.row.status == "RUNNING"

    @property
    def own_tags(self) -> tuple[tuple[str, str], ...]:
        """The tags that people and programs set, without those that clients set by themselves."""
        return tuple((key, value) for key, value in sorted(self.tags.items()) if not key.startswith("mlflow."))

    @property
    def client_tags(self) -> tuple[tuple[str, str], ...]:
        """The tags that clients set by themselves."""
        return tuple((key, value) for key, value in sorted(self.tags.items()) if key.startswith("mlflow."))


class Curve(msgspec.Struct, frozen=True, kw_only=True):
    """Points of one metric of one run, by step; a value is None where it was no finite number.

    ``after`` stands for the last of them in time: what comes later begins behind it.
    """

    run: str
    name: str
    key: str
    steps: list[int]
    times: list[int]
    values: list[float | None]
    after: str


def run_detail(store: Store, workspace: str, run: str, may_read: Callable[[str], bool]) -> RunDetail:
    """Everything about one run. Of use cases only those are told that ``may_read`` lets through.

    Raises:
        NotFoundError: the workspace has no such run.
    """
    with store.read() as tx:
        row = tx.runs.get(workspace, run)
        logged = [Value(*each) for each in sorted(tx.metrics.latest([row.key]).get(row.key, ()))]
        tags = dict(tx.runs.tags([row.key]).get(row.key, ()))
        links = inputs.of_runs(tx, [row.key]).get(row.key, inputs.RunLinks())
        parent = tags.get(PARENT, "")
        experiment = tx.experiments.get(workspace, row.experiment)
        line = _line(tx, workspace, experiment.name, tags, may_read)
        own = tuple(each for each in logged if not each.key.startswith(SYSTEM))
        several = {each.key for each in own} if row.status == "RUNNING" else tx.metrics.several(row.key)
        return RunDetail(
            workspace=workspace,
            row=row,
            experiment=experiment,
            metrics=own,
            drawn=tuple(each.key for each in own if each.key in several),
            system=tuple(each for each in logged if each.key.startswith(SYSTEM)),
            params=tuple(sorted(tx.runs.params([row.key]).get(row.key, ()))),
            tags=tags,
            datasets=tuple(links.datasets),
            used=tuple(_made(tx, workspace, model, 0) for model in links.inputs),
            made=tuple(_made(tx, workspace, *output) for output in links.outputs),
            versions=_versions(tx, workspace, row, line),
            children=_children(tx, row),
            parent=tx.runs.find(workspace, parent) if parent else None,
            line=line,
        )


def _made(tx: Transaction, workspace: str, model: str, step: int) -> Made:
    return Made(model, step, tx.logged_models.find(workspace, model))


def _children(tx: Transaction, row: RunRow) -> tuple[RunRow, ...]:
    """Active runs of the same experiment that say they are part of this one, newest first."""
    found = tx.runs.rows(tx.overview.tagged(row.experiment, PARENT, row.id, most=CHILDREN))
    return tuple(each for each in found if each.lifecycle == "active")


# ------------------------------------------------------------------------------------------------------------ lineage


def _versions(tx: Transaction, workspace: str, row: RunRow, line: Line | None) -> tuple[Tagged, ...]:
    """Versions of registered models that came of a run."""
    page = searching.versions(tx, workspace, filter=f"run_id = '{row.id}'", max_results=_VERSIONS)
    found = [each.row for each in page.versions]
    if line is not None and line.training is not None:
        gates = {fact.digest for fact in tx.facts.children(line.training)}
        found += [version for version in tx.versions.list(line.use_case) if version.fact in gates]
    return tuple(searching.aliased(tx, workspace, found))


def _line(
    tx: Transaction,
    workspace: str,
    name: str,
    tags: Mapping[str, str],
    may_read: Callable[[str], bool],
) -> Line | None:
    """The use case that made a run in its line; ``name`` is that of the experiment."""
    if RUN_TAG not in tags or workspace != DEFAULT or not may_read(name):
        return None
    if all(row.name != name for row in tx.use_cases.list()):
        return None
    fact = queries.training_of(tx, name, tags[RUN_TAG])
    training = fact.digest if fact is not None else None
    trace = tx.facts.latest(name, "trace")
    prediction = None
    if trace is not None and training in {fact.digest for fact in tx.facts.ancestors(trace.digest)}:
        prediction = trace.body.get("prediction_id")
    return Line(use_case=name, training=training, prediction=str(prediction) if prediction else None)


# ------------------------------------------------------------------------------------------------------------- curves


def curves(
    store: Store, workspace: str, ids: Sequence[str], keys: Sequence[str], *, steps: tuple[int, int] | None = None
) -> list[Curve]:
    """Points of each of the metrics of each of the runs, at most :data:`POINTS` of a curve; curves without any not.

    Raises:
        InputError: these are too many.
    """
    _few(ids, keys)
    found = []
    with store.read() as tx:
        for run in dict.fromkeys(ids):
            row = tx.runs.find(workspace, run)
            if row is None:
                continue
            for key in dict.fromkeys(keys):
                points = metrics.sampled(tx, workspace, [run], key, steps=steps, most=POINTS)
                if points:
                    token = metrics.newest(tx, workspace, row, key)
                    found.append(_curve(row, key, [point for _, point in points], token))
    return found


def later(
    store: Store, workspace: str, ids: Sequence[str], keys: Sequence[str], after: Sequence[str]
) -> tuple[list[Curve], bool]:
    """What was logged since: ``after`` holds what each curve ended with, run by run and key by key.

    Also whether one of the runs is still going.

    Raises:
        InputError: these are too many, or ``after`` does not belong to them.
    """
    _few(ids, keys)
    if len(after) != len(ids) * len(keys):
        raise InputError("each curve needs the place where it ended", where="after")
    places = iter(after)
    found, going = [], False
    with store.read() as tx:
        for run in ids:
            row = tx.runs.find(workspace, run)
            going = going or (row is not None and row.status == "RUNNING")
            for key in keys:
                place = next(places)
                if row is None:
                    continue
                points, token = metrics.since(tx, workspace, row, key, place, most=POINTS)
                if points:
                    found.append(_curve(row, key, points, token))
    return found, going


def _few(ids: Sequence[str], keys: Sequence[str]) -> None:
    if len(ids) * len(keys) > CURVES:
        raise InputError(f"at most {CURVES} curves are drawn at once", where="key", fix="choose fewer metrics or runs")


def _curve(row: RunRow, key: str, points: Sequence[Stored], token: str) -> Curve:
    return Curve(
        run=row.id,
        name=row.name,
        key=key,
        steps=[point[1] for point in points],
        times=[point[0] for point in points],
        values=[None if point[3] or point[2] in _ENDLESS else point[2] for point in points],
        after=token,
    )
