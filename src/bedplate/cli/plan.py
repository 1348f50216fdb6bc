"""``plan``: what would run, where, at which cost. Changes nothing."""

from collections.abc import Iterator
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Annotated

import typer

from bedplate.cli.options import HomeOption, JsonOption, UseCasePath
from bedplate.cli.output import emit, table
from bedplate.cli.session import connect
from bedplate.errors import InputError
from bedplate.words import clip, money, number, seconds

if TYPE_CHECKING:
    from bedplate.app.read_models import PlanOption, PlanReport
    from bedplate.plan.compare import Comparison
    from bedplate.plan.portfolio import Portfolio

SHOWN = 12
"""Rows of the option table that a person gets; ``--json`` has all."""


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command("plan")(plan)


def plan(
    path: UseCasePath = Path(),
    page: Annotated[
        Path | None, typer.Option("--page", help="Write the plan as an HTML page as well.", show_default=False)
    ] = None,
    what_if: Annotated[
        list[str] | None,
        typer.Option(
            "--what-if",
            metavar="PATH=VALUE",
            help="Compare with a plan where this stood in the file; may be repeated.",
            show_default=False,
        ),
    ] = None,
    ask: Annotated[
        bool, typer.Option("--ask", help="Ask for what the file leaves open, and write the answers into it.")
    ] = False,
    together: Annotated[
        bool, typer.Option("--all", help="Plan the use cases in the folders of PATH together: what to fund first.")
    ] = False,
    budget: Annotated[
        str, typer.Option("--budget", help="With --all: what a month may cost. Default: the sum of their budgets.")
    ] = "",
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show requirements, priced options, the choice, and what a run would do. Changes nothing but with --ask."""
    bedplate = connect(home)
    if together:
        if what_if or ask or page is not None:
            raise InputError("--all stands alone", where="--all", fix="leave out --what-if, --ask and --page")
        emit(bedplate.plan_all(path, budget), as_json=as_json, text=portfolio_lines)
        return
    if budget:
        raise InputError("--budget goes with --all", where="--budget", fix="state requirements.budget in the file")
    if ask:
        if what_if or as_json:
            raise InputError("--ask stands alone", where="--ask", fix="leave out --what-if and --json")
        from bedplate.cli.asking import interview

        interview(bedplate, path)
    if what_if:
        if page is not None:
            raise InputError("a comparison has no page", where="--page", fix="leave out --page, or --what-if")
        emit(bedplate.what_if(path, what_if), as_json=as_json, text=comparison_lines)
        return
    report = bedplate.plan(path)
    if page is not None:
        from bedplate import files

        files.write(page.absolute(), bedplate.plan_page(path).encode(), 0o644)
    emit(report, as_json=as_json, text=plan_lines)


def portfolio_lines(found: "Portfolio") -> Iterator[str]:
    """What to fund, in order, then what not and why; what is shared, and what it comes to."""
    head = ("", "use case", f"worth {found.currency}/month", "costs", "where", "why")
    rows = (
        (
            str(share.order or ""),
            share.use_case,
            "" if share.worth is None else f"{share.worth:,.0f}",
            "" if share.cost is None else f"{share.cost:,.0f}",
            clip(share.option, 60),
            clip(f"{share.state}: {share.why}", 90),
        )
        for share in found.shares
    )
    yield from table(head, rows, right=(2, 3))
    yield ""
    budget = "no budget" if found.budget is None else f"a budget of {money(found.budget, found.currency)}"
    yield f"Funded: {money(found.cost, found.currency)} a month of {budget}, worth {money(found.worth, found.currency)}"
    if found.pool:
        yield f"Shared: {found.pool}; saves {money(found.saved, found.currency)} a month"
    if found.gap:
        yield f"Another choice could be worth up to {money(found.gap, found.currency)} a month more"


def comparison_lines(compared: "Comparison") -> Iterator[str]:
    """Two plans side by side: what was asked, which requirements change, what it comes to, and why."""
    yield "If usecase.yaml said otherwise"
    yield from table(("", "line", "now", "what if"), ((d.what, str(d.line), d.before, d.after) for d in compared.asked))
    yield ""
    if compared.needs:
        yield "Requirements that change"
        rows = ((d.what, d.before, d.after, clip(f"{d.rule} (line {d.line})", 60)) for d in compared.needs)
        yield from table(("", "now", "what if", "why"), rows)
        yield ""
    yield "The plan"
    yield from table(("", "now", "what if"), ((d.what, d.before, d.after) for d in compared.choice))
    yield ""
    for words in compared.words:
        yield from wrap(f"- {words}", 110, initial_indent="  ", subsequent_indent="    ")


def plan_lines(report: "PlanReport") -> Iterator[str]:
    """The plan as text: requirements, options, choice, stages."""
    yield f"Plan of {report.use_case}"
    yield ""
    yield "Requirements, each from its line in usecase.yaml"
    wide = max((len(requirement.value) for requirement in report.requirements), default=0)
    for requirement in report.requirements:
        line = f" (line {requirement.line})" if requirement.line else ""
        yield f"  {requirement.name:<22} {requirement.value:<{wide}}  {clip(requirement.because + line, 100)}"
    yield ""
    yield f"Options, prices from {report.price_source} of {report.price_date}" if report.price_source else "Options"
    rows = (_option_row(option, report) for option in report.options[:SHOWN])
    amount, ends = f"{report.currency}/{report.period}", any(option.run_seconds for option in report.options)
    work = ("machines", amount, "time of a run") if ends else ("copies", amount, "p99")
    head = ("", "instance", "cloud", "region", "vCPU", "GiB", *work, "why")
    yield from table(head, rows, right=(4, 5, 6, 7))
    if len(report.options) > SHOWN:
        yield f"  and {len(report.options) - SHOWN} more: bedplate plan --json"
    yield ""
    yield from _chosen(report)
    if report.training_cost is not None:
        yield f"  training   {money(report.training_cost, report.currency)} a run"
    yield ""
    yield "In plain words"
    for reason in report.reasons:
        yield from wrap(f"- {reason}", 110, initial_indent="  ", subsequent_indent="    ")
    if not report.stages:
        return
    yield ""
    yield "A run would do"
    for stage in report.stages:
        yield f"  {stage.stage:<10} {stage.action:<5} {stage.because}"


def _chosen(report: "PlanReport") -> Iterator[str]:
    if report.monthly_cost is None:
        yield "Chosen: none"
        return
    yield f"Chosen: {report.chosen}, {money(report.monthly_cost, report.currency)} a {report.period}{_budget(report)}"
    yield f"  bound by   {report.binding_constraint}"
    yield f"  runner-up  {report.runner_up or 'none: no other option is feasible'}"


def _budget(report: "PlanReport") -> str:
    if report.budget is None:
        return ", no budget given"
    word = "within" if report.within_budget else "ABOVE"
    return f", {word} the budget of {money(report.budget, report.currency)}"


def _option_row(option: "PlanOption", report: "PlanReport") -> tuple[str, ...]:
    mark = "*" if option.name == report.chosen else "2" if option.name == report.runner_up else ""
    return (
        mark,
        option.name,
        option.provider,
        option.region,
        number(option.cpus),
        number(option.memory_gib),
        str((option.machines if option.run_seconds else option.replicas) or ""),
        f"{option.monthly:,.2f}" if option.monthly else "",
        _time(option),
        clip(option.reason, 40),
    )


def _time(option: "PlanOption") -> str:
    from bedplate.plan.explain import span

    if option.run_seconds is not None:
        e = option.run_seconds
        return f"{seconds(e.value)} [{seconds(e.low)}, {seconds(e.high)}]"
    if option.p99_ms is None:
        return ""
    middle, low, high = (span(end / 1e3) for end in (option.p99_ms.value, option.p99_ms.low, option.p99_ms.high))
    return f"{middle} [{low}, {high}]"
