"""``check``, ``schema``, ``init``: the use case file itself."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bedplate.cli.options import HomeOption, JsonOption, UseCasePath
from bedplate.cli.output import emit, to_json
from bedplate.cli.session import connect
from bedplate.words import short

if TYPE_CHECKING:
    from bedplate.app.read_models import CheckReport, InitReport


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command("check")(check)
    app.command("schema")(schema)
    app.command("init")(init)


def check(path: UseCasePath = Path(), home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Check a use case: every problem at once, with line and column."""
    emit(connect(home).check(path), as_json=as_json, text=_checked)


def _checked(report: "CheckReport") -> Iterator[str]:
    yield f"{report.path} is in order."
    yield f"  name      {report.name} ({report.workload})"
    yield f"  data      {', '.join(report.data)}"
    if report.features:
        yield f"  features  {', '.join(report.features)}"
    yield f"  gates     {', '.join(report.gates)}"
    yield f"  digest    {short(report.digest)}"
    for note in report.notes:
        yield f"  note      {note}"


def schema() -> None:
    """Print the JSON Schema of usecase.yaml, for editors."""
    typer.echo(to_json(connect().schema()))


def init(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="New folder for the use case.")],
    name: Annotated[str, typer.Option("--name", help="Name of the use case. Default: the folder's.")] = "",
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a commented starter use case that runs as it is."""
    emit(connect(home).init(folder, name or folder.absolute().name), as_json=as_json, text=_written)


def _written(report: "InitReport") -> Iterator[str]:
    yield f"Wrote {report.name} in {report.folder}:"
    for file in report.files:
        yield f"  {file}"
    yield f"Next: bedplate run {report.folder}"
