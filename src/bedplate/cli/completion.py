"""``completion``: the script that teaches a shell our commands."""

from enum import StrEnum
from typing import Annotated

import typer


class Shell(StrEnum):
    """Shells we have a script for."""

    bash = "bash"
    zsh = "zsh"
    fish = "fish"


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command("completion")(completion)


def completion(shell: Annotated[Shell, typer.Argument(help="Your shell.")]) -> None:
    """Print the completion script of a shell: bedplate completion bash >> ~/.bashrc"""
    # Imported here: it looks for shells, which no other command needs.
    from typer.completion import get_completion_script  # type: ignore[attr-defined]

    typer.echo(get_completion_script(prog_name="bedplate", complete_var="_BEDPLATE_COMPLETE", shell=shell.value))
