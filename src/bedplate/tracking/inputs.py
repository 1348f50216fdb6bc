"""What runs read and made: datasets, and models as inputs and outputs. Appended like metrics, and never changed."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import msgspec

from bedplate.errors import InputError, UnfitError
from bedplate.store import Transaction
from bedplate.store.datasets import CONTEXT, DatasetInput, DatasetRow, DatasetSummary
from bedplate.store.runs import RunRow
from bedplate.tracking import validation
from bedplate.tracking.validation import Tag

LONGEST_NAME = 500
LONGEST_DIGEST = 36
LONGEST_SOURCE = 65_535
LONGEST_SCHEMA = 1_048_575
LONGEST_PROFILE = 16_777_215
LONGEST_TAG_KEY = 255
LONGEST_TAG = 500
LONGEST_MODEL_ID = 36
LONGEST_SOURCE_TYPE = 500
MOST_EXPERIMENTS = 20
MOST_SUMMARIES = 1_000


class Links(NamedTuple):
    """What a run is said to have read, used and made, checked. An output is a model id and a step."""

    datasets: Sequence[DatasetInput] = ()
    inputs: Sequence[str] = ()
    outputs: Sequence[tuple[str, int]] = ()


class RunLinks(msgspec.Struct, frozen=True):
    """What one run read, used and made."""

    datasets: list[DatasetInput] = []
    inputs: list[str] = []
    outputs: list[tuple[str, int]] = []


def dataset(given: DatasetRow, tags: Iterable[Tag]) -> DatasetInput:
    """Check a dataset that a run read, and what is said of that.

    Raises:
        InputError: a part of it is too long or cannot be stored.
        UnfitError: a tag comes twice.
    """
    for part, value, most in (
        ("name", given.name, LONGEST_NAME),
        ("digest", given.digest, LONGEST_DIGEST),
        ("source_type", given.source_type, LONGEST_SOURCE_TYPE),
        ("source", given.source, LONGEST_SOURCE),
        ("schema", given.schema or "", LONGEST_SCHEMA),
        ("profile", given.profile or "", LONGEST_PROFILE),
    ):
        validation.text(value, part, most)
    tags = list(tags)
    for key, value in tags:
        validation.text(key, "key", LONGEST_TAG_KEY)
        validation.text(value, "value", LONGEST_TAG)
    once("tags", (tag.key for tag in tags))
    bare = msgspec.structs.replace(given, schema=given.schema or None, profile=given.profile or None)
    return DatasetInput(bare, dict(tags))


def links(
    datasets: Sequence[DatasetInput] = (), inputs: Sequence[str] = (), outputs: Sequence[tuple[str, int]] = ()
) -> Links:
    """Check what a run is said to have read, used and made. Of two datasets of one name and digest the first counts.

    Raises:
        InputError: a part of it is too long or cannot be stored.
        UnfitError: an output comes twice.
    """
    first: dict[tuple[str, str], DatasetInput] = {}
    for each in datasets:
        first.setdefault((each.dataset.name, each.dataset.digest), each)
    for model in (*inputs, *(model for model, _ in outputs)):
        validation.text(model, "model_id", LONGEST_MODEL_ID)
    for _, step in outputs:
        if not -(2**63) <= step < 2**63:
            raise InputError(f"step is {step}, and must be a 64-bit integer")
    once("models", (model for model, _ in outputs))
    return Links(tuple(first.values()), tuple(dict.fromkeys(inputs)), tuple(outputs))


def log(tx: Transaction, run: RunRow, given: Links, position: int) -> list[tuple[Any, ...]]:
    """Append what is not said of an active run yet, and return the rows of that, numbered from ``position`` on.

    The rows are those that :func:`between` gives. A dataset that its experiment has stays as it was said first.

    Raises:
        UnfitError: the run made one of the outputs already.
    """
    rows: list[tuple[Any, ...]] = []
    known = tx.datasets.linked(run.key) if given.datasets else set()
    used = set(tx.logged_models.inputs([run.key]).get(run.key, ())) if given.inputs else set()
    made = {model for model, _ in tx.logged_models.outputs([run.key]).get(run.key, ())} if given.outputs else set()
    for model, step in given.outputs:
        if model in made:
            raise UnfitError(f"The run {run.id} has made the model '{model}' already", fix="log each output once")
        at = position + len(rows)
        tx.logged_models.add_output(run.key, model, step, at)
        rows.append((at, "model_output", run.id, model, step))
    for each, tags in ((each.dataset, each.tags) for each in given.datasets):
        if (each.name, each.digest) in known:
            continue
        key = tx.datasets.find(run.experiment, each.name, each.digest)
        if key is None:
            at = position + len(rows)
            key = tx.datasets.add(run.experiment, each, at)
            rows.append((at, "dataset", run.experiment, *msgspec.structs.astuple(each)))
        at = position + len(rows)
        tx.datasets.link(run.key, key, tags, at)
        rows.append((at, "dataset_input", run.id, each.name, each.digest, tags.get(CONTEXT), _sorted(tags)))
    for model in given.inputs:
        if model not in used:
            at = position + len(rows)
            tx.logged_models.add_input(run.key, model, at)
            rows.append((at, "model_input", run.id, model))
    return rows


def between(tx: Transaction, start: int, end: int) -> list[tuple[Any, ...]]:
    """The rows that were appended at these positions, in no order."""
    rows: list[tuple[Any, ...]] = []
    rows += ((at, "dataset", *said) for at, *said in tx.datasets.between(start, end))
    for at, *said, tags in tx.datasets.inputs_between(start, end):
        rows.append((at, "dataset_input", *said, _sorted(tags)))
    rows += ((at, "model_input", *said) for at, *said in tx.logged_models.inputs_between(start, end))
    rows += ((at, "model_output", *said) for at, *said in tx.logged_models.outputs_between(start, end))
    return rows


def of_runs(tx: Transaction, runs: Sequence[int], *, models_used: bool = True) -> dict[int, RunLinks]:
    """What each of these runs read, used and made, by the key of the run. Runs of which nothing is said are left out.

    Without ``models_used`` the models they used are not looked up.
    """
    datasets = tx.datasets.read_by(runs)
    inputs = tx.logged_models.inputs(runs) if models_used else {}
    outputs = tx.logged_models.outputs(runs)
    return {
        run: RunLinks(datasets.get(run, []), inputs.get(run, []), outputs.get(run, []))
        for run in datasets.keys() | inputs.keys() | outputs.keys()
    }


def summaries(tx: Transaction, workspace: str, experiments: Sequence[str]) -> list[DatasetSummary]:
    """The datasets that runs of these experiments read; at most 1,000. Those of other workspaces are left out.

    Raises:
        InputError: no experiment is named, too many are, or one has no id of an experiment.
    """
    if not experiments:
        raise InputError("SearchDatasets request must specify at least one experiment_id.", fix="give experiment_ids")
    if len(experiments) > MOST_EXPERIMENTS:
        raise InputError(
            f"SearchDatasets request cannot specify more than {MOST_EXPERIMENTS} experiment_ids. "
            f"Received {len(experiments)} experiment_ids.",
            fix="ask in parts",
        )
    numbers = [validation.experiment_id(each) for each in experiments]
    return tx.datasets.summaries(tx.experiments.within(workspace, numbers), MOST_SUMMARIES)


def once(what: str, keys: Iterable[str]) -> None:
    """Check that no key comes twice.

    Raises:
        UnfitError: one does.
    """
    twice = sorted(key for key, times in Counter(keys).items() if times > 1)
    if twice:
        raise UnfitError(
            f"{what} names {', '.join(map(repr, twice[:10]))} more than once", fix="give each of them once"
        )


def _sorted(tags: Any) -> list[tuple[str, str]]:
    return sorted(tags.items())
