"""Workspaces: made, listed as far as the caller may read them, changed, deleted when empty."""

from collections.abc import Iterator
from typing import Annotated, Any

import msgspec

from bedplate.api.use_cases import LOOKS
from bedplate.app import session, workspaces
from bedplate.app.people_models import Workspace
from bedplate.app.site import Site
from bedplate.http import CHANGE, Limits, Request, Response, Route, fixed, from_path

GROUPS = Limits(body=64 * 1024, depth=4, receipt=5.0, deadline=30.0)
Groups = Annotated[tuple[Annotated[str, msgspec.Meta(min_length=1, max_length=200)], ...], msgspec.Meta(max_length=100)]
Description = Annotated[str, msgspec.Meta(max_length=5000)]


class WorkspaceRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A workspace to be made: closed to all but administrators and the groups it names, unless shared."""

    name: Annotated[str, msgspec.Meta(min_length=2, max_length=63, pattern="^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]
    description: Description = ""
    shared: bool = False
    readers: Groups = ()
    writers: Groups = ()


class WorkspaceChange(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What is to be changed about a workspace; the rest stays. Groups replace those before."""

    description: Description | None = None
    shared: bool | None = None
    readers: Groups | None = None
    writers: Groups | None = None


def change(site: Site, request: Request, operation: str, **arguments: Any) -> Response:
    """Have the owner carry out an operation for whoever sent the request."""
    return Response.json(site.change(operation, session.presented(request), **arguments))


def routes(site: Site) -> Iterator[Route]:
    """The routes of this file."""
    home, one = fixed("Home", "home"), from_path("Workspace", "name")

    def listed(request: Request) -> Response:
        return Response.json(workspaces.visible(site.system, request.principal))

    def create(request: Request) -> Response:
        wanted = request.json(WorkspaceRequest)
        return change(site, request, "create_workspace", **msgspec.structs.asdict(wanted))

    def get(request: Request) -> Response:
        return Response.json(workspaces.get(site.system, request.principal, request.params["name"]))

    def update(request: Request) -> Response:
        wanted = request.json(WorkspaceChange)
        return change(site, request, "update_workspace", name=request.params["name"], **msgspec.structs.asdict(wanted))

    def delete(request: Request) -> Response:
        return change(site, request, "delete_workspace", name=request.params["name"])

    yield Route(
        "GET", "/api/v1/workspaces", "enter", home, LOOKS, GROUPS, listed,
        name="list_workspaces", summary="The workspaces that you may read", response_type=list[Workspace],
    )  # fmt: skip
    yield Route(
        "POST", "/api/v1/workspaces", "administer", home, CHANGE, GROUPS, create,
        name="create_workspace", summary="Make a workspace", request_type=WorkspaceRequest, response_type=Workspace,
    )  # fmt: skip
    yield Route(
        "GET", "/api/v1/workspaces/{name}", "read", one, LOOKS, GROUPS, get,
        name="get_workspace", summary="One workspace", response_type=Workspace,
    )  # fmt: skip
    yield Route(
        "PATCH", "/api/v1/workspaces/{name}", "administer", one, CHANGE, GROUPS, update,
        name="update_workspace", summary="Change a workspace", request_type=WorkspaceChange, response_type=Workspace,
    )  # fmt: skip
    yield Route(
        "DELETE", "/api/v1/workspaces/{name}", "administer", one, CHANGE, GROUPS, delete,
        name="delete_workspace", summary="Delete an empty workspace", response_type=Workspace,
    )  # fmt: skip
