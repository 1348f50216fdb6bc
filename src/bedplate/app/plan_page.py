"""A plan as one page that a business owner and an engineer read together: the choice, how sure it is, and what else."""

import math
from collections.abc import Callable, Iterator, Sequence
from html import escape
from typing import NamedTuple

from bedplate.app.report_page import document, words_table
from bedplate.plan import explain
from bedplate.plan.sites import chance
from bedplate.plan.types import Option, Plan, Predicted
from bedplate.records import Estimate

_WIDTH, _HEIGHT = 860, 330
_LEFT, _RIGHT, _TOP, _BOTTOM = 100, 24, 20, 44
_SHOWN = 12
_SURE = 0.9
"""A plan whose promises are each kept with at least this probability is good news."""
_PARTS = ("compute", "idle", "storage", "logging", "egress", "retraining")
_MEANING = {
    "compute": "machines at work",
    "idle": "machines that wait, for peaks and failures",
    "storage": "tables that are kept",
    "logging": "the record of what was answered",
    "egress": "answers that leave the cloud",
    "retraining": "making the model anew",
}


def page(plan: Plan) -> str:
    """The plan as HTML."""
    title = f"Plan of {plan.use_case}"
    return document(title, (f"<h1>{escape(title)}</h1>", *_body(plan)))


def _body(plan: Plan) -> Iterator[str]:
    chosen = plan.chosen
    if chosen is None or chosen.cost is None:
        yield f'<p class="verdict missed">Nothing was chosen: {escape(plan.reason)}.</p>'
    else:
        total = _money(chosen.cost.total)
        sure = plan.breach == "none" and all(f.chance is None or f.chance >= _SURE for f in chosen.predicted)
        yield (
            f'<p class="verdict {"met" if sure else "open"}">{escape(_name(chosen))}: {total} '
            f"{escape(plan.currency)} a {chosen.cost.period}</p>"
        )
    yield "<h2>In plain words</h2><ul>"
    yield from (f"<li>{escape(text)}</li>" for text in explain.words(plan))
    yield "</ul>"
    if chosen is not None:
        yield from _kept(plan, chosen)
        yield from _parts(chosen)
    yield from plots(plan)
    if plan.flips:
        yield "<h2>What would change the choice</h2>"
        flips = [(f"if {f.name} were", _moved(f.factor), f.to) for f in plan.flips]
        yield words_table(("", "", "it would be"), flips)
    saved = [c for c in plan.constraints if c.saved > 0]
    if saved:
        yield "<h2>What each requirement costs</h2>"
        saving = [(c.name, f"{_small(c.saved)} {plan.currency}", f"{c.share:.0%}", str(c.line)) for c in saved]
        yield words_table(("let go of", "saves", "of the total", "line in usecase.yaml"), saving, (1, 2, 3))
    yield "<h2>What was compared</h2>"
    rows = [_row(option) for option in plan.options[:_SHOWN]]
    yield words_table(("option", plan.currency, "verdict"), rows, (1,))
    if len(plan.options) > _SHOWN:
        yield f'<p class="quiet">and {len(plan.options) - _SHOWN} more, in bedplate plan --json</p>'


def _row(option: Option) -> tuple[str, str, str]:
    cost = _small(option.cost.total.value) if option.cost is not None else ""
    return _name(option), cost, option.lost or "chosen"


def _kept(plan: Plan, chosen: Option) -> Iterator[str]:
    """Each promise of the file, what is predicted, and how likely it is kept; the budget among them."""
    rows = [
        (f.name, _amount(f.estimate, f.unit), f"at most {_value(f.limit, f.unit)}" if f.unit == "s" else
         f"at least {_value(f.limit, f.unit)}", _chance(f.chance))
        for f in chosen.predicted if f.limit is not None
    ]  # fmt: skip
    cost = chosen.cost
    budget = plan.requirements.allowed(cost.period) if cost is not None else None
    if budget is not None and cost is not None:
        limit = f"at most {budget.amount:,.0f} {budget.currency}"
        rows.append(("budget", _money(cost.total), limit, _chance(chance(cost.total, budget.amount))))
    if rows:
        yield "<h2>How sure it is that each promise is kept</h2>"
        yield words_table(("promise", "predicted, with its interval", "the file asks for", "probability"), rows, (3,))


def _parts(chosen: Option) -> Iterator[str]:
    cost = chosen.cost
    if cost is None:
        return
    parts = [(name, getattr(cost, name)) for name in _PARTS]
    shown = [(name, part) for name, part in parts if part.value > 0]
    most = max((part.value for _, part in shown), default=1.0)
    drawn = []
    for i, (name, part) in enumerate(shown):
        top, wide = 30 * i, max(1.0, 300 * part.value / most)
        drawn.append(f'<text class="label" x="0" y="{top + 18}">{name}</text>')
        drawn.append(f'<rect class="bar" x="96" y="{top + 5}" width="{wide:.1f}" height="18" rx="3"/>')
        amount = _small(part.value) if part.value >= 0.01 else "under 0.01"
        label = f"{amount} {cost.currency}: {_MEANING[name]}"
        drawn.append(f'<text x="{104 + wide:.1f}" y="{top + 18}">{escape(label)}</text>')
    yield f"<h2>What a {cost.period} costs, by part</h2>"
    height = max(1, 30 * len(shown))
    yield f'<figure><svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="Cost by part">{"".join(drawn)}</svg>'
    yield "</figure>"


# -------------------------------------------------------------------------------------------------------------- plots


class _Dot(NamedTuple):
    x: float
    y: float
    kind: str
    title: str


def plots(plan: Plan, heading: str = "h2") -> Iterator[str]:
    """Cost against the time that the file bounds, and against carbon, each under its heading: HTML that is whole."""
    timed = _dots(plan, lambda option: figure.estimate if (figure := _time(option)) is not None else None)
    figure = next((f for o in (plan.chosen, *plan.options) if o is not None and (f := _time(o)) is not None), None)
    if len(timed) > 1 and figure is not None:
        yield f"<{heading}>Cost against {escape(figure.name)}</{heading}>"
        yield _scatter(timed, plan.currency, figure.name, explain.span, figure.limit)
    grams = _dots(plan, lambda option: option.carbon)
    if len(grams) > 1:
        yield f"<{heading}>Cost against carbon</{heading}>"
        yield _scatter(grams, plan.currency, "kg of CO2", lambda value: f"{_small(value)} kg", None)


def _time(option: Option) -> Predicted | None:
    """The time that the file bounds, of an option."""
    return next((f for f in option.predicted if f.unit == "s" and f.limit is not None), None)


def _dots(plan: Plan, of: Callable[[Option], Estimate | None]) -> list[_Dot]:
    found = []
    for option in reversed(plan.options):  # the best are drawn last, above the others
        estimate = of(option)
        if option.cost is None or estimate is None or option.cost.total.value <= 0:
            continue
        value = estimate.value
        if value <= 0 or not math.isfinite(value):
            continue
        kind = "dot best" if option == plan.chosen else "dot" if option.meets else "dot faint"
        title = f"{_name(option)}: {option.cost.total.value:,.0f} {plan.currency}; {option.lost or 'chosen'}"
        found.append(_Dot(option.cost.total.value, value, kind, title))
    return found


def _scatter(dots: Sequence[_Dot], currency: str, what: str, say: Callable[[float], str], limit: float | None) -> str:
    """Options by cost and something else, both by powers, with those that nothing beats in both joined by a line."""
    low_x, high_x = _ends([dot.x for dot in dots])
    low_y, high_y = _ends([dot.y for dot in dots] + ([limit] if limit else []))

    def x(value: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * math.log(value / low_x) / math.log(high_x / low_x)

    def y(value: float) -> float:
        return _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * math.log(value / low_y) / math.log(high_y / low_y)

    drawn = []
    for part in range(5):
        across, up = low_x * (high_x / low_x) ** (part / 4), low_y * (high_y / low_y) ** (part / 4)
        drawn.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y(up):.1f}" y2="{y(up):.1f}"/>')
        drawn.append(f'<text x="{_LEFT - 8}" y="{y(up) + 4:.1f}" text-anchor="end">{escape(say(up))}</text>')
        drawn.append(f'<text x="{x(across):.1f}" y="{_HEIGHT - 24}" text-anchor="middle">{_small(across)}</text>')
    if limit:
        drawn.append(
            f'<line class="limit" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y(limit):.1f}" y2="{y(limit):.1f}"/>'
        )
        drawn.append(
            f'<text class="limit" x="{_WIDTH - _RIGHT}" y="{y(limit) - 6:.1f}" text-anchor="end">the file asks for '
            f"{escape(say(limit))}</text>"
        )
    best: list[_Dot] = []
    for dot in sorted(dots, key=lambda dot: (dot.x, dot.y)):
        if "faint" not in dot.kind and (not best or dot.y < best[-1].y):
            best.append(dot)
    drawn.append(f'<polyline class="curve two" points="{" ".join(f"{x(d.x):.1f},{y(d.y):.1f}" for d in best)}"/>')
    drawn += [
        f'<circle class="{dot.kind}" cx="{x(dot.x):.1f}" cy="{y(dot.y):.1f}" r="{7 if "best" in dot.kind else 4}">'
        f"<title>{escape(dot.title)}</title></circle>"
        for dot in dots
    ]
    drawn.append(f'<text x="{_WIDTH / 2}" y="{_HEIGHT - 4}" text-anchor="middle">{escape(currency)}</text>')
    return (
        f'<figure><svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="Cost against {escape(what)}">'
        f"{''.join(drawn)}</svg><figcaption>Each dot is an option, the large one is chosen, pale ones do not meet the "
        "file. Along the line nothing that meets the file is both cheaper and better.</figcaption></figure>"
    )


def _ends(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values) * 0.85, max(values) * 1.18
    return low, max(high, low * 1.5)


# -------------------------------------------------------------------------------------------------------------- words


def _name(option: Option) -> str:
    if option.provider == "here":
        return option.instance
    market = "" if option.market == "on-demand" else f", {option.market}"
    return f"{option.provider} {option.instance} in {option.region}{market}"


def _money(e: Estimate) -> str:
    return f"{_small(e.value)} [{_small(e.low)}, {_small(e.high)}]"


def _small(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.3g}"


def _value(value: float | None, unit: str) -> str:
    if value is None:
        return ""
    return explain.span(value) if unit == "s" else f"{value:,.4g} {unit}"


def _amount(e: Estimate, unit: str) -> str:
    ends = f"[{_value(e.low, unit)}, {_value(e.high, unit)}]"
    return f"{_value(e.value, unit)} {ends}"


def _moved(factor: float) -> str:
    by = abs(factor - 1)
    return f"{f'{by:.0%}' if by >= 0.005 else 'a trifle'} {'higher' if factor > 1 else 'lower'}"


def _chance(value: float | None) -> str:
    return "not known" if value is None else f"{min(value, 0.999):.1%}" if value >= 0.001 else "under 0.1%"
