"""A plan in rows and in plain words, for the command line and the pages."""

import math
from collections.abc import Iterable

import msgspec

from bedplate.plan.types import Cost, Option, Plan
from bedplate.records import Estimate


class TableRow(msgspec.Struct, frozen=True, kw_only=True):
    """One option as text; an empty cell was not predicted."""

    option: str
    region: str
    cores: str
    memory: str
    replicas: str
    p99: str
    busy: str
    monthly: str
    verdict: str


HEADERS = ("option", "region", "cores", "memory", "replicas", "p99 ms", "busy", "monthly", "verdict")


def rows(plan: Plan) -> tuple[TableRow, ...]:
    """Every option, the chosen one first, then those that meet the file by cost, then the others."""
    first = [plan.chosen] if plan.chosen else []
    others = [option for option in plan.options if option != plan.chosen]
    return tuple(_row(option, plan) for option in (*first, *others))


def table(plan: Plan, limit: int | None = None) -> str:
    """:func:`rows` as text in columns; at most ``limit`` options, and how many were left out."""
    every = rows(plan)
    shown = every[:limit]
    cells = [HEADERS, *(msgspec.structs.astuple(row) for row in shown)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(HEADERS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    if len(shown) < len(every):
        lines.append(f"... and {len(every) - len(shown)} more")
    return "\n".join(lines)


def words(plan: Plan) -> tuple[str, ...]:
    """The plan in sentences: the choice, what it costs and why, what binds, what comes second, what runs here."""
    return tuple(_words(plan))


def _words(plan: Plan) -> Iterable[str]:
    options = len(plan.options)
    judged = sum(option.cost is not None for option in plan.options)
    yield (
        f"{options} ways to run {plan.use_case} were compared; {judged} could be sized and priced, "
        f"{sum(option.meets for option in plan.options)} meet the file."
    )
    chosen = plan.chosen
    if chosen is None or chosen.cost is None or chosen.p99 is None:
        yield f"None was chosen: {plan.reason}."
    else:
        cost = chosen.cost
        yield f"{plan.reason[0].upper()}{plan.reason[1:]}."
        yield (
            f"It takes {_count(chosen.machines, 'machine')} with {_count(chosen.replicas, 'replica')} "
            f"{_place(chosen)}, and costs {_money(cost.total, cost)} a month: {_parts(cost)}."
        )
        p99 = plan.requirements.item("p99")
        yield (
            f"99 of 100 requests are answered within {_ms(chosen.p99)} ms at the peak; "
            f"line {p99.line} asks for {p99.value * 1e3:g} ms."
        )
        yield f"Its price is of {chosen.price_date}, from: {chosen.price_source} ({chosen.price_quality})."
    if plan.binding is not None:
        yield (
            f"What binds is {plan.binding.name} (line {plan.binding.line}): without it a month would cost "
            f"{plan.binding.saved:,.0f} {plan.currency} less."
        )
    elif chosen is not None:
        yield "Nothing in the file makes it dearer: letting go of any one requirement would save nothing."
    if plan.runner_up is not None:
        yield f"Second is {_name(plan.runner_up)}: {plan.runner_up.lost}."
    if plan.here is not chosen and not plan.here.meets:
        yield f"This machine does not meet the file: {plan.here.lost}."
    slowest = max(plan.stages, key=lambda stage: stage.time.value)
    yield f"Most of a request's work is {slowest.stage}: {_ms(slowest.time)} ms here ({slowest.why})."


def _row(option: Option, plan: Plan) -> TableRow:
    cost = option.cost
    return TableRow(
        option=_name(option),
        region=option.region,
        cores=str(option.vcpus),
        memory=f"{option.memory_gib:g} GiB",
        replicas="" if option.replicas is None else f"{option.replicas} on {option.machines}",
        p99="" if option.p99 is None else _ms(option.p99),
        busy="" if option.utilisation is None else f"{option.utilisation.value:.0%}",
        monthly="" if cost is None else _money(cost.total, cost),
        verdict="chosen" if option == plan.chosen else option.lost or "meets the file",
    )


def _name(option: Option) -> str:
    return option.instance if option.provider == "here" else f"{option.provider} {option.instance}"


def _place(option: Option) -> str:
    return "here" if option.provider == "here" else f"in {option.region}"


def _ms(estimate: Estimate) -> str:
    return f"{_short(estimate.value * 1e3)} [{_short(estimate.low * 1e3)}, {_short(estimate.high * 1e3)}]"


def _short(value: float) -> str:
    return "no limit" if math.isinf(value) else f"{value:.1f}" if value >= 1 else f"{value:.2g}"


def _money(estimate: Estimate, cost: Cost) -> str:
    return f"{estimate.value:,.0f} {cost.currency} [{estimate.low:,.0f}, {estimate.high:,.0f}]"


def _parts(cost: Cost) -> str:
    names = ("compute", "idle", "storage", "logging", "egress", "retraining")
    parts = [(name, getattr(cost, name).value) for name in names]
    return ", ".join(
        f"{name} {value:,.0f}" if value >= 0.5 or value == 0 else f"{name} {value:.2f}" for name, value in parts
    )


def _count(number: int | None, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
