"""``contract``: a first contract for a source, what a new one changes, and what it says about the rows."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bedplate.cli.options import HomeOption, JsonOption, UseCasePath, noun
from bedplate.cli.output import emit
from bedplate.cli.session import connect
from bedplate.errors import InputError

if TYPE_CHECKING:
    from bedplate.app.table_reports import ContractDiffReport, ContractTestReport, PromiseReport


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    group = noun("Data contracts.")
    group.command("infer")(infer)
    group.command("diff")(diff)
    group.command("sla")(sla)
    group.command("test")(examine)
    app.add_typer(group, name="contract")


def infer(
    source: Annotated[Path, typer.Argument(metavar="FILE", help="File of rows: .parquet, .csv, .json (one a line).")],
    name: Annotated[str | None, typer.Option("--name", help="Name of the table. Default: the file's.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="New file to write it to.", show_default=False)] = None,
    home: HomeOption = None,
) -> None:
    """Write a first contract that the rows of a file keep."""
    text = connect(home).contract_infer(source, name=name)
    if out is None:
        typer.echo(text, nl=False)
        return
    try:
        with out.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise InputError("this file is there already", where=str(out), fix="name a new one") from error
    except OSError as error:
        raise InputError(f"the file cannot be written: {error.strerror}", where=str(out), fix="name another") from error
    typer.echo(f"Wrote {out}. Read it over: it knows what was, not what must be.")


def diff(path: UseCasePath = Path(), home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Show what the contracts change against those in force, and what that hits. Exit code 2 if a run would refuse."""
    report = connect(home).contract_diff(path)
    emit(report, as_json=as_json, text=_differs)
    if not report.accepted:
        raise typer.Exit(2)


def _differs(report: "ContractDiffReport") -> Iterator[str]:
    for contract in report.contracts:
        if not contract.changes:
            continue
        yield f"{contract.dataset}: version {contract.before} -> {contract.version}"
        for change in contract.changes:
            whom = "readers and the source" if change.breaks == "both" else change.breaks
            yield f"  {change.column or contract.dataset}: {change.what}; breaks {whom}"
        hits = (("features", contract.features), ("models", contract.models), ("endpoints", contract.endpoints))
        for kind, names in hits:
            if names:
                yield f"  hits {kind}: {', '.join(names)}"
        if not contract.accepted:
            yield "  accept it by a higher first number of its version"
    if not any(contract.changes for contract in report.contracts):
        yield "Nothing that matters to anybody."


def sla(path: UseCasePath = Path(), home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Check whether tables are as fresh and complete as their contracts promise. Exit code 2 if one is not."""
    report = connect(home).contract_sla(path)
    emit(report, as_json=as_json, text=_promised)
    if not report.kept:
        raise typer.Exit(2)


def _promised(report: "PromiseReport") -> Iterator[str]:
    for promise in report.promises:
        yield f"{promise.dataset}: {promise.promise}, {promise.wanted}: {promise.found}" + (
            "" if promise.kept else "  BROKEN"
        )
    if not report.promises:
        yield "No contract promises freshness, frequency or completeness (slaProperties)."


def examine(path: UseCasePath = Path(), home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Test every source of a use case against its contract; no row is kept. Exit code 2 if one does not match."""
    report = connect(home).contract_test(path)
    emit(report, as_json=as_json, text=_tested)
    if not report.passed:
        raise typer.Exit(2)


def _tested(report: "ContractTestReport") -> Iterator[str]:
    for result in report.results:
        broken = sum(outcome.failed > 0 for outcome in result.outcomes)
        yield f"{result.dataset}: {broken} of {len(result.outcomes)} rules broken, under {result.contract}"
        for outcome in result.outcomes:
            if outcome.failed:
                column = f" ({outcome.column})" if outcome.column else ""
                rows = "1 row" if outcome.failed == 1 else f"{outcome.failed:,} rows"
                yield f"  {outcome.severity:<8} {outcome.rule}{column}: {rows}: {outcome.message}"
    broken = any(outcome.failed for result in report.results for outcome in result.outcomes)
    if report.passed:
        yield "A run would go on: no rule of severity error is broken." if broken else "Every contract holds."
    else:
        yield "A contract does not hold: a run would stop."
