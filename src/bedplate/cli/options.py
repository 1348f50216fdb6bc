"""Arguments and options that several commands share, each in one place so that they stay the same everywhere."""

from pathlib import Path
from typing import Annotated, Any

import typer

HomeOption = Annotated[
    Path | None,
    typer.Option("--home", help="Home folder. Default: $BEDPLATE_HOME, else ~/.bedplate.", show_default=False),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
UseCasePath = Annotated[Path, typer.Argument(metavar="PATH", help="Folder of the use case, or its usecase.yaml.")]
UseCaseName = Annotated[str, typer.Argument(metavar="USE_CASE", help="Name of the use case.")]
ReasonOption = Annotated[str, typer.Option("--reason", help="Why, in your words; it stands in the ledger.")]


def noun(text: str) -> typer.Typer:
    """A group of commands about one noun, with plain help: Rich costs more to import than `--help` may take."""
    return typer.Typer(help=text, no_args_is_help=True, add_completion=False, rich_markup_mode=None)


PLAIN: dict[str, Any] = {"add_completion": False, "rich_markup_mode": None, "no_args_is_help": True}
