"""What runs read, used and made, over MLflow's API."""

from collections.abc import Iterator

import msgspec
from msgspec import UNSET, UnsetType

from bedplate.api.mlflow import wire
from bedplate.api.mlflow.entities import KeyValue, key_values
from bedplate.app.site import Site
from bedplate.http import APPEND, CHANGE, Limits, Request, Response, Route
from bedplate.store.datasets import DatasetRow
from bedplate.tracking import inputs, logged_models, validation
from bedplate.tracking.appends import Linked
from bedplate.tracking.inputs import Links, RunLinks
from bedplate.tracking.validation import Tag

LARGE = Limits(body=32 << 20, depth=16, receipt=60.0, deadline=60.0)
"""The profile of one dataset alone may have sixteen million characters."""


class Dataset(msgspec.Struct, kw_only=True):
    """A dataset."""

    name: str = ""
    digest: str = ""
    source_type: str = ""
    source: str = ""
    schema: str | UnsetType = UNSET
    profile: str | UnsetType = UNSET


class Pair(msgspec.Struct, kw_only=True):
    """A tag or a param."""

    key: str = ""
    value: str = ""


class GivenInput(msgspec.Struct, kw_only=True):
    """A dataset that a run read."""

    tags: list[Pair] = []
    dataset: Dataset = msgspec.field(default_factory=Dataset)


class GivenModel(msgspec.Struct, kw_only=True):
    """A model that a run used."""

    model_id: str = ""


class GivenOutput(msgspec.Struct, kw_only=True):
    """A model that a run made, and at which step."""

    model_id: str = ""
    step: int = 0


class LogInputs(msgspec.Struct, kw_only=True):
    """What a run read and used."""

    run_id: str | None = None
    datasets: list[GivenInput] = []
    models: list[GivenModel] = []


class LogOutputs(msgspec.Struct, kw_only=True):
    """What a run made."""

    run_id: str | None = None
    models: list[GivenOutput] | None = None


class LogModel(msgspec.Struct, kw_only=True):
    """A model as clients of former days log it."""

    run_id: str | None = None
    model_json: str | None = None


class SearchDatasets(msgspec.Struct, kw_only=True):
    """Whose datasets."""

    experiment_ids: list[str] = []


class DatasetInput(msgspec.Struct):
    """A dataset that a run read."""

    tags: list[KeyValue] | UnsetType
    dataset: Dataset


class ModelInput(msgspec.Struct):
    """A model that a run used."""

    model_id: str


class ModelOutput(msgspec.Struct):
    """A model that a run made."""

    model_id: str
    step: int


class RunInputs(msgspec.Struct):
    """What a run read and used."""

    dataset_inputs: list[DatasetInput] | UnsetType = UNSET
    model_inputs: list[ModelInput] | UnsetType = UNSET


class RunOutputs(msgspec.Struct):
    """What a run made."""

    model_outputs: list[ModelOutput] | UnsetType = UNSET


class DatasetSummary(msgspec.Struct):
    """A dataset of an experiment."""

    experiment_id: str
    name: str
    digest: str
    context: str | UnsetType


NO_INPUTS, NO_OUTPUTS = RunInputs(), RunOutputs()


def run_inputs(links: RunLinks | None) -> RunInputs:
    """What a run read and used, as a reply has it."""
    if links is None:
        return NO_INPUTS
    datasets = [DatasetInput(key_values(each.tags.items()), _dataset(each.dataset)) for each in links.datasets]
    return RunInputs(datasets or UNSET, [ModelInput(model) for model in links.inputs] or UNSET)


def run_outputs(links: RunLinks | None) -> RunOutputs:
    """What a run made, as a reply has it."""
    if links is None:
        return NO_OUTPUTS
    return RunOutputs([ModelOutput(model, step) for model, step in links.outputs] or UNSET)


def routes(site: Site) -> Iterator[Route]:
    """The routes of this file."""

    def append(request: Request, run: str, links: Links) -> Response:
        item = Linked(request.params["workspace"], run, request.principal.id, links)
        site.store.writer.submit(lambda tx: site.appends.write_links(tx, item)).result()
        return wire.json({})

    def log_inputs(request: Request) -> Response:
        given = wire.decode(request, LogInputs)
        run = validation.run_id(wire.required("run_id", given.run_id))
        datasets = [inputs.dataset(_row(each.dataset), _tags(each.tags)) for each in given.datasets]
        return append(request, run, inputs.links(datasets, [model.model_id for model in given.models]))

    def log_outputs(request: Request) -> Response:
        given = wire.decode(request, LogOutputs)
        run, models = wire.required("run_id", given.run_id), wire.there("models", given.models)
        return append(request, run, inputs.links(outputs=[(model.model_id, model.step) for model in models]))

    async def log_model(request: Request) -> Response:
        given = wire.decode(request, LogModel)
        run = wire.required("run_id", given.run_id)
        model = logged_models.described(wire.required("model_json", given.model_json))
        by, workspace = wire.actor(site, request), request.params["workspace"]
        await site.store.writer.submitted(lambda tx: logged_models.add_to_history(tx, workspace, run, model, by=by))
        return wire.json({})

    def search_datasets(request: Request) -> Response:
        wanted = wire.decode(request, SearchDatasets)
        with site.store.read() as tx:
            found = inputs.summaries(tx, request.params["workspace"], wanted.experiment_ids)
        shown = [DatasetSummary(str(row.experiment), row.name, row.digest, row.context or UNSET) for row in found]
        return wire.page("dataset_summaries", shown, None)

    yield from wire.routes(
        "POST", "/mlflow/runs/log-inputs", "write", APPEND, log_inputs,
        summary="Log what a run read and used", request_type=LogInputs, limits=LARGE,
    )  # fmt: skip
    yield from wire.routes(
        "POST", "/mlflow/runs/outputs", "write", APPEND, log_outputs,
        summary="Log what a run made", request_type=LogOutputs,
    )  # fmt: skip
    yield from wire.routes(
        "POST", "/mlflow/runs/log-model", "write", CHANGE, log_model,
        summary="List a model in a tag of its run, as clients of former days do", request_type=LogModel,
    )  # fmt: skip
    # MLflow's own description of this route lacks a slash, so other clients look for it where that leads.
    for path, prefixes in (
        ("/mlflow/experiments/search-datasets", wire.PREFIXES),
        ("mlflow/experiments/search-datasets", wire.PREFIXES[::2]),
    ):
        yield from wire.routes(
            "POST", path, "list", wire.SHOWS, search_datasets,
            summary="Datasets that runs of some experiments read", request_type=SearchDatasets, prefixes=prefixes,
        )  # fmt: skip


def _row(given: Dataset) -> DatasetRow:
    return DatasetRow(
        given.name, given.digest, given.source_type, given.source, given.schema or None, given.profile or None
    )


def _dataset(row: DatasetRow) -> Dataset:
    return Dataset(
        name=row.name,
        digest=row.digest,
        source_type=row.source_type,
        source=row.source,
        schema=row.schema or UNSET,
        profile=row.profile or UNSET,
    )


def _tags(given: list[Pair]) -> list[Tag]:
    return [Tag(tag.key, tag.value) for tag in given]
