"""Logged models over MLflow's API."""

from collections.abc import Callable, Iterator

import msgspec
from msgspec import UNSET, UnsetType

from bedplate.api.mlflow import wire
from bedplate.api.mlflow.entities import KeyValue, key_values, number
from bedplate.api.mlflow.inputs import Pair
from bedplate.app.site import Site
from bedplate.errors import InputError
from bedplate.http import CHANGE, Request, Response, Route
from bedplate.store import Transaction
from bedplate.store.logged_models import PENDING, READY, UNSPECIFIED, UPLOAD_FAILED
from bedplate.store.model_search import DatasetFilter
from bedplate.tracking import logged_models
from bedplate.tracking.logged_models import Key, LoggedModelPage
from bedplate.tracking.validation import Param, Tag

STATUSES = {
    UNSPECIFIED: "LOGGED_MODEL_STATUS_UNSPECIFIED",
    PENDING: "LOGGED_MODEL_PENDING",
    READY: "LOGGED_MODEL_READY",
    UPLOAD_FAILED: "LOGGED_MODEL_UPLOAD_FAILED",
}


class CreateLoggedModel(msgspec.Struct, kw_only=True):
    """What a new model is to be."""

    experiment_id: str | None = None
    name: str = ""
    model_type: str = ""
    source_run_id: str = ""
    params: list[Pair] = []
    tags: list[Pair] = []


class GetLoggedModel(msgspec.Struct, kw_only=True):
    """Whether a deleted model is shown."""

    allow_deleted: str = "false"


class FinalizeLoggedModel(msgspec.Struct, kw_only=True):
    """How the upload of a model ended."""

    model_id: str | None = None
    status: str | int | None = None


class SetLoggedModelTags(msgspec.Struct, kw_only=True):
    """Tags of a model."""

    tags: list[Pair] = []


class LogLoggedModelParams(msgspec.Struct, kw_only=True):
    """Params of a model."""

    model_id: str | None = None
    params: list[Pair] = []


class Dataset(msgspec.Struct, kw_only=True):
    """A dataset that values were measured on."""

    dataset_name: str = ""
    dataset_digest: str = ""


class OrderBy(msgspec.Struct, kw_only=True):
    """One key to order by."""

    field_name: str = ""
    ascending: bool = True
    dataset_name: str = ""
    dataset_digest: str = ""


class SearchLoggedModels(msgspec.Struct, kw_only=True):
    """Which models, in which order."""

    experiment_ids: list[str] | None = None
    filter: str = ""
    datasets: list[Dataset] = []
    max_results: int = 50
    order_by: list[OrderBy] = []
    page_token: str = ""


class LoggedModelInfo(msgspec.Struct):
    """What a model is."""

    model_id: str
    experiment_id: str
    name: str
    creation_timestamp_ms: int
    last_updated_timestamp_ms: int
    artifact_uri: str
    status: str
    model_type: str
    source_run_id: str
    status_message: str | UnsetType
    tags: list[KeyValue] | UnsetType


class LoggedModelMetric(msgspec.Struct):
    """One value that a run logged about a model."""

    key: str
    value: float | str
    timestamp: int
    step: int
    dataset_name: str | UnsetType
    dataset_digest: str | UnsetType
    model_id: str
    run_id: str


class LoggedModelData(msgspec.Struct):
    """What was logged of a model."""

    params: list[KeyValue] | UnsetType
    metrics: list[LoggedModelMetric] | UnsetType


class LoggedModel(msgspec.Struct):
    """A model with all that belongs to it."""

    info: LoggedModelInfo
    data: LoggedModelData


def routes(site: Site) -> Iterator[Route]:
    """The routes of this file."""
    yield from _life(site)
    yield from _details(site)
    yield from _looking(site)


def _life(site: Site) -> Iterator[Route]:
    async def create(request: Request) -> Response:
        given = wire.decode(request, CreateLoggedModel)
        experiment = wire.required("experiment_id", given.experiment_id)
        by, workspace = wire.actor(site, request), request.params["workspace"]

        def work(tx: Transaction) -> LoggedModelPage:
            return logged_models.create(
                tx,
                workspace,
                experiment,
                by=by,
                name=given.name,
                model_type=given.model_type,
                source_run=given.source_run_id,
                params=_params(given.params),
                tags=_tags(given.tags),
            )

        return _one(await site.store.writer.submitted(work))

    async def finish(request: Request) -> Response:
        given = wire.decode(request, FinalizeLoggedModel)
        model = _named(request, given.model_id)
        status = logged_models.status(wire.there("status", None if given.status is None else str(given.status)))
        by, workspace = wire.actor(site, request), request.params["workspace"]
        page = await site.store.writer.submitted(lambda tx: logged_models.finish(tx, workspace, model, status, by=by))
        return _one(page)

    async def delete(request: Request) -> Response:
        by, workspace, model = wire.actor(site, request), request.params["workspace"], request.params["model"]
        await site.store.writer.submitted(lambda tx: logged_models.delete(tx, workspace, model, by=by))
        return wire.json({})

    yield from wire.routes(
        "POST", "/mlflow/logged-models", "write", CHANGE, create,
        summary="Begin a model", request_type=CreateLoggedModel,
    )  # fmt: skip
    yield from wire.routes(
        "PATCH", "/mlflow/logged-models/{model}", "write", CHANGE, finish,
        summary="Say how the upload of a model ended", request_type=FinalizeLoggedModel,
    )  # fmt: skip
    yield from wire.routes("DELETE", "/mlflow/logged-models/{model}", "write", CHANGE, delete, summary="Delete a model")


def _details(site: Site) -> Iterator[Route]:
    async def change(request: Request, work: Callable[[Transaction], None]) -> Response:
        await site.store.writer.submitted(work)
        return wire.json({})

    async def set_tags(request: Request) -> Response:
        tags = _tags(wire.decode(request, SetLoggedModelTags).tags)
        by, workspace, model = wire.actor(site, request), request.params["workspace"], request.params["model"]
        return await change(request, lambda tx: logged_models.set_tags(tx, workspace, model, tags, by=by))

    async def delete_tag(request: Request) -> Response:
        by, workspace, model = wire.actor(site, request), request.params["workspace"], request.params["model"]
        key = request.params["key"]
        return await change(request, lambda tx: logged_models.delete_tag(tx, workspace, model, key, by=by))

    async def log_params(request: Request) -> Response:
        given = wire.decode(request, LogLoggedModelParams)
        model, params = _named(request, given.model_id), _params(given.params)
        by, workspace = wire.actor(site, request), request.params["workspace"]
        return await change(request, lambda tx: logged_models.log_params(tx, workspace, model, params, by=by))

    yield from wire.routes(
        "PATCH", "/mlflow/logged-models/{model}/tags", "write", CHANGE, set_tags,
        summary="Tag a model", request_type=SetLoggedModelTags,
    )  # fmt: skip
    yield from wire.routes(
        "DELETE", "/mlflow/logged-models/{model}/tags/{key:path}", "write", CHANGE, delete_tag,
        summary="Take a tag from a model",
    )  # fmt: skip
    yield from wire.routes(
        "POST", "/mlflow/logged-models/{model}/params", "write", CHANGE, log_params,
        summary="Log params of a model", request_type=LogLoggedModelParams,
    )  # fmt: skip


def _looking(site: Site) -> Iterator[Route]:
    def get(request: Request) -> Response:
        deleted_too = wire.decode(request, GetLoggedModel).allow_deleted.lower() == "true"
        workspace, model = request.params["workspace"], request.params["model"]
        with site.store.read() as tx:
            return _one(logged_models.get(tx, workspace, model, allow_deleted=deleted_too))

    def search(request: Request) -> Response:
        wanted = wire.decode(request, SearchLoggedModels)
        with site.store.read() as tx:
            page = logged_models.search(
                tx,
                request.params["workspace"],
                wire.there("experiment_ids", wanted.experiment_ids),
                filter=wanted.filter,
                datasets=[DatasetFilter(each.dataset_name, each.dataset_digest) for each in wanted.datasets],
                order_by=[
                    Key(each.field_name, each.ascending, each.dataset_name, each.dataset_digest)
                    for each in wanted.order_by
                ],
                max_results=wanted.max_results,
                page_token=wanted.page_token or None,
            )
        return wire.page("models", _models(page), page.next_page_token)

    yield from wire.routes(
        "POST", "/mlflow/logged-models/search", "list", wire.SHOWS, search,
        summary="Models that match", request_type=SearchLoggedModels,
    )  # fmt: skip
    yield from wire.routes(
        "GET", "/mlflow/logged-models/{model}", "read", wire.SHOWS, get,
        summary="One model", request_type=GetLoggedModel,
    )  # fmt: skip


def _named(request: Request, given: str | None) -> str:
    """The model of the path, which the body has to name as well."""
    model: str = request.params["model"]
    if wire.required("model_id", given) != model:
        raise InputError(f"the body names the model {str(given)[:100]!r}, the path {model!r}", where="model_id")
    return model


def _params(given: list[Pair]) -> list[Param]:
    return [Param(each.key, each.value) for each in given]


def _tags(given: list[Pair]) -> list[Tag]:
    return [Tag(each.key, each.value) for each in given]


def _one(page: LoggedModelPage) -> Response:
    return wire.json({"model": _models(page)[0]})


def _models(page: LoggedModelPage) -> list[LoggedModel]:
    return [
        LoggedModel(
            LoggedModelInfo(
                row.id,
                str(row.experiment),
                row.name,
                row.created,
                row.updated,
                row.artifact_location,
                STATUSES[row.status],
                row.model_type,
                row.source_run,
                UNSET if row.status_message is None else row.status_message,
                key_values(page.tags.get(row.key, ())),
            ),
            LoggedModelData(
                key_values(page.params.get(row.key, ())),
                [
                    LoggedModelMetric(
                        each.key,
                        number(each.value),
                        each.timestamp,
                        each.step,
                        each.dataset_name or UNSET,
                        each.dataset_digest or UNSET,
                        row.id,
                        each.run,
                    )
                    for each in page.metrics.get(row.key, ())
                ]
                or UNSET,
            ),
        )
        for row in page.models
    ]
