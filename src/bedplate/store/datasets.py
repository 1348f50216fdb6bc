"""Datasets, and which runs read them."""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
import sqlalchemy as sa

from bedplate.store import matching
from bedplate.store.filters import Comparator
from bedplate.store.matching import Operands
from bedplate.store.model_schema import dataset_input_tags, dataset_inputs, datasets
from bedplate.store.schema import runs
from bedplate.store.sql import Among, Repository, Upsert, param, plain

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
_LINKED = (
    sa.select(datasets.c.name, datasets.c.digest)
    .join(dataset_inputs, dataset_inputs.c.dataset == datasets.c.id)
    .where(dataset_inputs.c.run == param("run_"))
)
_start, _end = param("start_"), param("end_")
_BETWEEN = sa.select(datasets.c.position, datasets.c.experiment, *_COLUMNS).where(
    datasets.c.position >= _start, datasets.c.position < _end
)
_INPUTS_BETWEEN = (
    sa.select(
        dataset_inputs.c.position,
        dataset_inputs.c.run,
        dataset_inputs.c.dataset,
        runs.c.id,
        datasets.c.name,
        datasets.c.digest,
        dataset_inputs.c.context,
    )
    .join(datasets, datasets.c.id == dataset_inputs.c.dataset)
    .join(runs, runs.c.key == dataset_inputs.c.run)
    .where(dataset_inputs.c.position >= _start, dataset_inputs.c.position < _end)
)
_LAST = tuple(sa.select(sa.func.max(table.c.position)) for table in (datasets, dataset_inputs))


_READ = sa.join(dataset_inputs, datasets, datasets.c.id == dataset_inputs.c.dataset)
_SEARCHED = {"name": datasets.c.name, "digest": datasets.c.digest, "context": dataset_inputs.c.context}


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

    def find(self, experiment: int, name: str, digest: str) -> int | None:
        """The key of the dataset of this name and digest, if the experiment has it."""
        key: int | None = self._execute(_FIND, experiment_=experiment, name_=name, digest_=digest).scalar()
        return key

    def add(self, experiment: int, dataset: DatasetRow, position: int) -> int:
        """Keep a dataset that the experiment does not have, and return its key.

        Raises:
            ConflictError: the experiment has one of this name and digest.
        """
        values = msgspec.structs.asdict(dataset)
        key = self._execute(_ADD, experiment=experiment, **values, position=position).inserted_primary_key
        assert key is not None
        return int(key[0])

    def link(self, run: int, dataset: int, tags: Mapping[str, str], position: int) -> None:
        """Say that a run read a dataset of which it is not said yet."""
        _LINK.many(self._connection, [(run, dataset, tags.get(CONTEXT), position)])
        _TAG.many(self._connection, [(run, dataset, key, value) for key, value in tags.items()])

    def linked(self, run: int) -> set[tuple[str, str]]:
        """Name and digest of the datasets that a run read."""
        return {(row.name, row.digest) for row in self._execute(_LINKED, run_=run)}

    def read_by(self, runs: Iterable[int]) -> dict[int, list[DatasetInput]]:
        """What each of the runs read, in the order in which it was logged; runs that read nothing are left out."""
        links = _OF_RUNS.rows(self._connection, runs)
        if not links:
            return {}
        rows = _ROWS.rows(self._connection, {dataset for _, dataset in links})
        known = {row[0]: DatasetRow(*row[1:]) for row in rows}
        tags = self._tags({run for run, _ in links})
        found: dict[int, list[DatasetInput]] = {}
        for run, dataset in links:
            found.setdefault(run, []).append(DatasetInput(known[dataset], tags.get((run, dataset), {})))
        return found

    def summaries(self, experiments: Iterable[int], limit: int) -> list[DatasetSummary]:
        """The datasets that runs of these experiments read, once for each thing they were read for."""
        rows = _SUMMARIES.rows(self._connection, experiments, limit_=limit)
        return [DatasetSummary(*row) for row in rows]

    def between(self, start: int, end: int) -> list[tuple[Any, ...]]:
        """Datasets at these positions, in no order: position, experiment, and what is said of the dataset."""
        return plain(self._execute(_BETWEEN, start_=start, end_=end))

    def inputs_between(self, start: int, end: int) -> list[tuple[int, str, str, str, str | None, dict[str, str]]]:
        """Inputs at these positions, in no order: position, run id, name and digest of the dataset, context, tags."""
        rows = plain(self._execute(_INPUTS_BETWEEN, start_=start, end_=end))
        tags = self._tags({run for _, run, *_ in rows})
        return [(position, *told, tags.get((run, dataset), {})) for position, run, dataset, *told in rows]

    def last_position(self) -> int:
        """The greatest position of a dataset or an input; 0 if there is none."""
        return max(self._execute(statement).scalar() or 0 for statement in _LAST)

    def _tags(self, runs: Iterable[int]) -> dict[tuple[int, int], dict[str, str]]:
        found: dict[tuple[int, int], dict[str, str]] = {}
        for run, dataset, key, value in _TAGS.rows(self._connection, runs):
            found.setdefault((run, dataset), {})[key] = value
        return found


def was_read(key: str, comparator: Comparator, operands: Operands, run: Any, *, postgresql: bool) -> matching.Condition:
    """Whether the run whose key this is read a dataset that matches, or read one for what matches."""
    so = matching.text_with(_SEARCHED[key], comparator, operands, postgresql=postgresql)
    read: sa.Select[Any] = sa.select(sa.literal_column("1")).select_from(_READ).where(so)
    return read.where(dataset_inputs.c.run == run).correlate_except(dataset_inputs, datasets).exists()


def readers(
    key: str, comparator: Comparator, operands: Operands, experiment: Any, *, postgresql: bool
) -> sa.Select[Any]:
    """The runs of an experiment that did."""
    so = matching.text_with(_SEARCHED[key], comparator, operands, postgresql=postgresql)
    return sa.select(dataset_inputs.c.run).select_from(_READ).where(so, datasets.c.experiment == experiment)
