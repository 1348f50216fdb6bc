"""Registered models over our own API: what MLflow's has no words for. History, what was live, approvers, conversion."""

from collections.abc import Iterator
from typing import Annotated, Any

import msgspec

from bedplate.api.mlflow.wire import WORKSPACE
from bedplate.api.use_cases import SMALL
from bedplate.app import model_views
from bedplate.app.model_reports import (
    AliasMove,
    ApproversSet,
    Conversion,
    HistoryPage,
    LiveView,
    ModelList,
    ModelView,
)
from bedplate.app.site import Site
from bedplate.errors import InputError
from bedplate.http import CHANGE, Limits, Request, Response, Route, from_path, unaudited
from bedplate.release import checks
from bedplate.release.changes import UNSAID

SHOWS = unaudited("shows names, numbers and what happened to them, no row of a table")
CONVERTS = Limits(body=1 << 12, depth=4, receipt=10.0, deadline=900.0)
"""Two limited processes have five minutes each."""


class PointAlias(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The version that an alias is to point to. ``expected`` is the one that it must point to now; null for none."""

    version: Annotated[int, msgspec.Meta(ge=1)]
    expected: Annotated[int, msgspec.Meta(ge=1)] | msgspec.UnsetType | None = msgspec.UNSET


class MoveVersion(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The stage that a version is to move to. ``expected`` is the one that it must be in now."""

    stage: Annotated[str, msgspec.Meta(min_length=1, max_length=20)]
    archive_existing: bool = False
    expected: Annotated[str, msgspec.Meta(min_length=1, max_length=20)] | None = None


class NameApprovers(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who must agree to versions of a model in an environment, as ``usecase.yaml`` says it; empty for nobody."""

    environment: Annotated[str, msgspec.Meta(min_length=1, max_length=100)]
    rule: Annotated[str, msgspec.Meta(max_length=1000)]


def routes(site: Site) -> Iterator[Route]:
    """The routes of this file."""
    yield from _looks(site)
    yield from _changes(site)


def _looks(site: Site) -> Iterator[Route]:

    def listed(request: Request) -> Response:
        with site.store.read() as tx:
            return Response.json(model_views.models(tx, request.params["workspace"], after=request.query.get("after")))

    def one(request: Request) -> Response:
        with site.store.read() as tx:
            return Response.json(model_views.model(tx, request.params["workspace"], request.params["name"]))

    def history(request: Request) -> Response:
        number, before = _number(request, "version"), _number(request, "before")
        with site.store.read() as tx:
            page = model_views.history(tx, request.params["workspace"], request.params["name"], number, before=before)
        return Response.json(page)

    def live(request: Request) -> Response:
        query = request.query
        by, value = model_views.which(query.get("stage"), query.get("alias"), query.get("environment"))
        at = model_views.parse_time(query["at"]) if "at" in query else None
        with site.store.read() as tx:
            found = model_views.live(tx, request.params["workspace"], request.params["name"], at, by, value)
        return Response.json(found)

    base = "/api/v1/models"
    yield _route("GET", base, "list", listed, "Registered models, by name", response=ModelList)
    yield _route("GET", f"{base}/{{name}}", "read", one, "One model with its newest versions", response=ModelView)
    yield _route(
        "GET", f"{base}/{{name}}/history", "read", history, "What happened to a model, newest first",
        response=HistoryPage,
    )  # fmt: skip
    yield _route("GET", f"{base}/{{name}}/live", "read", live, "Which version was live at a moment", response=LiveView)


def _changes(site: Site) -> Iterator[Route]:
    def point(request: Request) -> Response:
        wanted = request.json(PointAlias)
        expected = UNSAID if isinstance(wanted.expected, msgspec.UnsetType) else wanted.expected
        workspace, name, alias = (request.params[key] for key in ("workspace", "name", "alias"))
        moved = site.models.set_alias(request.principal, workspace, name, alias, wanted.version, expected=expected)
        return Response.json(model_views.alias_move(moved, alias, site.models.moves.environment_of(alias)))

    def unpoint(request: Request) -> Response:
        expected = _number(request, "expected")
        workspace, name, alias = (request.params[key] for key in ("workspace", "name", "alias"))
        by = request.principal
        index = site.models.write(
            lambda tx: site.models.moves.delete_alias(
                tx, by, workspace, name, alias, expected=UNSAID if expected is None else expected
            )
        )
        return Response.json(
            AliasMove(
                workspace=workspace, name=name, alias=alias, version=None,
                environment=site.models.moves.environment_of(alias), ledger_index=index,
            )
        )  # fmt: skip

    def move(request: Request) -> Response:
        wanted = request.json(MoveVersion)
        workspace, name = request.params["workspace"], request.params["name"]
        site.models.transition(
            request.principal,
            workspace,
            name,
            request.params["version"],
            wanted.stage,
            archive_existing=wanted.archive_existing,
            expected=wanted.expected,
        )
        with site.store.read() as tx:
            return Response.json(model_views.model(tx, workspace, name))

    def approvers(request: Request) -> Response:
        wanted = request.json(NameApprovers)
        workspace, name = request.params["workspace"], request.params["name"]
        checks.tag_key(wanted.environment)
        index = site.models.name_approvers(request.principal, workspace, name, wanted.environment, wanted.rule)
        return Response.json(
            ApproversSet(
                workspace=workspace, name=name, environment=wanted.environment, rule=wanted.rule, ledger_index=index
            )
        )

    def convert(request: Request) -> Response:
        workspace, name = request.params["workspace"], request.params["name"]
        row, evidence = site.models.convert(request.principal, workspace, name, request.params["version"])
        return Response.json(model_views.conversion(row, evidence))

    base = "/api/v1/models"
    yield _route(
        "PUT", f"{base}/{{name}}/aliases/{{alias}}", "write", point, "Point an alias to a version", request=PointAlias,
        response=AliasMove,
    )  # fmt: skip
    yield _route(
        "DELETE", f"{base}/{{name}}/aliases/{{alias}}", "write", unpoint, "Take an alias away", response=AliasMove
    )
    yield _route(
        "PUT", f"{base}/{{name}}/versions/{{version:int}}/stage", "write", move, "Move a version to a stage",
        request=MoveVersion, response=ModelView,
    )  # fmt: skip
    yield _route(
        "PUT", f"{base}/{{name}}/approvers", "administer", approvers, "Say who must agree to versions of a model",
        request=NameApprovers, response=ApproversSet,
    )  # fmt: skip
    yield _route(
        "POST", f"{base}/{{name}}/versions/{{version:int}}/convert", "write", convert,
        "Make ONNX of a version that runs code when loaded", response=Conversion, limits=CONVERTS,
    )  # fmt: skip


def _route(
    method: str,
    path: str,
    action: str,
    handler: Any,
    summary: str,
    *,
    request: Any = None,
    response: Any = None,
    limits: Limits = SMALL,
) -> Route:
    audit = SHOWS if method == "GET" else CHANGE
    return Route(
        method, path, action, from_path("Workspace", "workspace"), audit, limits, handler,
        name=f"{handler.__name__}_model", summary=summary, request_type=request, response_type=response,
        headers=(WORKSPACE,),
    )  # fmt: skip


def _number(request: Request, name: str) -> int | None:
    text = request.query.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 15):
        raise InputError(f"{name} must be a whole number", where=f"?{name}=")
    return int(text)
