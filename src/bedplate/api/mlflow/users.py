"""Users as MLflow's clients ask about them. They come in with keys here, so nothing sets a password."""

from collections.abc import Iterator

import msgspec

from bedplate.api.mlflow import wire
from bedplate.app import session
from bedplate.app.people_models import User
from bedplate.app.site import Site
from bedplate.errors import InputError, NotFoundError
from bedplate.http import CHANGE, Request, ResourceRef, Response, Route, fixed
from bedplate.identity import ADMINISTRATORS

PREFIXES = ("/api/2.0", "/ajax-api/2.0")
HOME = ResourceRef("Home", "home")


class UserName(msgspec.Struct, frozen=True):
    """Whom it is about."""

    username: str | None = None


class UpdateAdmin(msgspec.Struct, frozen=True):
    """Who is to be an administrator, or not any more."""

    username: str | None = None
    is_admin: bool | None = None


class UserInfo(msgspec.Struct, frozen=True):
    """A user. MLflow numbers them; ours have ids of text."""

    id: str
    username: str
    is_admin: bool


class ListedUser(UserInfo, frozen=True):
    """A user in a list. Roles are MLflow's own; rights come from groups here."""

    roles: tuple[str, ...] = ()


class OneUser(msgspec.Struct, frozen=True):
    """A reply about one."""

    user: UserInfo


class CurrentUser(msgspec.Struct, frozen=True):
    """Who asks. A password cannot be changed here, so nobody is shown how to."""

    user: UserInfo
    is_basic_auth: bool = False


class ManyUsers(msgspec.Struct, frozen=True):
    """A reply about all."""

    users: tuple[ListedUser, ...]


def routes(site: Site) -> Iterator[Route]:
    """The routes of this file."""
    home = fixed("Home", "home")

    def current(request: Request) -> Response:
        who = request.principal
        return wire.json(CurrentUser(UserInfo(who.id, who.name, ADMINISTRATORS in who.groups)))

    def get(request: Request) -> Response:
        name = wire.required("username", wire.decode(request, UserName).username)
        if name != request.principal.name:
            site.authorise(request.principal, "administer", HOME)
        return wire.json(OneUser(_info(_active(site, request, name))))

    def listed(request: Request) -> Response:
        found = (user for user in _users(site, request) if user.disabled is None)
        return wire.json(ManyUsers(tuple(ListedUser(*msgspec.structs.astuple(_info(user))) for user in found)))

    def delete(request: Request) -> Response:
        name = wire.required("username", wire.decode(request, UserName).username)
        if name == request.principal.name:
            raise InputError("nobody shuts themselves out", where="username", fix="ask another administrator")
        _active(site, request, name)
        site.change("disable_user", session.presented(request), name=name)
        return wire.json({})

    def update_admin(request: Request) -> Response:
        wanted = wire.decode(request, UpdateAdmin)
        name = wire.required("username", wanted.username)
        if wanted.is_admin is None:
            raise InputError("the parameter is_admin is missing", fix="give is_admin")
        groups = set(_active(site, request, name).groups) - {ADMINISTRATORS}
        groups |= {ADMINISTRATORS} if wanted.is_admin else set()
        site.change("set_groups", session.presented(request), name=name, groups=sorted(groups))
        return wire.json({})

    every = "/mlflow/users"
    yield from wire.routes(
        "GET", f"{every}/current", "enter", wire.SHOWS, current, resource=home, prefixes=PREFIXES,
        summary="Who you are", response_type=CurrentUser,
    )  # fmt: skip
    yield from wire.routes(
        "GET", f"{every}/get", "enter", wire.SHOWS, get, resource=home, prefixes=PREFIXES,
        summary="One user: yourself, or anybody to whoever administers", request_type=UserName, response_type=OneUser,
    )  # fmt: skip
    yield from wire.routes(
        "GET", f"{every}/list", "administer", wire.SHOWS, listed, resource=home, prefixes=PREFIXES,
        summary="Every user and service", response_type=ManyUsers,
    )  # fmt: skip
    yield from wire.routes(
        "DELETE", f"{every}/delete", "administer", CHANGE, delete, resource=home, prefixes=PREFIXES,
        summary="Shut a user out", request_type=UserName,
    )  # fmt: skip
    yield from wire.routes(
        "PATCH", f"{every}/update-admin", "administer", CHANGE, update_admin, resource=home, prefixes=PREFIXES,
        summary="Put a user into the group of administrators, or take them out", request_type=UpdateAdmin,
    )  # fmt: skip


def _users(site: Site, request: Request) -> tuple[User, ...]:
    found: tuple[User, ...] = site.change("list_users", session.presented(request))
    return found


def _active(site: Site, request: Request, name: str) -> User:
    with site.store.read() as tx:
        row = tx.principals.named(name)
    if row is None or row.disabled is not None:
        raise NotFoundError(f"no user {name!r}")
    return User(id=row.id, name=row.name, kind=row.kind, groups=row.groups, created=row.created)


def _info(user: User) -> UserInfo:
    return UserInfo(user.id, user.name, ADMINISTRATORS in user.groups)
