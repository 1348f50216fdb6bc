"""``contract test``: what the contracts of a use case say about its sources, before anything is kept."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from bedplate.cli.options import HomeOption, JsonOption, UseCasePath, noun
from bedplate.cli.output import emit
from bedplate.cli.session import connect

if TYPE_CHECKING:
    from bedplate.app.read_models import ContractTestReport


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    group = noun("Data contracts.")
    group.command("test")(examine)
    # A second command keeps `contract` a group: one command alone would lose its name.
    group.callback()(lambda: None)
    app.add_typer(group, name="contract")


def examine(path: UseCasePath = Path(), home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Test every source of a use case against its contract; no row is kept. Exit code 2 if one does not match."""
    report = connect(home).contract_test(path)
    emit(report, as_json=as_json, text=_tested)
    if not report.passed:
        raise typer.Exit(2)


def _tested(report: ContractTestReport) -> Iterator[str]:
    for result in report.results:
        broken = sum(outcome.failed > 0 for outcome in result.outcomes)
        yield f"{result.dataset}: {broken} of {len(result.outcomes)} rules broken, under {result.contract}"
        for outcome in result.outcomes:
            if outcome.failed:
                column = f" ({outcome.column})" if outcome.column else ""
                yield f"  {outcome.severity:<8} {outcome.rule}{column}: {outcome.failed:,} rows: {outcome.message}"
    yield "Every contract holds." if report.passed else "A contract does not hold."
