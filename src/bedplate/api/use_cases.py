"""Use cases, their plan, runs and evidence; running one; the state of the home."""

from collections.abc import Iterator
from typing import Any

import msgspec

from bedplate.app import queries, session
from bedplate.app.read_models import PlanReport, RunSummary, Status, StopReport, Trace, UseCasePage, UseCaseStatus
from bedplate.app.site import Site
from bedplate.errors import InputError
from bedplate.http import CHANGE, READ, Limits, Request, Response, Route, fixed, from_path, unaudited
from bedplate.ids import Digest
from bedplate.records import Fact

SMALL = Limits(body=16 << 10, depth=4, receipt=5.0, deadline=30.0)
LONG = Limits(body=64 * 1024, depth=8, receipt=10.0, deadline=3600.0)
LOOKS = unaudited("shows metadata and evidence, no row of data")


class RunRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to run: the folder the use case was last run from, one stage if ``only`` names it."""

    only: str | None = None


def at_endpoint(site: Site, request: Request, operation: str, **arguments: Any) -> Any:
    """Carry out an operation about the endpoint that a path names, for whoever asks; it has the name of its use case.

    Raises:
        BedplateError: whatever the operation raises.
    """
    return site.change(operation, session.presented(request), endpoint=request.params["name"], **arguments)


def routes(site: Site) -> Iterator[Route]:
    """The routes of this file."""
    home, one = fixed("Home", "home"), from_path("UseCase", "name")

    def health(request: Request) -> Response:
        return Response.json({"ready": True})

    def status(request: Request) -> Response:
        return Response.json(queries.status(site.settings, site.live()))

    def use_cases(request: Request) -> Response:
        return Response.json(site.visible(request.principal))

    def use_case(request: Request) -> Response:
        return Response.json(queries.use_case_page(site.store, request.params["name"], request.principal, site.live()))

    def plan(request: Request) -> Response:
        return Response.json(queries.plan(site.store, request.params["name"]))

    def run(request: Request) -> Response:
        wanted = request.json(RunRequest)
        with site.store.read() as tx:
            row = tx.use_cases.get(request.params["name"])
        path = f"{row.folder}/{row.file}"
        return Response.json(site.change("run", session.presented(request), path=path, only=wanted.only))

    def evidence(request: Request) -> Response:
        return Response.json(site.evidence(request.principal, Digest(request.params["digest"])))

    def trace(request: Request) -> Response:
        identifier = request.params["prediction"]
        if not identifier.isprintable():
            raise InputError("this is no prediction id")
        return Response.json(site.change("trace", session.presented(request), prediction_id=identifier))

    def stop(request: Request) -> Response:
        return Response.json(site.change("stop", session.presented(request)))

    yield Route(
        "GET", "/api/v1/health", "read", home, unaudited("says only that the server answers"), SMALL, health,
        public=True, name="health", summary="Whether the server answers",
    )  # fmt: skip
    yield Route(
        "GET", "/api/v1/status", "read", home, LOOKS, SMALL, status,
        name="status", summary="What this home is doing now", response_type=Status,
    )  # fmt: skip
    yield Route(
        "GET", "/api/v1/use-cases", "list", home, LOOKS, SMALL, use_cases,
        name="list_use_cases", summary="The use cases you may read", response_type=list[UseCaseStatus],
    )  # fmt: skip
    yield Route(
        "GET", "/api/v1/use-cases/{name}", "read", one, LOOKS, SMALL, use_case,
        name="get_use_case", summary="One use case with its evidence", response_type=UseCasePage,
    )  # fmt: skip
    yield Route(
        "GET", "/api/v1/use-cases/{name}/plan", "read", one, LOOKS, SMALL, plan,
        name="get_plan", summary="The latest plan of a use case", response_type=PlanReport,
    )  # fmt: skip
    yield Route(
        "POST", "/api/v1/use-cases/{name}/runs", "run", one, CHANGE, LONG, run,
        name="run", summary="Run a use case, or one stage of it", request_type=RunRequest, response_type=RunSummary,
    )  # fmt: skip
    yield Route(
        "GET", "/api/v1/evidence/{digest:digest}", "list", home, LOOKS, SMALL, evidence,
        name="get_evidence", summary="One fact by its digest", response_type=Fact,
    )  # fmt: skip
    yield Route(
        "GET", "/api/v1/predictions/{prediction}/trace", "list", home, READ, SMALL, trace,
        name="trace", summary="From a prediction to its objective", response_type=Trace,
    )  # fmt: skip
    yield Route(
        "POST", "/api/v1/stop", "operate", home, CHANGE, SMALL, stop,
        name="stop", summary="Stop the server and its endpoints", response_type=StopReport,
    )  # fmt: skip
