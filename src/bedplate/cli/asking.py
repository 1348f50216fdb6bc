"""Questions of ``plan --ask`` in a terminal: one after the other, each answered, or left as it is with Enter."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from bedplate.errors import InputError

if TYPE_CHECKING:
    from bedplate.app.operations import Bedplate


def interview(bedplate: "Bedplate", path: Path) -> None:
    """Ask what is open until nothing is, or all that is left was left open.

    Raises:
        InputError: there is no terminal to ask in; the text names what is open.
    """
    open_ = bedplate.questions(path)
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        named = ", ".join(question.path for question in open_) or "nothing"
        raise InputError(
            f"questions need a terminal; open is: {named}",
            where="--ask",
            fix="run it in a terminal, or write these into usecase.yaml",
        )
    passed: set[str] = set()
    while asked := next((question for question in open_ if question.path not in passed), None):
        typer.echo(f"{asked.text}")
        typer.echo(f"  {asked.path}" + (f", line {asked.line}" if asked.line else "") + f": {asked.because}")
        given = typer.prompt(f"  such as {asked.example}; Enter leaves it", default="", show_default=False)
        if not given.strip():
            passed.add(asked.path)
            continue
        try:
            bedplate.answer(path, asked, given)
        except InputError as error:
            fix = error.fix or ""
            typer.echo(f"  That cannot stand there: {error.message}. {fix[:1].upper()}{fix[1:]}".rstrip())
            continue
        typer.echo("  Written.")
        open_ = bedplate.questions(path)
    typer.echo("")
