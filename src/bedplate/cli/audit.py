"""``audit verify``: the ledger checks out, or says where it does not."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bedplate.cli.options import HomeOption, JsonOption, noun
from bedplate.cli.output import emit
from bedplate.cli.session import connect

if TYPE_CHECKING:
    from bedplate.app.read_models import AuditReport


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    group = noun("The audit ledger.")
    group.command("verify")(verify)
    app.add_typer(group, name="audit")


def verify(
    checkpoint: Annotated[
        Path | None, typer.Option("--checkpoint", help="A checkpoint you kept: nothing before it may have changed.")
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check every entry, the tree and the signature, offline. Exit code 4 if anything does not match."""
    report = connect(home).audit_verify(checkpoint)
    emit(report, as_json=as_json, text=_verified)
    if not report.verified:
        raise typer.Exit(4)


def _verified(report: "AuditReport") -> Iterator[str]:
    yield f"{report.entries:,} entries, root {report.root}"
    if report.against:
        yield f"compared with the checkpoint {report.against}"
    for problem in report.problems:
        yield f"PROBLEM: {problem}"
    yield "Verified: every entry is in the tree and the head is signed." if report.verified else "NOT verified."
