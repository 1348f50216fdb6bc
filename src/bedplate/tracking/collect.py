"""Deleting for good what was deleted long enough ago: runs, logged models, experiments, and content nothing names.

Each run, model and experiment goes in a transaction of its own with one entry in the ledger, so a collection that is
cut short is carried on by the next. What a registered version of a model rests on stays.
"""

from collections import Counter
from collections.abc import Callable
from datetime import timedelta

import msgspec

from bedplate import clock
from bedplate.errors import ConflictError
from bedplate.store import Store, Transaction
from bedplate.store.experiments import ExperimentRow
from bedplate.store.logged_models import LoggedModelRow
from bedplate.store.runs import RunRow
from bedplate.tracking import appends, experiments
from bedplate.tracking.actors import Actor
from bedplate.tracking.artifacts import folder_of
from bedplate.tracking.contents import Contents, Sweep
from bedplate.tracking.uploads import Uploads

MOST_KEPT = 100
"""How many of those that stay are named."""


class Collection(msgspec.Struct, frozen=True, kw_only=True):
    """What went, or would go: ``rows`` were appended to runs, ``files`` were artifacts of what went.

    ``kept`` says of what is old enough why it stays. ``uploads`` were never completed, or were long ago.
    """

    runs: int
    models: int
    experiments: int
    rows: int
    files: int
    uploads: int
    kept: tuple[str, ...]
    content: Sweep


def collect(
    store: Store, contents: Contents, uploads: Uploads, older_than: timedelta, *, by: Actor, dry_run: bool = False
) -> Collection:
    """Delete for good what was deleted ``older_than`` ago, then content without a name. A dry run changes nothing.

    Raises:
        StorageError: the disk or the object store refuses; what went before stays gone.
        UnavailableError: the database or the object store does not answer.
    """
    going = _Going(store, clock.milliseconds(clock.now() - older_than), by, dry_run=dry_run)
    going.all()
    return Collection(
        runs=going.runs,
        models=going.models,
        experiments=going.experiments,
        rows=going.rows,
        files=going.files,
        uploads=uploads.forget(dry_run=dry_run),
        kept=tuple(going.kept[:MOST_KEPT]),
        content=contents.collect(dry_run=dry_run),
    )


class _Going:
    """One walk through what is old enough, and the count of what went."""

    def __init__(self, store: Store, before: int, by: Actor, *, dry_run: bool) -> None:
        self._store, self._before, self._by, self._dry_run = store, before, by, dry_run
        self.runs = self.models = self.experiments = self.rows = self.files = 0
        self.kept: list[str] = []
        self._gone: set[str] = set()
        self._within: Counter[int] = Counter()
        """Files of what goes before its experiment, by the experiment: a dry run must not count them twice."""

    def all(self) -> None:
        """Runs and models first: an experiment goes when nothing is in it any more."""
        with self._store.read() as tx:
            runs, models = list(tx.erasure.runs(self._before)), list(tx.erasure.models(self._before))
        for workspace, run in runs:
            self.runs += self._one(f"run {run.id}", self._run, workspace, run)
        for workspace, model in models:
            self.models += self._one(f"model {model.id}", self._model, workspace, model)
        with self._store.read() as tx:
            old = list(tx.erasure.experiments(self._before))
        for row in old:
            self.experiments += self._one(f"experiment {row.id}", self._experiment, row)

    def _one(self, name: str, work: Callable[..., tuple[int, int]], *what: object) -> bool:
        """Do one of the steps below in a transaction; whether the thing went."""
        try:
            with (self._store.read if self._dry_run else self._store.transaction)() as tx:
                rows, files = work(tx, *what)
        except _StaysError as stays:
            if stays.message:
                self.kept.append(f"{name}: {stays.message}")
            return False
        self._gone.add(name)
        self.rows += rows
        self.files += files
        return True

    def _run(self, tx: Transaction, workspace: str, row: RunRow) -> tuple[int, int]:
        if not tx.erasure.run_is_due(row.key, self._before, lock=not self._dry_run):
            raise _StaysError("")  # it was restored meanwhile
        _check_nothing_rests(tx, workspace, row.artifact_uri, row.id)
        positions = tx.erasure.positions_of_run(row.key)
        files = self._erase(
            tx,
            workspace,
            positions,
            _folder(row.artifact_uri, row.id),
            "run",
            row.id,
            run=row.key,
            experiment=row.experiment,
        )
        if not self._dry_run:
            tx.erasure.remove_run(row.key)
        self._within[row.experiment] += files
        return len(positions), files

    def _model(self, tx: Transaction, workspace: str, row: LoggedModelRow) -> tuple[int, int]:
        if not tx.erasure.model_is_due(row.key, self._before, lock=not self._dry_run):
            raise _StaysError("")
        _check_nothing_rests(tx, workspace, row.artifact_location)
        positions = tx.erasure.positions_of_model(row.key)
        folder = _folder(row.artifact_location, row.id)
        files = self._erase(tx, workspace, positions, folder, "logged_model", row.id, experiment=row.experiment)
        if not self._dry_run:
            tx.erasure.remove_model(row.key)
        self._within[row.experiment] += files
        return len(positions), files

    def _experiment(self, tx: Transaction, row: ExperimentRow) -> tuple[int, int]:
        if not tx.erasure.experiment_is_due(row.id, self._before, lock=not self._dry_run):
            raise _StaysError("")
        for kind, name in tx.erasure.inhabitants(row.id):
            if f"{kind} {name}" not in self._gone:
                raise _StaysError(f"{kind} {name} is in it")
        positions = tx.erasure.positions_of_experiment(row.id)
        location = experiments.location_of(row.workspace, row.id)
        folder = folder_of(location) if row.artifact_location == location else None
        files = self._erase(tx, row.workspace, positions, folder, "experiment", str(row.id))
        if not self._dry_run:
            tx.erasure.remove_experiment(row.id)
            return len(positions), files
        return len(positions), max(0, files - self._within[row.id])

    def _erase(
        self,
        tx: Transaction,
        workspace: str,
        positions: list[int],
        folder: str | None,
        kind: str,
        name: str,
        run: int | None = None,
        **more: int,
    ) -> int:
        """Record the removal, leave the leaves of chained rows, take the names of files away; how many these were."""
        found = tx.artifacts.find(workspace, folder) if folder is not None else None
        files, size = (0, 0) if found is None else tx.artifacts.measure(workspace, found.path)
        if not self._dry_run:
            payload = {"workspace": workspace, "files": files, "bytes": size, **more}
            appends.erase(tx, positions, self._by, f"{kind}{appends.ERASED}", f"{kind}/{name}", run, **payload)
            if found is not None:
                tx.artifacts.remove(workspace, found.path)
        return files


class _StaysError(ConflictError):
    """Something is not deleted for good; the message says why, and is empty if it does not matter."""


def _check_nothing_rests(tx: Transaction, workspace: str, location: str, run: str | None = None) -> None:
    resting = tx.erasure.resting(workspace, location, run)
    if resting:
        name, number = resting[0]
        others = f" and {len(resting) - 1} more" if len(resting) > 1 else ""
        raise _StaysError(f"version {number} of {name}{others} rests on it")


def _folder(location: str, name: str) -> str | None:
    """The folder that is the thing's own: down to the segment that is its id."""
    segments = (folder_of(location) or "").split("/")
    return "/".join(segments[: segments.index(name) + 1]) if name in segments else None
