"""``approve``, ``refuse``, ``waive``: decisions about a release. Each stands in the ledger with its reason."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from bedplate.cli.options import HomeOption, JsonOption, ReasonOption, UseCaseName
from bedplate.cli.output import emit
from bedplate.cli.session import connect

if TYPE_CHECKING:
    from bedplate.app.read_models import DecisionReport

Environment = Annotated[str, typer.Option("--environment", help="Environment the release is for.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command("approve")(approve)
    app.command("refuse")(refuse)
    app.command("waive")(waive)


def approve(
    use_case: UseCaseName,
    reason: ReasonOption,
    environment: Environment = "production",
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Approve the waiting release of a use case."""
    emit(connect(home).approve(use_case, environment, reason), as_json=as_json, text=_decided)


def refuse(
    use_case: UseCaseName,
    reason: ReasonOption,
    environment: Environment = "production",
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Refuse the waiting release of a use case."""
    emit(connect(home).refuse(use_case, environment, reason), as_json=as_json, text=_decided)


def waive(
    use_case: UseCaseName,
    gate: Annotated[str, typer.Argument(metavar="GATE", help="Name of the gate that lacks evidence.")],
    reason: ReasonOption,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let a gate without sufficient evidence through in dev, in your name. A failed gate cannot be waived."""
    emit(connect(home).waive(use_case, gate, reason), as_json=as_json, text=_decided)


def _decided(report: "DecisionReport") -> Iterator[str]:
    verb = {"approve": "approved", "refuse": "refused", "waive": "waived"}[report.action]
    yield f"{report.by} {verb} {report.subject} of {report.use_case}: {report.reason}"
    if report.approval is not None:
        yield f"The release is now {report.approval.state} for {report.approval.environment}."
    yield f"Ledger entry {report.ledger_index}."
