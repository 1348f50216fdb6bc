"""``user``: who can come in, and what groups they are in."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from bedplate.cli.options import HomeOption, JsonOption, noun
from bedplate.cli.output import emit, table
from bedplate.cli.session import connect
from bedplate.words import listed, moment

if TYPE_CHECKING:
    from bedplate.app.people_models import User

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the user or service.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    group = noun("Users and services, and the groups that give them rights.")
    group.command("add")(add)
    group.command("list")(list_)
    group.command("groups")(groups)
    group.command("disable")(disable)
    app.add_typer(group, name="user")


def add(
    name: Name,
    service: Annotated[bool, typer.Option("--service", help="It acts by itself, such as a pipeline in CI.")] = False,
    group: Annotated[list[str] | None, typer.Option("--group", help="A group to be in; repeat for more.")] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Add a user or a service. Give it a key next: bedplate key create NAME."""
    emit(connect(home).users.add(name, service=service, groups=group or ()), as_json=as_json, text=_added)


def _added(user: "User") -> Iterator[str]:
    yield f"Added the {user.kind} {user.name}, in {listed(user.groups, 'no group: it may do nothing yet')}."
    yield from _warned(user)
    yield f"Next: bedplate key create {user.name}"


def _warned(user: "User") -> Iterator[str]:
    for group in user.unnamed:
        yield f"Nothing names the group {group} yet, so it gives no right: look at how it is written, or name it."


def list_(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """List users and services."""
    emit({"users": connect(home).users.list()}, as_json=as_json, text=lambda answer: _users(answer["users"]))


def _users(users: "Sequence[User]") -> Iterator[str]:
    yield from table(
        ("name", "kind", "groups", "keys", "since"),
        (
            (
                user.name,
                user.kind,
                listed(user.groups),
                f"shut out {moment(user.disabled)}" if user.disabled else str(user.keys),
                moment(user.created),
            )
            for user in users
        ),
    )


def groups(
    name: Name,
    group: Annotated[
        list[str] | None, typer.Argument(metavar="GROUP", help="Every group to be in; none to leave all.")
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Put somebody into exactly these groups, from the next request on."""
    emit(connect(home).users.set_groups(name, group or ()), as_json=as_json, text=_grouped)


def _grouped(user: "User") -> Iterator[str]:
    yield f"{user.name} is in {listed(user.groups, 'no group')}."
    yield from _warned(user)


def disable(name: Name, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Shut somebody out, with every key and session. The name stays taken."""
    emit(connect(home).users.disable(name), as_json=as_json, text=_disabled)


def _disabled(user: "User") -> Iterator[str]:
    yield f"{user.name} is shut out, with every key and session."
