"""The commands and their options as values: the reference pages and the snapshot test read this."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from typer.main import get_command

from bedplate.cli.root import app


class Option(NamedTuple):
    """One option and its help."""

    name: str
    help: str


class Command(NamedTuple):
    """One command: its full name, its help, its arguments in order, its options."""

    name: str
    help: str
    arguments: tuple[str, ...]
    options: tuple[Option, ...]


def commands() -> tuple[Command, ...]:
    """Every command, by name."""
    return tuple(sorted(_walk(get_command(app), ()), key=lambda command: command.name))


def _walk(command: Any, path: tuple[str, ...]) -> Iterator[Command]:
    children = getattr(command, "commands", None)
    if children is not None:
        for name, child in children.items():
            yield from _walk(child, (*path, name))
        return
    parameters = [p for p in command.params if p.name != "help"]
    yield Command(
        name=" ".join(path),
        help=(command.help or "").strip(),
        arguments=tuple(p.metavar or p.name.upper() for p in parameters if p.param_type_name == "argument"),
        options=tuple(Option(p.opts[0], p.help or "") for p in parameters if p.param_type_name == "option"),
    )
