"""``models``: registered models, their versions, what happened to them, and which was live when."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from bedplate.cli.options import HomeOption, JsonOption, noun
from bedplate.cli.output import emit, table
from bedplate.cli.session import connect
from bedplate.words import moment

if TYPE_CHECKING:
    from bedplate.app.model_reports import (
        AliasMove,
        ApproversSet,
        Conversion,
        HistoryLine,
        HistoryPage,
        LiveView,
        ModelList,
        ModelView,
        VersionView,
    )

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the registered model.")]
Version = Annotated[int, typer.Argument(metavar="VERSION", help="Number of the version.")]
Workspace = Annotated[str, typer.Option("--workspace", help="Workspace of the model.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    group = noun("Registered models and their versions.")
    for name, command in (
        ("list", list_),
        ("show", show),
        ("history", history),
        ("live", live),
        ("alias", alias),
        ("approvers", approvers),
        ("convert", convert),
    ):
        group.command(name)(command)
    app.add_typer(group, name="models")


def list_(
    after: Annotated[str | None, typer.Option("--after", help="Page to go on with, as the last one named it.")] = None,
    workspace: Workspace = "default",
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """List registered models by name, with their newest version in each stage and their aliases."""
    emit(connect(home).models.list(workspace, after=after), as_json=as_json, text=_listed)


def show(name: Name, workspace: Workspace = "default", home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Show a model and its newest versions: stages, aliases, gates, approvals, and whether their files run code."""
    emit(connect(home).models.show(name, workspace=workspace), as_json=as_json, text=_shown)


def history(
    name: Name,
    version: Annotated[int | None, typer.Option("--version", help="Only what happened to this version.")] = None,
    before: Annotated[int | None, typer.Option("--before", help="Lines before this one, for the next page.")] = None,
    workspace: Workspace = "default",
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what happened to a model, newest first, also to one that was deleted. Nobody can change these lines."""
    page = connect(home).models.history(name, version=version, before=before, workspace=workspace)
    emit(page, as_json=as_json, text=_history)


def live(
    name: Name,
    at: Annotated[
        str | None, typer.Option("--at", help="Moment, as 2026-03-01T12:00:00Z or a date. Default: now.")
    ] = None,
    stage: Annotated[str | None, typer.Option("--stage", help="Version in this stage. Default: Production.")] = None,
    alias: Annotated[str | None, typer.Option("--alias", help="Version that this alias pointed to.")] = None,
    environment: Annotated[
        str | None, typer.Option("--environment", help="Version that was serving in this environment.")
    ] = None,
    workspace: Workspace = "default",
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say which version was live at a moment, and since when. Exit code 1 if none was."""
    found = connect(home).models.live(name, at, stage=stage, alias=alias, environment=environment, workspace=workspace)
    emit(found, as_json=as_json, text=_live)
    if found.version is None:
        raise typer.Exit(1)


def alias(
    name: Name,
    alias: Annotated[str, typer.Argument(metavar="ALIAS", help="Name of the alias.")],
    version: Annotated[int | None, typer.Argument(metavar="VERSION", help="Version to point to.")] = None,
    delete: Annotated[bool, typer.Option("--delete", help="Take the alias away.")] = False,
    expected: Annotated[
        int | None, typer.Option("--expected", help="Version that it must point to now; 0 for none.")
    ] = None,
    workspace: Workspace = "default",
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Point an alias to a version, or take it away. One that stands for an environment asks for a release there."""
    if (version is None) != delete:
        raise typer.BadParameter("give a version, or --delete")
    moved = connect(home).models.alias(name, alias, version, expected=expected, workspace=workspace)
    emit(moved, as_json=as_json, text=_aliased)


def approvers(
    name: Name,
    rule: Annotated[str, typer.Argument(metavar="RULE", help="Who must agree: '2 of [leads, risk]'; '' for nobody.")],
    environment: Annotated[str, typer.Option("--environment", help="Environment that it is for.")] = "production",
    workspace: Workspace = "default",
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say who must agree to versions of a model that belongs to no use case. Only administrators may."""
    emit(
        connect(home).models.approvers(name, rule, environment=environment, workspace=workspace),
        as_json=as_json,
        text=_approvers,
    )


def convert(
    name: Name, version: Version, workspace: Workspace = "default", home: HomeOption = None, as_json: JsonOption = False
) -> None:
    """Make ONNX of a version that runs code when loaded, in a limited process, and show that it says the same."""
    emit(connect(home).models.convert(name, version, workspace=workspace), as_json=as_json, text=_converted)


# ----------------------------------------------------------------------------------------------------------------- text


def _listed(found: "ModelList") -> Iterator[str]:
    rows = [
        (
            model.name,
            ", ".join(f"{stage}: {number}" for stage, number in model.stages.items()),
            ", ".join(f"{alias}: {number}" for alias, number in model.aliases.items()),
            model.updated[:19].replace("T", " "),
        )
        for model in found.models
    ]
    yield from table(("model", "newest version by stage", "aliases", "changed (UTC)"), rows)
    if found.next_page is not None:
        yield f"More: bedplate models list --after {found.next_page}"


def _shown(model: "ModelView") -> Iterator[str]:
    yield f"{model.name} in {model.workspace}{': ' + model.description if model.description else ''}"
    for alias, number in model.aliases.items():
        yield f"  alias {alias}: version {number}"
    for environment, rule in model.approvers.items():
        yield f"  {environment} asks {rule}"
    for version in model.versions:
        yield ""
        yield from _version(version)


def _version(version: "VersionView") -> Iterator[str]:
    at = f" ({', '.join(version.aliases)})" if version.aliases else ""
    yield f"version {version.version}{at}, stage {version.stage}, {version.created[:19].replace('T', ' ')} UTC"
    for label, text in (
        ("bundle", version.bundle),
        ("source", version.source),
        ("run", version.run),
        ("data", ", ".join(f"{each.name}@{each.version}" for each in version.data)),
        ("gates", version.gates.summary),
        ("files", f"{version.safety}: {'; '.join(version.reasons)}" if version.reasons else version.safety),
        ("ONNX", version.onnx),
    ):
        if text:
            yield f"  {label:<8}{text}"
    for said in version.approvals:
        yield f"  {said.environment} {said.state} by {said.by}: {said.reason}"


def _history(page: "HistoryPage") -> Iterator[str]:
    for line in page.lines:
        yield _line(line)
    if page.before is not None:
        yield f"Earlier: bedplate models history {page.name} --before {page.before}"


def _line(line: "HistoryLine") -> str:
    what = f"version {line.version} " if line.version is not None else ""
    moved = f" {line.before or 'nothing'} -> {line.after or 'nothing'}" if line.before or line.after else ""
    about = f" {line.value}" if line.value else ""
    entry = f" [ledger {line.entry}]" if line.entry is not None else ""
    return f"{moment(line.time)}  {what}{line.kind}{about}{moved} by {line.by}{entry}"


def _live(found: "LiveView") -> Iterator[str]:
    called = {"stage": "in stage", "alias": "as alias", "environment": "serving in"}[found.by]
    if found.version is None:
        yield f"At {moment(found.at)} no version of {found.name} was {called} {found.value}."
        return
    yield f"At {moment(found.at)} version {found.version} of {found.name} was {called} {found.value}."
    if len(found.versions) > 1:
        yield f"In it were versions {', '.join(map(str, found.versions))}; clients got the newest."
    for line in found.since:
        yield f"  {_line(line)}"


def _aliased(moved: "AliasMove") -> Iterator[str]:
    if moved.version is None:
        yield f"{moved.name} has no alias {moved.alias} any more."
        return
    yield f"{moved.alias} of {moved.name} points to version {moved.version}."
    if moved.environment:
        yield f"It stands for {moved.environment}: {moved.reason or 'it pointed there already'}."
    yield f"Ledger entry {moved.ledger_index}."


def _approvers(report: "ApproversSet") -> Iterator[str]:
    asks = f"asks {report.rule}" if report.rule else "has nobody to ask, so it is closed"
    yield f"{report.name}: {report.environment} {asks}. Ledger entry {report.ledger_index}."


def _converted(report: "Conversion") -> Iterator[str]:
    compared = report.compared
    yield f"Version {report.version} of {report.name} is ONNX as well: {report.onnx}"
    yield (
        f"On {compared['rows']} rows {float(str(compared['agree'])):.1%} are within {compared['tolerance']}; "
        f"the largest difference is {float(str(compared['largest'])):.2g}."
    )
