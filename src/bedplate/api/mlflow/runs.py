"""Runs over MLflow's API: begun, logged to, searched, ended.

Calls that a training makes thousands of times (a metric, a batch, a new run) stay in the event loop and wait for the
writer's next commit; those that look run in a thread.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec

from bedplate.api.mlflow import entities, wire
from bedplate.api.mlflow.entities import KeyValue
from bedplate.api.mlflow.inputs import run_inputs, run_outputs
from bedplate.app.site import Site
from bedplate.errors import InputError
from bedplate.http import APPEND, CHANGE, Request, Response, Route
from bedplate.store import Transaction
from bedplate.store.runs import RunRow, RunStatus
from bedplate.tracking import inputs, logged_models, runs, validation
from bedplate.tracking.appends import Appended
from bedplate.tracking.inputs import RunLinks
from bedplate.tracking.logged_models import Measured
from bedplate.tracking.runs import RunPage
from bedplate.tracking.validation import Metric, Param, Tag

STATUSES: tuple[RunStatus, ...] = ("RUNNING", "SCHEDULED", "FINISHED", "FAILED", "KILLED")
"""In the order of MLflow's numbers for them, from 1."""

LOG = wire.SMALL


class CreateRun(msgspec.Struct, kw_only=True):
    """What a new run is to be."""

    experiment_id: str = ""
    user_id: str = ""
    run_name: str = ""
    start_time: int = 0
    tags: list[KeyValue] = []


class RunId(msgspec.Struct, kw_only=True):
    """Which run."""

    run_id: str | None = None
    run_uuid: str | None = None


class UpdateRun(msgspec.Struct, kw_only=True):
    """What is to change of a run."""

    run_id: str | None = None
    run_uuid: str | None = None
    status: str | int | None = None
    end_time: int | None = None
    run_name: str = ""


class LogMetric(msgspec.Struct, kw_only=True):
    """One value of a metric."""

    run_id: str | None = None
    run_uuid: str | None = None
    key: str | None = None
    value: float | None = None
    timestamp: int | None = None
    step: int = 0
    model_id: str = ""
    dataset_name: str = ""
    dataset_digest: str = ""


class LogParam(msgspec.Struct, kw_only=True):
    """One param."""

    run_id: str | None = None
    run_uuid: str | None = None
    key: str | None = None
    value: str = ""


class SetTag(msgspec.Struct, kw_only=True):
    """A tag of a run."""

    run_id: str | None = None
    run_uuid: str | None = None
    key: str | None = None
    value: str = ""


class DeleteTag(msgspec.Struct, kw_only=True):
    """A tag of a run."""

    run_id: str | None = None
    key: str | None = None


class BatchMetric(msgspec.Struct, kw_only=True):
    """One value of a metric, within a batch."""

    key: str | None = None
    value: float | None = None
    timestamp: int | None = None
    step: int = 0
    model_id: str = ""
    dataset_name: str = ""
    dataset_digest: str = ""


class BatchPair(msgspec.Struct, kw_only=True):
    """A param or a tag, within a batch."""

    key: str | None = None
    value: str = ""


class LogBatch(msgspec.Struct, kw_only=True):
    """Metrics, params and tags of one run."""

    run_id: str | None = None
    metrics: Sequence[BatchMetric] = ()
    params: Sequence[BatchPair] = ()
    tags: Sequence[BatchPair] = ()


class _PlainLogMetric(LogMetric, forbid_unknown_fields=True):
    pass


class _PlainMetric(BatchMetric, forbid_unknown_fields=True):
    pass


class _PlainPair(BatchPair, forbid_unknown_fields=True):
    pass


class _PlainLogBatch(LogBatch, forbid_unknown_fields=True):
    metrics: Sequence[_PlainMetric] = ()
    params: Sequence[_PlainPair] = ()
    tags: Sequence[_PlainPair] = ()


class SearchRuns(msgspec.Struct, kw_only=True):
    """Which runs, in which order."""

    experiment_ids: list[str] = []
    filter: str = ""
    run_view_type: str | int | None = None
    max_results: int = 1000
    order_by: list[str] = []
    page_token: str = ""


# With fields that are ours alone nothing can nest deeper than the type does, so its depth need not be looked at.
_log_metric = msgspec.json.Decoder(_PlainLogMetric).decode
_log_batch = msgspec.json.Decoder(_PlainLogBatch).decode
_DONE = b"{}"


def routes(site: Site) -> Iterator[Route]:
    """The routes of this file."""
    yield from _life(site)
    yield from _logging(site)
    yield from _looking(site)


def _life(site: Site) -> Iterator[Route]:
    async def create(request: Request) -> Response:
        wanted = wire.decode(request, CreateRun)
        tags = [Tag(tag.key, tag.value) for tag in wanted.tags]
        by = wire.actor(site, request)

        def work(tx: Transaction) -> RunPage:
            return runs.create(
                tx,
                request.params["workspace"],
                wanted.experiment_id,
                by=by,
                user_id=wanted.user_id,
                name=wanted.run_name,
                started=wanted.start_time,
                tags=tags,
            )

        page = await site.store.writer.submitted(work, small=True)
        row = page.runs[0]
        data = entities.run_data((), (), page.tags[row.key])
        return wire.json({"run": entities.Run(entities.run_info(row), data, {})})

    async def update(request: Request) -> Response:
        wanted = wire.decode(request, UpdateRun)
        run, status = wire.run_id(wanted), _status(wanted.status)
        by = wire.actor(site, request)

        def work(tx: Transaction) -> RunRow:
            return runs.update(
                tx,
                request.params["workspace"],
                run,
                by=by,
                status=status,
                ended=wanted.end_time,
                name=wanted.run_name,
            )

        row = await site.appends.changing(work)
        return wire.json({"run_info": entities.run_info(row)})

    def mark(change: Callable[..., None]) -> Any:
        async def handler(request: Request) -> Response:
            run = wire.run_id(wire.decode(request, RunId))
            by = wire.actor(site, request)
            await site.appends.changing(lambda tx: change(tx, request.params["workspace"], run, by=by))
            return wire.json({})

        return handler

    async def set_tag(request: Request) -> Response:
        wanted = wire.decode(request, SetTag)
        run, tag = wire.run_id(wanted), Tag(wire.required("key", wanted.key), wanted.value)
        by = wire.actor(site, request)
        await site.appends.changing(lambda tx: runs.set_tag(tx, request.params["workspace"], run, tag, by=by))
        return wire.json({})

    async def delete_tag(request: Request) -> Response:
        wanted = wire.decode(request, DeleteTag)
        run, key = wire.required("run_id", wanted.run_id), wire.required("key", wanted.key)
        by = wire.actor(site, request)
        await site.store.writer.submitted(lambda tx: runs.delete_tag(tx, request.params["workspace"], run, key, by=by))
        return wire.json({})

    for path, handler, message, summary in (
        ("create", create, CreateRun, "Begin a run"),
        ("update", update, UpdateRun, "Change status, end or name of a run"),
        ("delete", mark(runs.delete), RunId, "Delete a run"),
        ("restore", mark(runs.restore), RunId, "Restore a run"),
        ("set-tag", set_tag, SetTag, "Tag a run"),
        ("delete-tag", delete_tag, DeleteTag, "Take a tag from a run"),
    ):
        yield from wire.routes(
            "POST", f"/mlflow/runs/{path}", "write", CHANGE, handler, summary=summary, request_type=message
        )


def _logging(site: Site) -> Iterator[Route]:
    async def log_metric(request: Request) -> Response:
        given = _quick(request, _log_metric, LogMetric)
        metric = Metric(
            wire.required("key", given.key),
            wire.required("value", given.value),
            wire.required("timestamp", given.timestamp),
            given.step,
        )
        run = wire.run_id(given)
        validation.metric(metric)
        item = Appended(
            request.params["workspace"],
            run,
            request.principal.id,
            metrics=(metric,),
            measured=_measured((metric,), (given,)),
        )
        await site.appends.append(item)
        return Response(headers=[wire.JSON], body=_DONE)

    async def log_param(request: Request) -> Response:
        given = wire.decode(request, LogParam)
        run = wire.run_id(given)
        param = validation.param(Param(wire.required("key", given.key), given.value))
        await site.appends.append(Appended(request.params["workspace"], run, request.principal.id, params=(param,)))
        return Response(headers=[wire.JSON], body=_DONE)

    async def log_batch(request: Request) -> Response:
        given = _quick(request, _log_batch, LogBatch)
        run = wire.required("run_id", given.run_id)
        for index, each in enumerate(given.metrics):
            if each.key is None or each.value is None or each.timestamp is None:
                for name in ("key", "value", "timestamp"):
                    wire.required(f"metrics[{index}].{name}", getattr(each, name))
        batch = validation.batch(
            [Metric(each.key, each.value, each.timestamp, each.step) for each in given.metrics],
            [Param(wire.required(f"params[{i}].key", each.key), each.value) for i, each in enumerate(given.params)],
            [Tag(wire.required(f"tags[{i}].key", each.key), each.value) for i, each in enumerate(given.tags)],
        )
        item = Appended(
            request.params["workspace"],
            run,
            request.principal.id,
            metrics=batch.metrics,
            params=batch.params,
            measured=_measured(batch.metrics, given.metrics),
        )
        if batch.tags:
            by = wire.actor(site, request)

            def work(tx: Transaction) -> None:
                (error,) = site.appends.write(tx, [item])
                if error is not None:
                    raise error
                runs.set_tags(tx, item.workspace, runs.active(tx, item.workspace, run), batch.tags, by=by)

            await site.appends.changing(work)
        else:
            await site.appends.append(item)
        return Response(headers=[wire.JSON], body=_DONE)

    for path, handler, message, summary in (
        ("log-metric", log_metric, LogMetric, "Log one value of a metric"),
        ("log-parameter", log_param, LogParam, "Log one param"),
        ("log-batch", log_batch, LogBatch, "Log metrics, params and tags together"),
    ):
        yield from wire.routes(
            "POST", f"/mlflow/runs/{path}", "write", APPEND, handler, summary=summary, request_type=message, limits=LOG
        )


def _looking(site: Site) -> Iterator[Route]:
    def get(request: Request) -> Response:
        run = wire.run_id(wire.decode(request, RunId))
        with site.store.read() as tx:
            page = runs.get(tx, request.params["workspace"], run)
            links = inputs.of_runs(tx, [page.runs[0].key])
        return wire.json({"run": _runs(page, links)[0]})

    def search(request: Request) -> Response:
        wanted = wire.decode(request, SearchRuns)
        with site.store.read() as tx:
            page = runs.search(
                tx,
                request.params["workspace"],
                wanted.experiment_ids,
                filter=wanted.filter,
                order_by=wanted.order_by,
                view=wire.view(wanted.run_view_type),
                max_results=wanted.max_results,
                page_token=wanted.page_token or None,
            )
            links = inputs.of_runs(tx, [row.key for row in page.runs], models_used=False)
        return wire.page("runs", _runs(page, links), page.next_page_token)

    yield from wire.routes("GET", "/mlflow/runs/get", "read", wire.SHOWS, get, summary="One run", request_type=RunId)
    for method in ("POST", "GET"):
        yield from wire.routes(
            method, "/mlflow/runs/search", "list", wire.SHOWS, search,
            summary="Runs that match", request_type=SearchRuns,
        )  # fmt: skip


def _quick(request: Request, decode: Callable[[bytes], Any], of: type[Any]) -> Any:
    """The message of a call that comes often: read in one go where it is as it should be, else with every allowance."""
    wire.demand_json(request)
    try:
        return decode(request.body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return wire.decode(request, of)


def _measured(metrics: Sequence[Metric], given: Sequence[LogMetric | BatchMetric]) -> Sequence[Measured]:
    """Those of the metrics that are about models. Most calls have none."""
    told = [
        logged_models.measured(metric, each.model_id, each.dataset_name, each.dataset_digest)
        for metric, each in zip(metrics, given, strict=True)
        if each.model_id or each.dataset_name or each.dataset_digest
    ]
    return [each for each in told if each is not None]


def _runs(page: RunPage, links: dict[int, RunLinks]) -> list[entities.Run]:
    metrics, params, tags = page.metrics, page.params, page.tags
    return [
        entities.Run(
            entities.run_info(row),
            entities.run_data(metrics.get(row.key, ()), params.get(row.key, ()), tags.get(row.key, ())),
            run_inputs(links.get(row.key)),
            run_outputs(links.get(row.key)),
        )
        for row in page.runs
    ]


def _status(given: str | int | None) -> RunStatus | None:
    if given is None:
        return None
    for index, status in enumerate(STATUSES, 1):
        if given in (status, index, str(index)):
            return status
    raise InputError(f"{given!r} is no status of a run", where="status", fix=f"use one of {', '.join(STATUSES)}")
