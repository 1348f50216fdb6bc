"""``rollout``: let a release in step by step, watch it, freeze it, and roll it back."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from bedplate.cli.options import HomeOption, JsonOption, noun
from bedplate.cli.output import emit
from bedplate.cli.session import connect
from bedplate.words import moment

if TYPE_CHECKING:
    from bedplate.app.serving_models import RolloutReport

Endpoint = Annotated[str, typer.Argument(metavar="ENDPOINT", help="Name of the endpoint: that of its use case.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    group = noun("Releases on their way in, step by step, with guards that roll them back.")
    group.command("start")(start)
    group.command("status")(status)
    group.command("freeze")(freeze)
    group.command("resume")(resume)
    group.command("roll-back")(roll_back)
    app.add_typer(group, name="rollout")


def start(endpoint: Endpoint, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Begin to let the newest approved release in. A run does so by itself where steps are asked for."""
    emit(connect(home).rollouts.start(endpoint), as_json=as_json, text=_told)


def status(endpoint: Endpoint, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Show the newest rollout: its steps, and what its guards see."""
    emit(connect(home).rollouts.status(endpoint), as_json=as_json, text=_told)


def freeze(endpoint: Endpoint, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Take no more steps, from now on. Guards still roll back."""
    emit(connect(home).rollouts.freeze(endpoint), as_json=as_json, text=_told)


def resume(endpoint: Endpoint, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Go on with the step at which it was frozen, which begins anew."""
    emit(connect(home).rollouts.resume(endpoint), as_json=as_json, text=_told)


def roll_back(
    endpoint: Endpoint,
    reason: Annotated[str, typer.Option("--reason", help="Why, in your words; it stands in the ledger.")] = "",
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Have the release from before answer everything, within a second; also after a rollout was completed."""
    emit(connect(home).rollouts.roll_back(endpoint, reason), as_json=as_json, text=_told)


def _told(report: "RolloutReport") -> Iterator[str]:
    yield f"{report.endpoint}: {report.state.replace('_', ' ')}, begun {moment(report.created)} by {report.by}."
    yield f"Candidate {report.bundle[7:19]}, in the place of {report.before[7:19]}."
    for number, step in enumerate(report.steps, 1):
        verb = "copies of" if step.mode == "shadow" else "of"
        asked = f"; candidate {step.candidate:,} requests, stable {step.stable:,}" if step.state != "to come" else ""
        yield f"  {number}. {step.share:.0%} {verb} the requests for {step.hold:,.0f} s: {step.state}{asked}"
        for finding in step.findings:
            yield f"     {finding.text}{'  ROLLED BACK' if finding.alarm else ''}"
    if report.reason:
        yield f"Because: {report.reason}"
