"""``workspace``: what experiments, models and artifacts belong to, and who may see and change it."""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from bedplate.cli.options import HomeOption, JsonOption, noun
from bedplate.cli.output import emit, table
from bedplate.cli.session import connect
from bedplate.errors import InputError
from bedplate.words import clip, listed

if TYPE_CHECKING:
    from bedplate.app.people_models import Workspace

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the workspace: a-z, 0-9 and - between them.")]
Readers = Annotated[list[str] | None, typer.Option("--reader", help="A group that may read; repeat for more.")]
Writers = Annotated[
    list[str] | None, typer.Option("--writer", help="A group that may read and write; repeat for more.")
]


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    group = noun("Workspaces, which experiments, models and artifacts belong to.")
    group.command("create")(create)
    group.command("list")(list_)
    group.command("update")(update)
    group.command("delete")(delete)
    app.add_typer(group, name="workspace")


def create(
    name: Name,
    description: Annotated[str, typer.Option("--description", help="What it is for.")] = "",
    shared: Annotated[bool, typer.Option("--shared", help="Open it to whoever has rights in the home.")] = False,
    reader: Readers = None,
    writer: Writers = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a workspace: closed to all but administrators and the groups that it names, unless shared."""
    workspaces = connect(home).workspaces
    made = workspaces.create(name, description=description, shared=shared, readers=reader or (), writers=writer or ())
    emit(made, as_json=as_json, text=_said("Made"))


def list_(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """List the workspaces that you may read."""
    emit({"workspaces": connect(home).workspaces.list()}, as_json=as_json, text=lambda found: _all(found["workspaces"]))


def _all(workspaces: "Sequence[Workspace]") -> Iterator[str]:
    yield from table(
        ("name", "open to", "readers", "writers", "description"),
        (
            (
                w.name,
                "the home" if w.shared else "its groups",
                listed(w.readers),
                listed(w.writers),
                clip(w.description, 50) or "-",
            )
            for w in workspaces
        ),
    )


def update(
    name: Name,
    description: Annotated[str | None, typer.Option("--description", help="What it is for.")] = None,
    shared: Annotated[
        bool | None, typer.Option("--shared/--closed", help="Open it to the home, or to its groups only.")
    ] = None,
    reader: Readers = None,
    writer: Writers = None,
    no_readers: Annotated[bool, typer.Option("--no-readers", help="Name no group that may only read.")] = False,
    no_writers: Annotated[bool, typer.Option("--no-writers", help="Name no group that may write.")] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Change what is given and leave the rest; groups that are given replace those before."""
    changed = connect(home).workspaces.update(
        name,
        description=description,
        shared=shared,
        readers=_named(reader, no_readers, "reader"),
        writers=_named(writer, no_writers, "writer"),
    )
    emit(changed, as_json=as_json, text=_said("Changed"))


def _named(given: list[str] | None, none: bool, what: str) -> Sequence[str] | None:
    if given and none:
        raise InputError(f"--{what} and --no-{what}s exclude each other", where=f"--no-{what}s", fix="give one of them")
    return () if none else given or None


def delete(name: Name, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Delete an empty workspace."""
    emit(connect(home).workspaces.delete(name), as_json=as_json, text=_said("Deleted"))


def _said(verb: str) -> "Callable[[Workspace], Iterator[str]]":
    def lines(workspace: "Workspace") -> Iterator[str]:
        yield f"{verb} the workspace {workspace.name}."
        if verb != "Deleted":
            yield "open to  " + ("whoever has rights in the home" if workspace.shared else "administrators, its groups")
            yield f"readers  {listed(workspace.readers)}"
            yield f"writers  {listed(workspace.writers)}"

    return lines
