"""``features``: what is declared, what is online, and whether it is what was learned from."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from bedplate.cli.options import HomeOption, JsonOption, UseCaseName, noun
from bedplate.cli.output import emit, table
from bedplate.cli.session import connect
from bedplate.words import listed, moment, number

if TYPE_CHECKING:
    from bedplate.app.feature_reports import FeatureValues, Materialised, SkewReport, ViewLine, ViewReport

View = Annotated[str, typer.Argument(metavar="VIEW", help="Name of the feature view.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    group = noun("Features: what is declared, what is online, and whether it is what was learned from.")
    group.command("list")(list_)
    group.command("show")(show)
    group.command("materialize")(materialize)
    group.command("get")(get)
    group.command("skew")(skew)
    app.add_typer(group, name="features")


def list_(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """List the feature views of the use cases that you may know of."""
    emit({"views": connect(home).features.list()}, as_json=as_json, text=lambda found: _all(found["views"]))


def _all(views: "Sequence[ViewLine]") -> Iterator[str]:
    yield from table(
        ("use case", "view", "entity", "features", "online as of", "owner"),
        ((v.use_case, v.view, ", ".join(v.entity), str(v.features), _when(v.as_of), v.owner or "-") for v in views),
        right=(3,),
    )


def _when(time: str | None) -> str:
    return "-" if time is None else moment(time)


def show(use_case: UseCaseName, view: View, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Show one view: features, declaration, what it inherits, what is online."""
    emit(connect(home).features.show(use_case, view), as_json=as_json, text=_view)


def _view(report: "ViewReport") -> Iterator[str]:
    declared = report.declared
    yield f"{report.use_case} {report.view}  of {', '.join(declared.entity)}, {'rows' if declared.rows else 'moments'}"
    yield f"features  {listed(report.features)}"
    yield f"inputs    {listed(declared.inputs)}"
    yield f"rests on  {listed(declared.rests_on)}"
    yield f"purposes  {listed(report.purposes)}"
    yield f"tags      {listed((*report.tags, *(f'{name} (sensitive)' for name in report.sensitive)), 'none')}"
    yield f"owner     {declared.owner or '-'}"
    yield f"to live   {'without end' if declared.ttl is None else f'{declared.ttl:g} s'}"
    yield f"version   {declared.digest}"
    yield f"table     {report.table}, version {report.version}"
    yield f"online    {number(report.online)} entities as of {_when(report.as_of)}"
    if report.skew is not None:
        yield f"skew      {_verdict(report.skew)}"


def materialize(
    use_case: UseCaseName,
    view: Annotated[list[str] | None, typer.Argument(metavar="[VIEW]...", help="Views. Default: all.")] = None,
    as_of: Annotated[
        str | None, typer.Option("--as-of", help="The moment, such as 2026-01-31T10:00. Default: now.")
    ] = None,
    since: Annotated[
        str | None, typer.Option("--from", help="Only entities that rows from this time on touch.")
    ] = None,
    until: Annotated[str | None, typer.Option("--to", help="Only rows before this time touch them.")] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compute features from the newest rows and put them online."""
    made = connect(home).features.materialise(use_case, view or (), as_of=as_of, since=since, until=until)
    emit(made, as_json=as_json, text=_materialised)


def _materialised(made: "Materialised") -> Iterator[str]:
    for view, count in made.views.items():
        yield f"{view}: {number(count)} entities as of {moment(made.as_of)}"


def get(
    use_case: UseCaseName,
    view: View,
    key: Annotated[list[int], typer.Argument(metavar="KEY...", help="Keys of entities.")],
    purpose: Annotated[
        str | None, typer.Option("--purpose", help="What they are read for. Default: what the use case names.")
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Look up the online features of entities, as you may see them; the read stands in the ledger."""
    emit(connect(home).features.get(use_case, view, key, purpose), as_json=as_json, text=_values)


def _values(found: "FeatureValues") -> Iterator[str]:
    head = ("feature", *(str(entity.key) for entity in found.entities))
    columns = zip(*(entity.values for entity in found.entities), strict=True)
    rows = [
        (name, *("-" if value is None else f"{value:g}" for value in values))
        for name, values in zip(found.features, columns, strict=True)
    ]
    rows.append(("as of", *(entity.missing or _when(entity.as_of) for entity in found.entities)))
    yield from table(head, rows, right=range(1, len(head)))
    if found.masked:
        yield "Masked: they rest on columns that are hidden from you."


def skew(
    use_case: UseCaseName,
    sample: Annotated[int, typer.Option("--sample", help="Most predictions to compare.")] = 1000,
    since: Annotated[
        str | None, typer.Option("--since", help="Predictions from this time on.", show_default=False)
    ] = None,
    limit: Annotated[float, typer.Option("--limit", help="Share of differing values that alarms.")] = 0.01,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare served features with their recomputation. Exit code 2 if one is over the limit."""
    report = connect(home).features.skew(use_case, sample=sample, since=since, limit=limit)
    emit(report, as_json=as_json, text=_skewed)
    if report.alarm:
        raise typer.Exit(2)


def _skewed(report: "SkewReport") -> Iterator[str]:
    yield from table(
        ("feature", "differ", "95 %", "mean difference", "largest", ""),
        (
            (
                each.feature,
                f"{each.share.value:.1%}",
                f"[{each.share.low:.1%}, {each.share.high:.1%}]",
                f"{each.size.value:.3g} [{each.size.low:.3g}, {each.size.high:.3g}]",
                f"{each.largest:.3g}",
                "OVER THE LIMIT" if each.alarm else "",
            )
            for each in report.features
        ),
        right=(1, 2, 3, 4),
    )
    yield _verdict(report)


def _verdict(report: "SkewReport") -> str:
    over = [each.feature for each in report.features if each.alarm]
    said = f"over {report.limit:.1%}: {', '.join(over)}" if over else f"none over {report.limit:.1%}"
    return f"{number(report.samples)} predictions, {said}"
