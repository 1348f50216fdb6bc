"""Who can come in: users, services and their keys. A key is in one answer and nowhere else."""

from collections.abc import Iterator
from typing import Annotated

import msgspec

from bedplate.api.use_cases import LOOKS
from bedplate.api.workspaces import GROUPS, Groups, change
from bedplate.app import session
from bedplate.app.people_models import Key, NewKey, User
from bedplate.app.site import Site
from bedplate.http import CHANGE, Request, Response, Route, fixed

Text = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]


class UserRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A user, or a service, which acts by itself."""

    name: Text
    service: bool = False
    groups: Groups = ()


class GroupsRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Every group that somebody is to be in."""

    groups: Groups


class KeyRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A key. ``expires`` is a time such as ``90 d``; without it the key is good until it is revoked."""

    label: Annotated[str, msgspec.Meta(max_length=200)] = ""
    expires: Text | None = None


class Link(msgspec.Struct, frozen=True, kw_only=True):
    """An address that lets one browser in as whoever asked for it, once, within 60 seconds."""

    link: str


class Who(msgspec.Struct, frozen=True, kw_only=True):
    """Who asks, and how they came in."""

    id: str
    name: str
    kind: str
    groups: tuple[str, ...]
    auth: str


def routes(site: Site) -> Iterator[Route]:
    """The routes of this file."""
    home = fixed("Home", "home")

    def me(request: Request) -> Response:
        who = request.principal
        return Response.json(Who(id=who.id, name=who.name, kind=who.kind, groups=who.groups, auth=who.auth))

    def link(request: Request) -> Response:
        return Response.json(Link(link=site.change("login_link", session.presented(request))))

    def users(request: Request) -> Response:
        return change(site, request, "list_users")

    def add(request: Request) -> Response:
        return change(site, request, "add_user", **msgspec.structs.asdict(request.json(UserRequest)))

    def set_groups(request: Request) -> Response:
        groups = request.json(GroupsRequest).groups
        return change(site, request, "set_groups", name=request.params["name"], groups=groups)

    def disable(request: Request) -> Response:
        return change(site, request, "disable_user", name=request.params["name"])

    def keys(request: Request) -> Response:
        return change(site, request, "list_keys", name=request.params["name"])

    def create_key(request: Request) -> Response:
        wanted = request.json(KeyRequest)
        return change(
            site, request, "create_key", name=request.params["name"], label=wanted.label, expires=wanted.expires
        )

    def revoke(request: Request) -> Response:
        return change(site, request, "revoke_key", key=request.params["key"])

    yield Route(
        "GET", "/api/v1/me", "enter", home, LOOKS, GROUPS, me, name="me", summary="Who you are", response_type=Who
    )
    yield Route(
        "POST", "/api/v1/me/link", "enter", home, CHANGE, GROUPS, link,
        name="login_link", summary="A link that lets one browser in as you, once", response_type=Link,
    )  # fmt: skip
    yield Route(
        "GET", "/api/v1/users", "administer", home, LOOKS, GROUPS, users,
        name="list_users", summary="Users and services", response_type=list[User],
    )  # fmt: skip
    yield Route(
        "POST", "/api/v1/users", "administer", home, CHANGE, GROUPS, add,
        name="add_user", summary="Add a user or a service", request_type=UserRequest, response_type=User,
    )  # fmt: skip
    yield Route(
        "PUT", "/api/v1/users/{name}/groups", "administer", home, CHANGE, GROUPS, set_groups,
        name="set_groups", summary="Put somebody into exactly these groups",
        request_type=GroupsRequest, response_type=User,
    )  # fmt: skip
    yield Route(
        "POST", "/api/v1/users/{name}/disable", "administer", home, CHANGE, GROUPS, disable,
        name="disable_user", summary="Shut somebody out", response_type=User,
    )  # fmt: skip
    yield Route(
        "GET", "/api/v1/users/{name}/keys", "administer", home, LOOKS, GROUPS, keys,
        name="list_keys", summary="Somebody's keys, without their secrets", response_type=list[Key],
    )  # fmt: skip
    yield Route(
        "POST", "/api/v1/users/{name}/keys", "administer", home, CHANGE, GROUPS, create_key,
        name="create_key", summary="Make a key; it is shown once", request_type=KeyRequest, response_type=NewKey,
    )  # fmt: skip
    yield Route(
        "DELETE", "/api/v1/keys/{key}", "administer", home, CHANGE, GROUPS, revoke,
        name="revoke_key", summary="End a key", response_type=Key,
    )  # fmt: skip
