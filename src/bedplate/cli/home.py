"""``backup``, ``restore`` and ``gc``: a home as one verified folder, and what it no longer needs."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bedplate.cli.options import HomeOption, JsonOption
from bedplate.cli.output import emit
from bedplate.cli.session import connect
from bedplate.words import size

if TYPE_CHECKING:
    from bedplate.app.read_models import BackupReport, GcReport, RestoreReport


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command("backup")(backup)
    app.command("restore")(restore)
    app.command("gc")(gc)


def backup(
    destination: Annotated[Path, typer.Argument(metavar="DESTINATION", help="New file for the backup.")],
    region: Annotated[
        str, typer.Option("--region", metavar="REGION", help="Where it lies: eu, us, ... Use cases with residency ask.")
    ] = "",
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a consistent, verified copy of the home, also while it is in use."""
    emit(connect(home).backup(destination, region), as_json=as_json, text=_backed_up)


def _backed_up(report: "BackupReport") -> Iterator[str]:
    yield f"Wrote {report.path}: {report.files:,} files, {size(report.size)}; every one was read back and matches."
    yield report.warning


def restore(
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="File that `bedplate backup` wrote.")],
    to: Annotated[Path, typer.Argument(metavar="HOME", help="New home folder; it must not exist yet or be empty.")],
    as_json: JsonOption = False,
) -> None:
    """Make a home from a backup, after checking every digest in it."""
    emit(connect(to).restore(source, to), as_json=as_json, text=_restored)


def _restored(report: "RestoreReport") -> Iterator[str]:
    yield f"Restored {report.files:,} files, {size(report.size)}, in {report.home}; every one matches."
    yield report.warning
    yield f"Next: bedplate up --home {report.home}"


def gc(
    older_than: Annotated[
        str, typer.Option("--older-than", metavar="DURATION", help="How long ago it must have been deleted.")
    ] = "30 d",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go, and change nothing.")] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Delete deleted runs, models and experiments for good, and content that nothing names."""
    emit(connect(home).gc(older_than, dry_run=dry_run), as_json=as_json, text=_collected)


def _collected(report: "GcReport") -> Iterator[str]:
    says = "Would delete for good" if report.dry_run else "Deleted for good"
    yield f"{says} what was deleted {report.older_than} ago or longer:"
    yield f"  {report.runs:,} runs, {report.models:,} logged models, {report.experiments:,} experiments"
    yield f"  with {report.rows:,} logged values and {report.files:,} files"
    for reason in report.kept:
        yield f"  kept {reason}"
    yield f"Content that nothing names: {report.contents:,} removed, {size(report.size)}; {report.waiting:,} wait a day"
    if report.uploads or report.leftovers:
        yield f"Given up: {report.uploads:,} uploads, {report.leftovers:,} files of writers that were killed"
