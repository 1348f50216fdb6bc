"""``policy``: who may do what, in Cedar, beside the policies that every home starts with."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bedplate.cli.options import HomeOption, JsonOption, noun
from bedplate.cli.output import emit, table
from bedplate.cli.session import connect
from bedplate.words import clip, listed, moment

if TYPE_CHECKING:
    from bedplate.app.people_models import Policy, PolicyChange, PolicyCheck, PolicyTest

File = Annotated[Path, typer.Argument(metavar="FILE", help="File of Cedar policies, each with an @id of its own.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    group = noun("Policies: who may do what.")
    group.command("add")(add)
    group.command("list")(list_)
    group.command("remove")(remove)
    group.command("check")(check)
    group.command("test")(ask)
    app.add_typer(group, name="policy")


def add(
    file: File,
    replace: Annotated[bool, typer.Option("--replace", help="Replace policies of the same ids.")] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take the policies of a file into force: all of them, or none if one cannot be."""
    emit(connect(home).policies.add(file, replace=replace), as_json=as_json, text=_changed)


def list_(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """List the policies in force."""
    emit({"policies": connect(home).policies.list()}, as_json=as_json, text=lambda found: _all(found["policies"]))


def _all(policies: "Sequence[Policy]") -> Iterator[str]:
    yield from table(
        ("id", "effect", "by", "since", "reason"),
        ((p.id, p.effect, p.by, moment(p.created) if p.created else "-", clip(p.reason, 60) or "-") for p in policies),
    )


def remove(
    policy: Annotated[str, typer.Argument(metavar="ID", help="Id of the policy.")],
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take one policy out of force. Built-in policies stay."""
    emit(connect(home).policies.remove(policy), as_json=as_json, text=_changed)


def _changed(change: "PolicyChange") -> Iterator[str]:
    for verb, names in (("added", change.added), ("replaced", change.replaced), ("removed", change.removed)):
        if names:
            yield f"{verb}  {listed(names)}"
    if not (change.added or change.removed):
        yield "Nothing to change: they are in force as they are."
    yield from _gains(change)


def _gains(change: "PolicyChange") -> Iterator[str]:
    for gain in change.gains:
        yield f"{gain.who} {'may now' if gain.allowed else 'may no longer'} {gain.action} {gain.resource}"
    if not change.gains:
        yield "Nobody may do more or less to what is here now."
    if not change.compared_all:
        yield "There are too many users and things to compare them all: these are the first."


def check(file: File, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Check a file of policies, and show what it would change where there is a home. Changes nothing."""
    emit(connect(home).policies.check(file), as_json=as_json, text=_checked)


def _checked(report: "PolicyCheck") -> Iterator[str]:
    for policy in report.policies:
        yield f"{policy.effect}  {policy.id}" + (f": {policy.reason}" if policy.reason else "")
    if report.change is None:
        yield "In order. There is no home to compare with."
        return
    yield "In order. Once added:"
    yield from _gains(report.change)


def ask(
    principal: Annotated[str, typer.Option("--principal", help="Name of a user or service.")],
    action: Annotated[str, typer.Option("--action", help="What they want to do, such as read.")],
    resource: Annotated[str, typer.Option("--resource", help="To what, as KIND/ID, such as Workspace/default.")],
    purpose: Annotated[str, typer.Option("--purpose", help="What rows are to be used for.")] = "",
    environment: Annotated[str, typer.Option("--environment", help="Where a release would go.")] = "",
    gates_passed: Annotated[bool, typer.Option("--gates-passed", help="As if every gate had passed.")] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ask the policies in force about somebody, an action and a resource. Exit code 0 whatever the answer."""
    answer = connect(home).policies.test(
        principal, action, resource, purpose=purpose, environment=environment, gates_passed=gates_passed
    )
    emit(answer, as_json=as_json, text=_tested)


def _tested(answer: "PolicyTest") -> Iterator[str]:
    yield f"{answer.principal} {'may' if answer.allowed else 'may not'} {answer.action} {answer.resource}"
    for reason in answer.reasons:
        yield f"because  {reason}"
    yield f"by       {listed(answer.policies, 'no policy')}"
