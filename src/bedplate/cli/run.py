"""``run``: carry a use case through every stage, or through one."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bedplate.cli.options import HomeOption, JsonOption, UseCasePath
from bedplate.cli.output import emit
from bedplate.cli.session import connect
from bedplate.errors import GateError

if TYPE_CHECKING:
    from bedplate.app.read_models import RunSummary


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command("run")(run)


def run(
    path: UseCasePath = Path(),
    only: Annotated[str | None, typer.Option("--only", metavar="STAGE", help="Do this stage alone.")] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run a use case: finished stages are skipped, an interrupted run carries on where it stopped."""
    # Imported here, with the structs they show: `--help` does without.
    from bedplate.cli.progress import progress
    from bedplate.cli.summary import summary_lines

    stream = sys.stderr if as_json else sys.stdout
    with progress(stream) as on_event:
        summary = connect(home).run(path, only, on_event)
    emit(summary, as_json=as_json, text=summary_lines)
    if summary.halted == "refused":
        if as_json:  # one document on stdout: the summary says it all
            raise typer.Exit(GateError.exit_code)
        raise GateError(summary.halted_because, where=summary.use_case, fix=_fix(path, summary))


def _fix(path: Path, summary: "RunSummary") -> str:
    judged = any(stage.stage == "gates" and stage.state in ("finished", "skipped") for stage in summary.stages)
    return "see the gates above; the model stays out" if judged else f"see what is in the way: bedplate plan {path}"
