"""A plan in rows and in plain words, for the command line and the pages."""

import math
from collections import Counter
from collections.abc import Iterable

import msgspec

from bedplate.plan.types import Constraint, Cost, Option, Plan, Predicted
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
    if chosen is None or chosen.cost is None:
        yield f"None was chosen: {plan.reason}."
        yield from _hopeless(plan)
    else:
        cost = chosen.cost
        yield f"{plan.reason[0].upper()}{plan.reason[1:]}."
        if plan.about_running:
            yield f"{plan.about_running[0].upper()}{plan.about_running[1:]}."
        yield f"{_shape(chosen)} It costs {money(cost.total, cost)} a {cost.period}: {_parts(cost)}."
        for figure in chosen.predicted:
            yield _figure(figure)
        yield from _sure(chosen)
        if chosen.carbon is not None:
            middle, *ends = (_short(end) for end in (chosen.carbon.value, chosen.carbon.low, chosen.carbon.high))
            yield f"That is {middle} kg of CO2 a {cost.period} [{', '.join(ends)}], by the grid there."
        yield f"Its price is of {chosen.price_date}, from: {chosen.price_source} ({chosen.price_quality})."
    for caution in plan.cautions:
        yield f"{caution[0].upper()}{caution[1:]}."
    if plan.binding is not None:
        yield f"Of what the file asks for, that costs most: {binding(plan.binding, plan.currency)}."
    elif chosen is not None:
        yield "Nothing in the file makes it dearer: letting go of any one requirement would save nothing."
    for place, option in zip(("Second", "Third"), plan.runners_up, strict=False):
        yield f"{place} is {_name(option)}: {option.lost}{_instead(option)}."
    for flip in plan.flips[:3]:
        amount = f"{abs(flip.factor - 1):.0%}" if abs(flip.factor - 1) >= 0.005 else "a trifle"
        then = "Nothing would meet the file" if flip.to == "nothing" else f"It would be {flip.to}"
        yield f"{then} if {flip.name} were {amount} {'higher' if flip.factor > 1 else 'lower'}."
    if plan.here is not None and plan.here is not chosen and not plan.here.meets:
        yield f"This machine does not meet the file: {plan.here.lost}."
    for item in plan.requirements.learned:
        times = f"{item.factor.value:.2f} [{item.factor.low:.2f}, {item.factor.high:.2f}]"
        yield (
            f"What was measured before corrects {item.figure}: {times} times what is counted, by "
            f"{_count(item.factor.n, 'case')}{f'; {item.moved}' if item.moved else ''}."
        )
    if plan.stages:
        slowest = max(plan.stages, key=lambda stage: stage.time.value)
        yield f"Most of a request's work is {slowest.stage}: {_ms(slowest.time)} ms here ({slowest.why})."


def _hopeless(plan: Plan) -> Iterable[str]:
    """Where nothing meets the file: what is in the way, and why most options lost."""
    if not plan.options or any(option.meets for option in plan.options):
        return
    for need in plan.in_the_way:
        what, _, instead = need.name.partition(": ")
        yield f"In the way is {what} (line {need.line}): with {instead}, something would meet the file."
    if not plan.in_the_way:
        yield "No requirement is in the way alone: more than one must give way, or nothing like it was measured."
    reasons = Counter(option.lost for option in plan.options)
    for reason, count in reasons.most_common(3):
        yield f"{count} of {len(plan.options)} lost: {reason}."


def binding(constraint: Constraint, currency: str) -> str:
    """``latency (line 21): ten times the p99 would save 267 USD (52%)``."""
    what, _, instead = constraint.name.partition(": ")
    saved = f"{_amount(constraint.saved)} {currency} ({constraint.share:.0%})"
    return f"{what} (line {constraint.line}): {instead} would save {saved}"


_SHARED = {1: "the optimiser", 2: "gradients and optimiser", 3: "weights, gradients and optimiser"}
_AGAIN = {"selective": "attention", "half": "every second layer", "full": "all"}
_NAMES = {
    "p99": "99 of 100 requests are answered within {}",
    "first token": "99 of 100 answers begin within {}",
    "each further token": "each further word or part of one comes after {}",
    "time of a run": "a run takes {}",
    "one step": "one step of training takes {}",
    "requests a second": "it can answer {} requests a second",
    "tokens a second": "{} tokens (words or parts of one) pass a second",
    "pictures a second": "{} pictures pass a second",
    "pictures a second that processors can read": "its processors can read {} pictures a second (assumed)",
    "rows a second": "{} rows pass a second",
    "records a second": "{} records pass a second",
}


def _figure(figure: Predicted) -> str:
    """One prediction with its interval, its limit and line, and its chance."""
    say = span if figure.unit == "s" else _short
    text = _NAMES[figure.name].format(interval(figure.estimate, figure.unit if figure.unit == "s" else ""))
    if figure.limit is not None:
        text += f"; line {figure.line} asks for {say(figure.limit)}"
        text += (
            f", kept with a probability of {min(figure.chance or 0.0, 0.999):.1%}" if figure.chance is not None else ""
        )
    return f"{text[0].upper()}{text[1:]}."


def _instead(option: Option) -> str:
    """What one would get for it: the first figure that the file bounds, without its interval."""
    figure = next((figure for figure in option.predicted if figure.limit is not None), None)
    if figure is None:
        return ""
    value = figure.estimate.value
    return f"; {_NAMES[figure.name].format(span(value) if figure.unit == 's' else _short(value))}"


def _sure(option: Option) -> Iterable[str]:
    """How far predictions are from a measurement, by the share of their uncertainty that measurements took away."""
    known = [figure.known for figure in option.predicted if figure.known is not None]
    if not known:
        return
    if min(known) == 1.0:
        yield "This very model was measured on this machine: the distance from a measurement is 0."
    elif min(known) < 0.05:
        yield "Nothing like it was measured, so these intervals are wide; measure one copy first."
    else:
        yield (
            f"Published measurements of work like this settle {min(known):.0%} of what is uncertain in these figures; "
            "the intervals hold the rest."
        )


def span(seconds: float) -> str:
    """``21.0 days``, ``5.2 hours``, ``3.0 s``, ``12.5 ms``."""
    if math.isinf(seconds):
        return "no limit"
    for size, unit in ((2 * 86400.0, "days"), (2 * 3600.0, "hours"), (120.0, "minutes")):
        if seconds >= size:
            return f"{seconds / {'days': 86400, 'hours': 3600, 'minutes': 60}[unit]:.1f} {unit}"
    return f"{seconds:.1f} s" if seconds >= 1 else f"{_short(seconds * 1e3)} ms"


def quantity(value: float, unit: str) -> str:
    """A number of a requirement with its unit: seconds as a time, bytes as a size, the rest as it is."""
    if unit == "s":
        return span(value)
    if unit == "bytes":
        for size, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB")):
            if value >= size:
                return f"{value / size:,.3g} {name}"
    if 1e3 <= value < 1e15:
        return f"{value:,.0f} {unit}"
    return f"{value:.6g} {unit}" if value < 1 else f"{value:.4g} {unit}"


def interval(estimate: Estimate, unit: str) -> str:
    """``12.5 ms [11.0 ms, 14.0 ms]``: an estimate between its ends."""
    if unit == "bytes":
        return f"{quantity(estimate.value, unit)} [{quantity(estimate.low, unit)}, {quantity(estimate.high, unit)}]"
    say = span if unit == "s" else _short
    ends = f"{say(estimate.value)} [{say(estimate.low)}, {say(estimate.high)}]"
    return ends if unit in ("s", "") else f"{ends} {unit}"


def _shape(option: Option) -> str:
    """What is rented, and how the work lies on it."""
    copies = "" if option.replicas is None else f" with {_count(option.replicas, 'replica')}"
    text = f"It takes {_count(option.machines, 'machine')}{copies} {_place(option)}"
    if option.market in ("spot", "reserved"):
        text += ", spare machines that may be taken away" if option.market == "spot" else ", committed to for a year"
    layout = option.layout
    if layout is None:
        return f"{text}."
    ways = [f"{layout.devices} x {layout.accelerator.upper().replace('_', ' ')}", f"numbers as {layout.precision}"]
    if layout.tensor > 1:
        ways.append(f"each layer split over {layout.tensor} of them")
    if layout.pipeline > 1:
        held = f", {layout.virtual} of them on each" if layout.virtual > 1 else ""
        ways.append(f"the layers in {layout.pipeline * layout.virtual} stages{held}")
    if layout.expert > 1:
        ways.append(f"experts spread over {layout.expert}")
    if layout.sharding:
        ways.append(f"{_SHARED[layout.sharding]} shared out")
    if layout.recompute != "none":
        ways.append(f"{_AGAIN[layout.recompute]} computed again to save memory")
    if option.replicas is not None:
        ways.append(f"up to {layout.batch} requests at once in each copy")
    return f"{text}: {', '.join(ways)}."


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
        monthly="" if cost is None else money(cost.total, cost),
        verdict="chosen" if option == plan.chosen else option.lost or "meets the file",
    )


def _name(option: Option) -> str:
    paid = f" ({option.market})" if option.market in ("spot", "reserved") else ""
    return option.instance if option.provider == "here" else f"{option.provider} {option.instance}{paid}"


def _place(option: Option) -> str:
    return "here" if option.provider == "here" else f"in {option.region}"


def _ms(estimate: Estimate) -> str:
    return f"{_short(estimate.value * 1e3)} [{_short(estimate.low * 1e3)}, {_short(estimate.high * 1e3)}]"


def _short(value: float) -> str:
    if math.isinf(value):
        return "no limit"
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 1 else f"{value:.2g}"


def money(estimate: Estimate, cost: Cost) -> str:
    """``812 USD [700, 950]``."""
    return f"{_amount(estimate.value)} {cost.currency} [{_amount(estimate.low)}, {_amount(estimate.high)}]"


def _amount(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:,.2f}"


def _parts(cost: Cost) -> str:
    names = ("compute", "idle", "storage", "logging", "egress", "retraining")
    return ", ".join(f"{name} {_amount(getattr(cost, name).value)}" for name in names if getattr(cost, name).high > 0)


def _count(number: int | None, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
