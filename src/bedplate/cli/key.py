"""``key``: what programs come in with."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from bedplate.cli.options import HomeOption, JsonOption, noun
from bedplate.cli.output import emit, table
from bedplate.cli.session import connect
from bedplate.words import moment

if TYPE_CHECKING:
    from bedplate.app.people_models import Key, NewKey


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    group = noun("Keys of users and services.")
    group.command("create")(create)
    group.command("list")(list_)
    group.command("revoke")(revoke)
    app.add_typer(group, name="key")


def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the user or service.")],
    label: Annotated[str, typer.Option("--label", help="What it is for, for people.")] = "",
    expires: Annotated[
        str | None, typer.Option("--expires", help="When it ends by itself, such as 90d.", show_default=False)
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a key and print it, once: only its hash is kept."""
    emit(connect(home).keys.create(name, label=label, expires=expires), as_json=as_json, text=_created)


def _created(key: "NewKey") -> Iterator[str]:
    yield key.key
    yield ""
    until = f"until {moment(key.expires)}" if key.expires else "until it is revoked"
    yield f"This is the key of {key.user}, good {until}. It is not shown again."
    yield f"End it: bedplate key revoke {key.id}"


def list_(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Whose keys; everybody's if left out.")] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """List keys, without their secrets."""
    emit({"keys": connect(home).keys.list(name)}, as_json=as_json, text=lambda answer: _keys(answer["keys"]))


def _keys(keys: "Sequence[Key]") -> Iterator[str]:
    if not keys:
        yield "No key."
        return
    yield from table(
        ("id", "user", "label", "state", "made", "ends"),
        (
            (
                key.id,
                key.user,
                key.label or "-",
                key.state,
                moment(key.created),
                moment(key.revoked or key.expires or "") if key.revoked or key.expires else "-",
            )
            for key in keys
        ),
    )


def revoke(
    key: Annotated[str, typer.Argument(metavar="ID", help="Id of the key, as `bedplate key list` shows it.")],
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """End a key, from the next request on."""
    emit(connect(home).keys.revoke(key), as_json=as_json, text=_revoked)


def _revoked(key: "Key") -> Iterator[str]:
    yield f"The key {key.id} of {key.user} is revoked."
