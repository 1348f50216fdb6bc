"""Experiments over MLflow's API."""

from collections.abc import Iterator

import msgspec

from bedplate.api.mlflow import entities, wire
from bedplate.api.mlflow.entities import KeyValue
from bedplate.app.site import Site
from bedplate.http import CHANGE, Request, Response, Route
from bedplate.tracking import experiments
from bedplate.tracking.experiments import Experiment
from bedplate.tracking.validation import Tag

BASE = "/mlflow/experiments"


class CreateExperiment(msgspec.Struct, kw_only=True):
    """What a new experiment is to be."""

    name: str | None = None
    artifact_location: str = ""
    tags: list[KeyValue] = []


class ExperimentId(msgspec.Struct, kw_only=True):
    """Which experiment."""

    experiment_id: str | None = None


class ExperimentName(msgspec.Struct, kw_only=True):
    """Which experiment."""

    experiment_name: str | None = None


class UpdateExperiment(msgspec.Struct, kw_only=True):
    """What an experiment is to be called."""

    experiment_id: str | None = None
    new_name: str | None = None


class SearchExperiments(msgspec.Struct, kw_only=True):
    """Which experiments, in which order."""

    max_results: int | None = None
    page_token: str = ""
    filter: str = ""
    order_by: list[str] = []
    view_type: str | int | None = None


class SetExperimentTag(msgspec.Struct, kw_only=True):
    """A tag of an experiment."""

    experiment_id: str | None = None
    key: str | None = None
    value: str = ""


class DeleteExperimentTag(msgspec.Struct, kw_only=True):
    """A tag of an experiment."""

    experiment_id: str | None = None
    key: str | None = None


def routes(site: Site) -> Iterator[Route]:
    """The routes of this file."""
    yield from _changing(site)
    yield from _tagging(site)
    yield from _looking(site)


def _changing(site: Site) -> Iterator[Route]:
    async def create(request: Request) -> Response:
        wanted = wire.decode(request, CreateExperiment)
        name = wire.required("name", wanted.name)
        tags = [Tag(tag.key, tag.value) for tag in wanted.tags]
        made = await site.store.writer.submitted(
            lambda tx: experiments.create(
                tx,
                request.params["workspace"],
                name,
                by=wire.actor(site, request),
                artifact_location=wanted.artifact_location,
                tags=tags,
            )
        )
        return wire.json({"experiment_id": str(made.id)})

    async def update(request: Request) -> Response:
        wanted = wire.decode(request, UpdateExperiment)
        experiment = wire.required("experiment_id", wanted.experiment_id)
        name = wire.required("new_name", wanted.new_name)
        by = wire.actor(site, request)
        await site.store.writer.submitted(
            lambda tx: experiments.rename(tx, request.params["workspace"], experiment, name, by=by)
        )
        return wire.json({})

    async def delete(request: Request) -> Response:
        experiment = wire.required("experiment_id", wire.decode(request, ExperimentId).experiment_id)
        by = wire.actor(site, request)
        await site.appends.changing(lambda tx: experiments.delete(tx, request.params["workspace"], experiment, by=by))
        return wire.json({})

    async def restore(request: Request) -> Response:
        experiment = wire.required("experiment_id", wire.decode(request, ExperimentId).experiment_id)
        by = wire.actor(site, request)
        await site.appends.changing(lambda tx: experiments.restore(tx, request.params["workspace"], experiment, by=by))
        return wire.json({})

    for path, handler, message, summary in (
        ("create", create, CreateExperiment, "Make an experiment"),
        ("update", update, UpdateExperiment, "Rename an experiment"),
        ("delete", delete, ExperimentId, "Delete an experiment and its runs"),
        ("restore", restore, ExperimentId, "Restore an experiment and its runs"),
    ):
        yield from wire.routes(
            "POST", f"{BASE}/{path}", "write", CHANGE, handler, summary=summary, request_type=message
        )


def _tagging(site: Site) -> Iterator[Route]:
    async def set_tag(request: Request) -> Response:
        wanted = wire.decode(request, SetExperimentTag)
        experiment = wire.required("experiment_id", wanted.experiment_id)
        tag = Tag(wire.required("key", wanted.key), wanted.value)
        by = wire.actor(site, request)
        await site.store.writer.submitted(
            lambda tx: experiments.set_tag(tx, request.params["workspace"], experiment, tag, by=by)
        )
        return wire.json({})

    async def delete_tag(request: Request) -> Response:
        wanted = wire.decode(request, DeleteExperimentTag)
        experiment, key = wire.required("experiment_id", wanted.experiment_id), wire.required("key", wanted.key)
        by = wire.actor(site, request)
        await site.store.writer.submitted(
            lambda tx: experiments.delete_tag(tx, request.params["workspace"], experiment, key, by=by)
        )
        return wire.json({})

    for path, handler, message, summary in (
        ("set-experiment-tag", set_tag, SetExperimentTag, "Tag an experiment"),
        ("delete-experiment-tag", delete_tag, DeleteExperimentTag, "Take a tag from an experiment"),
    ):
        yield from wire.routes(
            "POST", f"{BASE}/{path}", "write", CHANGE, handler, summary=summary, request_type=message
        )


def _looking(site: Site) -> Iterator[Route]:
    def get(request: Request) -> Response:
        wanted = wire.required("experiment_id", wire.decode(request, ExperimentId).experiment_id)
        with site.store.read() as tx:
            found = experiments.get(tx, request.params["workspace"], wanted)
        return wire.json({"experiment": _experiment(found)})

    def get_by_name(request: Request) -> Response:
        wanted = wire.required("experiment_name", wire.decode(request, ExperimentName).experiment_name)
        with site.store.read() as tx:
            found = experiments.get_by_name(tx, request.params["workspace"], wanted)
        return wire.json({"experiment": _experiment(found)})

    def search(request: Request) -> Response:
        wanted = wire.decode(request, SearchExperiments)
        with site.store.read() as tx:
            page = experiments.search(
                tx,
                request.params["workspace"],
                filter=wanted.filter,
                order_by=wanted.order_by,
                view=wire.view(wanted.view_type),
                max_results=wire.required("max_results", wanted.max_results),
                page_token=wanted.page_token or None,
            )
        return wire.page("experiments", [_experiment(found) for found in page.experiments], page.next_page_token)

    yield from wire.routes(
        "GET", f"{BASE}/get", "read", wire.SHOWS, get, summary="One experiment", request_type=ExperimentId
    )
    yield from wire.routes(
        "GET", f"{BASE}/get-by-name", "read", wire.SHOWS, get_by_name,
        summary="One experiment, by its name", request_type=ExperimentName,
    )  # fmt: skip
    for method in ("POST", "GET"):
        yield from wire.routes(
            method, f"{BASE}/search", "list", wire.SHOWS, search,
            summary="Experiments that match", request_type=SearchExperiments,
        )  # fmt: skip


def _experiment(found: Experiment) -> entities.Experiment:
    return entities.experiment(found.row, found.tags.items())
