"""``trace``: from one prediction back to the objective."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from bedplate.cli.options import HomeOption, JsonOption
from bedplate.cli.output import emit
from bedplate.cli.session import connect
from bedplate.words import clip, short

if TYPE_CHECKING:
    from bedplate.app.read_models import Trace


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command("trace")(trace)


def trace(
    prediction_id: Annotated[
        str, typer.Argument(metavar="PREDICTION_ID", help="Id that an answer carried, or the digest of a scoring.")
    ],
    purpose: Annotated[str | None, typer.Option(help="What you look at it for, if not for its use case.")] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Walk from a prediction to its objective; every digest on the way is computed again."""
    report = connect(home).trace(prediction_id, purpose)
    emit(report, as_json=as_json, text=_walk)
    if not report.verified:
        raise typer.Exit(4)


def _walk(report: "Trace") -> Iterator[str]:
    yield f"{report.nodes[0].title} {report.prediction_id} of {report.use_case}"
    for index, node in enumerate(report.nodes):
        yield f"{'  ' if index == 0 else '└─'} {node.title}"
        mark = "verified" if node.verified else "NOT VERIFIED"
        yield f"   {clip(node.summary, 96)}"
        where = f"  {node.where}" if node.where else ""
        yield f"   {node.kind} {short(node.digest)}  {mark}{where}"
    yield "Every digest on the way matches." if report.verified else "A digest on the way does NOT match."
