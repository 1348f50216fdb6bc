"""Datasets, and which runs read them."""

from collections.abc import Iterable, Mapping

import msgspec
import sqlalchemy as sa

from bedplate.store.schema import dataset_input_tags, dataset_inputs, datasets
from bedplate.store.sql import Among, Repository, Upsert, param

CONTEXT = "mlflow.data.context"
"""The tag of an input that says what the dataset was for."""

_COLUMNS = (
    datasets.c.name,
    datasets.c.digest,
    datasets.c.source_type,
    datasets.c.source,
    datasets.c.schema,
    datasets.c.profile,
)
_FIND = sa.select(datasets.c.id).where(
    datasets.c.experiment == param("experiment_"),
    datasets.c.name == param("name_"),
    datasets.c.digest == param("digest_"),
)
_ADD = sa.insert(datasets)
_ROWS = Among(sa.select(datasets.c.id, *_COLUMNS), datasets.c.id)
_LINK = Upsert(dataset_inputs)
_TAG = Upsert(dataset_input_tags)
_OF_RUNS = Among(
    sa.select(dataset_inputs.c.run, dataset_inputs.c.dataset).order_by(dataset_inputs.c.position), dataset_inputs.c.run
)
_TAGS = Among(
    sa.select(
        dataset_input_tags.c.run, dataset_input_tags.c.dataset, dataset_input_tags.c.key, dataset_input_tags.c.value
    ).order_by(dataset_input_tags.c.key),
    dataset_input_tags.c.run,
)
_SUMMARY = (datasets.c.experiment, datasets.c.name, datasets.c.digest, dataset_inputs.c.context)
_SUMMARIES = Among(
    sa.select(*_SUMMARY)
    .distinct()
    .join(dataset_inputs, dataset_inputs.c.dataset == datasets.c.id)
    .order_by(*_SUMMARY[:-1], dataset_inputs.c.context.nulls_first())
    .limit(param("limit_")),
    datasets.c.experiment,
)
_LAST = sa.select(sa.func.max(dataset_inputs.c.position))


class DatasetRow(msgspec.Struct, frozen=True):
    """One dataset as a client describes it; ``schema`` and ``profile`` may be left out."""

    name: str
    digest: str
    source_type: str
    source: str
    schema: str | None = None
    profile: str | None = None


class DatasetInput(msgspec.Struct, frozen=True):
    """A dataset that a run read, and what is said of that."""

    dataset: DatasetRow
    tags: Mapping[str, str] = {}


class DatasetSummary(msgspec.Struct, frozen=True):
    """A dataset of an experiment, and one thing that it was read for."""

    experiment: int
    name: str
    digest: str
    context: str | None


class Datasets(Repository):
    """``tx.datasets``."""

    def put(self, experiment: int, dataset: DatasetRow) -> int:
        """The key of a dataset of an experiment; one of the same name and digest stays as it was said first."""
        found = self._execute(_FIND, experiment_=experiment, name_=dataset.name, digest_=dataset.digest).scalar()
        if found is not None:
            return int(found)
        key = self._execute(_ADD, experiment=experiment, **msgspec.structs.asdict(dataset)).inserted_primary_key
        assert key is not None
        return int(key[0])

    def link(self, run: int, dataset: int, tags: Mapping[str, str], position: int) -> bool:
        """Say that a run read a dataset; False, and nothing changes, if that is said already."""
        row = (run, dataset, tags.get(CONTEXT), position)
        if not _LINK.many(self._connection, [row]):
            return False
        _TAG.many(self._connection, [(run, dataset, key, value) for key, value in tags.items()])
        return True

    def read_by(self, runs: Iterable[int]) -> dict[int, list[DatasetInput]]:
        """What each of the runs read, in the order in which it was logged; runs that read nothing are left out."""
        links = _OF_RUNS.rows(self._connection, runs)
        if not links:
            return {}
        rows = _ROWS.rows(self._connection, {dataset for _, dataset in links})
        known = {key: DatasetRow(*values) for key, *values in rows}
        tags: dict[tuple[int, int], dict[str, str]] = {}
        for run, dataset, key, value in _TAGS.rows(self._connection, {run for run, _ in links}):
            tags.setdefault((run, dataset), {})[key] = value
        found: dict[int, list[DatasetInput]] = {}
        for run, dataset in links:
            found.setdefault(run, []).append(DatasetInput(known[dataset], tags.get((run, dataset), {})))
        return found

    def summaries(self, experiments: Iterable[int], limit: int) -> list[DatasetSummary]:
        """The datasets that runs of these experiments read, once for each thing they were read for."""
        rows = _SUMMARIES.rows(self._connection, experiments, limit_=limit)
        return [DatasetSummary(*row) for row in rows]

    def last_position(self) -> int:
        """The greatest position of an input; 0 if there is none."""
        return self._execute(_LAST).scalar() or 0
