"""``score``: a table through the released model of an endpoint."""

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from bedplate.cli.options import HomeOption, JsonOption
from bedplate.cli.output import emit
from bedplate.cli.session import connect
from bedplate.words import seconds, short

if TYPE_CHECKING:
    from bedplate.app.read_models import ScoreReport


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command("score")(score)


def score(
    endpoint: Annotated[str, typer.Argument(metavar="ENDPOINT", help="Name of the endpoint whose release answers.")],
    table: Annotated[str, typer.Argument(metavar="TABLE", help="Full name of the table, as in its use case.")],
    to: Annotated[str, typer.Option("--to", help="Name of the new table, below the scores of the use case.")],
    keep: Annotated[
        list[str] | None, typer.Option("--keep", help="Column to carry along, as an id. Repeatable.")
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option("--column", help="Column that the model takes, in order. Default: its inputs. Repeatable."),
    ] = None,
    purpose: Annotated[str | None, typer.Option(help="What rows are read for, if not for the use case's own.")] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Score the newest version of a table with the release that an endpoint serves, into a new table, or not at all."""
    from bedplate.cli.progress import progress

    with progress(sys.stderr) as on_event:
        report = connect(home).score(
            endpoint, table, to=to, keep=keep or (), columns=column or (), purpose=purpose, on_event=on_event
        )
    emit(report, as_json=as_json, text=_lines)


def _lines(report: "ScoreReport") -> Iterator[str]:
    source, made = report.source, report.table
    yield f"{made.rows:,} rows of {source.name}@{source.version} are in {made.name}@{made.version}"
    yield f"by bundle {short(report.bundle)} of {report.endpoint}, read for {report.purpose}, {seconds(report.seconds)}"
    yield f"bedplate trace {report.scoring}"
