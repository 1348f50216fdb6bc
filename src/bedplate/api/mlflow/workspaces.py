"""Workspaces as MLflow's clients manage them. A workspace that they make is closed until groups are named for it."""

from collections.abc import Iterator
from typing import Any

import msgspec

from bedplate.api.mlflow import wire
from bedplate.app import session, workspaces
from bedplate.app.people_models import Workspace
from bedplate.app.site import Site
from bedplate.errors import InputError
from bedplate.http import CHANGE, Request, Response, Route, fixed, from_path

PREFIXES = ("/api/3.0", "/ajax-api/3.0")
MODES = ("SET_DEFAULT", "CASCADE", "RESTRICT")


class TraceArchivalConfig(msgspec.Struct, frozen=True):
    """Where old traces go, in MLflow."""

    location: str | None = None
    retention: str | None = None


class CreateWorkspace(msgspec.Struct, frozen=True):
    """A workspace to be made."""

    name: str | None = None
    description: str | None = None
    default_artifact_root: str | None = None
    trace_archival_config: TraceArchivalConfig | None = None


class UpdateWorkspace(msgspec.Struct, frozen=True):
    """What is to be changed about a workspace."""

    description: str | None = None
    default_artifact_root: str | None = None
    trace_archival_config: TraceArchivalConfig | None = None


class WorkspaceInfo(msgspec.Struct, frozen=True, omit_defaults=True):
    """A workspace."""

    name: str
    description: str | None = None


class OneWorkspace(msgspec.Struct, frozen=True):
    """A reply about one."""

    workspace: WorkspaceInfo


class ManyWorkspaces(msgspec.Struct, frozen=True, omit_defaults=True):
    """A reply about those that the caller may read."""

    workspaces: tuple[WorkspaceInfo, ...] = ()


def routes(site: Site) -> Iterator[Route]:
    """The routes of this file."""
    home, one = fixed("Home", "home"), from_path("Workspace", "workspace_name")

    def change(request: Request, operation: str, **arguments: Any) -> Workspace:
        made: Workspace = site.change(operation, session.presented(request), **arguments)
        return made

    def listed(request: Request) -> Response:
        found = workspaces.visible(site.system, request.principal)
        return wire.json(ManyWorkspaces(tuple(map(_info, found))))

    def create(request: Request) -> Response:
        wanted = wire.decode(request, CreateWorkspace)
        name = wire.required("name", wanted.name)
        _refuse_storage(wanted)
        made = change(request, "create_workspace", name=name, description=wanted.description or "")
        return Response.json(OneWorkspace(_info(made)), 201)

    def get(request: Request) -> Response:
        name = request.params["workspace_name"]
        return wire.json(OneWorkspace(_info(workspaces.get(site.system, request.principal, name))))

    def update(request: Request) -> Response:
        wanted = wire.decode(request, UpdateWorkspace)
        _refuse_storage(wanted)
        name = request.params["workspace_name"]
        if wanted.description is None and (wanted.default_artifact_root, wanted.trace_archival_config) != (None, None):
            found = workspaces.get(site.system, request.principal, name)  # to take back what is not there
        else:
            found = change(request, "update_workspace", name=name, description=wanted.description)
        return wire.json(OneWorkspace(_info(found)))

    def delete(request: Request) -> Response:
        mode = request.query.get("mode", "RESTRICT")
        if mode not in MODES:
            raise InputError(f"{mode!r} is no way to delete a workspace", where="mode", fix=f"use {MODES[-1]}")
        if mode != "RESTRICT":
            raise InputError("a workspace is deleted only when it is empty", fix="delete what belongs to it first")
        change(request, "delete_workspace", name=request.params["workspace_name"])
        return Response(status=204)

    every = "/mlflow/workspaces"
    single = f"{every}/{{workspace_name}}"
    yield from wire.routes(
        "GET", every, "enter", wire.SHOWS, listed, resource=home, prefixes=PREFIXES,
        summary="The workspaces that you may read", response_type=ManyWorkspaces,
    )  # fmt: skip
    yield from wire.routes(
        "POST", every, "administer", CHANGE, create, resource=home, prefixes=PREFIXES,
        summary="Make a workspace", request_type=CreateWorkspace, response_type=OneWorkspace,
    )  # fmt: skip
    yield from wire.routes(
        "GET", single, "read", wire.SHOWS, get, resource=one, prefixes=PREFIXES,
        summary="One workspace", response_type=OneWorkspace,
    )  # fmt: skip
    yield from wire.routes(
        "PATCH", single, "administer", CHANGE, update, resource=one, prefixes=PREFIXES,
        summary="Change a workspace", request_type=UpdateWorkspace, response_type=OneWorkspace,
    )  # fmt: skip
    yield from wire.routes(
        "DELETE", single, "administer", CHANGE, delete, resource=one, prefixes=PREFIXES,
        summary="Delete an empty workspace",
    )  # fmt: skip


def _info(workspace: Workspace) -> WorkspaceInfo:
    return WorkspaceInfo(workspace.name, workspace.description or None)


def _refuse_storage(wanted: CreateWorkspace | UpdateWorkspace) -> None:
    """Every workspace of a home keeps its artifacts in the home; an empty text takes back what was never there."""
    archive = wanted.trace_archival_config
    given = (wanted.default_artifact_root, archive and archive.location, archive and archive.retention)
    if any(text and text.strip() for text in given):
        raise InputError(
            "a workspace has no storage of its own: artifacts of all of them lie with this server",
            fix="leave default_artifact_root and trace_archival_config out",
        )
