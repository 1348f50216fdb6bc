"""Histories of metrics over MLflow's API."""

from collections.abc import Iterator

import msgspec

from bedplate.api.mlflow import entities, wire
from bedplate.app.site import Site
from bedplate.errors import InputError
from bedplate.http import Request, Response, Route
from bedplate.tracking import metrics

MOST_RUNS = 100
MOST_POINTS = 25_000
MOST_PER_RUN = 2_500


class GetMetricHistory(msgspec.Struct, kw_only=True):
    """Which metric of which run, and which page of it."""

    run_id: str | None = None
    run_uuid: str | None = None
    metric_key: str | None = None
    max_results: int | None = None
    page_token: str = ""


class GetMetricHistoryBulk(msgspec.Struct, kw_only=True):
    """Which metric of which runs."""

    run_id: list[str] = []
    metric_key: str | None = None
    max_results: int = MOST_POINTS


class GetMetricHistoryBulkInterval(msgspec.Struct, kw_only=True):
    """Which metric of which runs, between which steps, and at most how many values of each run."""

    run_ids: list[str] = []
    metric_key: str | None = None
    start_step: int | None = None
    end_step: int | None = None
    max_results: int = MOST_PER_RUN


def routes(site: Site) -> Iterator[Route]:
    """The routes of this file."""

    def history(request: Request) -> Response:
        wanted = wire.decode(request, GetMetricHistory)
        run, key = wire.run_id(wanted), wire.required("metric_key", wanted.metric_key)
        with site.store.read() as tx:
            found = metrics.history(
                tx,
                request.params["workspace"],
                run,
                key,
                max_results=wanted.max_results,
                page_token=wanted.page_token or None,
            )
        shown = [
            entities.Metric(key, "NaN" if is_nan else entities.number(value), timestamp, step)
            for timestamp, step, value, is_nan in found.points
        ]
        return wire.page("metrics", shown, found.next_page_token)

    def bulk(request: Request) -> Response:
        wanted = wire.decode(request, GetMetricHistoryBulk)
        if not wanted.run_id:
            raise InputError("at least one run_id is needed", where="?run_id=")
        if len(wanted.run_id) > MOST_RUNS:
            raise InputError(f"{len(wanted.run_id)} runs are too many, at most {MOST_RUNS} are possible")
        if wanted.metric_key is None:
            raise InputError("a metric_key is needed", where="?metric_key=")
        with site.store.read() as tx:
            found = metrics.histories(
                tx,
                request.params["workspace"],
                wanted.run_id,
                wanted.metric_key,
                max_results=max(0, min(wanted.max_results, MOST_POINTS)),
            )
        return wire.json({"metrics": [_of_run(wanted.metric_key, run, point) for run, point in found]})

    def interval(request: Request) -> Response:
        wanted = wire.decode(request, GetMetricHistoryBulkInterval)
        wire.required("run_ids", wanted.run_ids)
        key = wire.required("metric_key", wanted.metric_key)
        if len(wanted.run_ids) > MOST_RUNS:
            raise InputError(f"{len(wanted.run_ids)} runs are too many, at most {MOST_RUNS} are possible")
        if not 1 <= wanted.max_results <= MOST_PER_RUN:
            raise InputError(f"max_results must be from 1 to {MOST_PER_RUN}", where="max_results")
        steps = None
        if wanted.start_step is not None or wanted.end_step is not None:
            if wanted.start_step is None or wanted.end_step is None:
                raise InputError("start_step and end_step go together", fix="give both or neither")
            if wanted.start_step > wanted.end_step:
                raise InputError("end_step lies before start_step", where="end_step")
            steps = (wanted.start_step, wanted.end_step)
        with site.store.read() as tx:
            found = metrics.sampled(
                tx, request.params["workspace"], wanted.run_ids, key, steps=steps, most=wanted.max_results
            )
        shown = [_of_run(key, run, point) for run, point in found]
        return wire.json({"metrics": shown} if shown else {})

    yield from wire.routes(
        "GET", "/mlflow/metrics/get-history", "read", wire.SHOWS, history,
        summary="All values of one metric of a run", request_type=GetMetricHistory,
    )  # fmt: skip
    yield from wire.routes(
        "GET", "/mlflow/metrics/get-history-bulk", "read", wire.SHOWS, bulk,
        summary="All values of one metric of several runs", request_type=GetMetricHistoryBulk,
    )  # fmt: skip
    yield from wire.routes(
        "GET", "/mlflow/metrics/get-history-bulk-interval", "read", wire.SHOWS, interval,
        summary="Some values of one metric of several runs, evenly over its steps",
        request_type=GetMetricHistoryBulkInterval,
    )  # fmt: skip


def _of_run(key: str, run: str, point: tuple[int, int, float, bool]) -> entities.MetricOfRun:
    timestamp, step, value, is_nan = point
    return entities.MetricOfRun(key, "NaN" if is_nan else entities.number(value), timestamp, step, run)
