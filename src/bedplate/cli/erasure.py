"""``erasure``: take a person or what is too old out of a use case, or forbid that for a while."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from bedplate.cli.options import HomeOption, JsonOption, ReasonOption, UseCaseName, noun
from bedplate.cli.output import emit
from bedplate.cli.session import connect
from bedplate.words import listed, moment, number

if TYPE_CHECKING:
    from bedplate.app.table_reports import ErasureReport, ExpiryReport, HoldReport


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    group = noun("Erasure: what is of one person, or too old, out of a use case.")
    group.command("subject")(subject)
    group.command("expire")(expire)
    group.command("hold")(hold)
    group.command("lift")(lift)
    app.add_typer(group, name="erasure")


def subject(
    use_case: UseCaseName,
    who: Annotated[str, typer.Argument(metavar="SUBJECT", help="Value of the columns that the file calls subject.")],
    reason: ReasonOption,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Erase a person: all versions of tables, features, predictions. Models to train anew are listed."""
    emit(connect(home).erasure.subject(use_case, who, reason), as_json=as_json, text=_erased)


def _erased(report: "ErasureReport") -> Iterator[str]:
    for name, rows in report.tables.items():
        yield f"{name}: {number(rows)} rows, over all versions"
    if report.online:
        yield f"online features: {report.online} views"
    if report.logged:
        yield f"params and tags of runs, payloads of the ledger: {number(report.logged)}"
    if not (report.tables or report.online or report.logged):
        yield "Nothing of this person was there."
    if report.models:
        yield f"Trained on them, to be trained anew: {listed(report.models)}"
    if report.endpoints:
        yield f"Served meanwhile: {listed(report.endpoints)}"
    if report.sources:
        yield f"Their source still holds them, remove them there: {listed(report.sources)}"
    for left in report.left:
        yield f"Stays: {left.where} ({left.why})"
    yield f"Proof: entry {report.entry} of the ledger. Backups made before this still hold them."


def expire(use_case: UseCaseName, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Erase what is older than the file and the contracts let it be kept."""
    emit(connect(home).erasure.expire(use_case), as_json=as_json, text=_expired)


def _expired(report: "ExpiryReport") -> Iterator[str]:
    for name, since in report.kept_from.items():
        yield f"{name}: {number(report.tables.get(name, 0))} rows from before {moment(since)}, over all versions"
    yield f"Proof: entry {report.entry} of the ledger."


def hold(use_case: UseCaseName, reason: ReasonOption, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Forbid to erase anything of a use case."""
    emit(connect(home).erasure.hold(use_case, reason), as_json=as_json, text=_held)


def lift(use_case: UseCaseName, reason: ReasonOption, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Allow it again."""
    emit(connect(home).erasure.lift(use_case, reason), as_json=as_json, text=_held)


def _held(report: "HoldReport") -> Iterator[str]:
    word = "Nothing may be erased of" if report.on else "One may erase again from"
    yield f"{word} {report.use_case}: {report.reason}"
