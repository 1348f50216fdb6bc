"""Geometry of the charts that the server draws: values on a scale from 0 to 100. The templates turn them into SVG."""

from collections.abc import Sequence
from typing import NamedTuple

from bedplate.plan.portfolio import Portfolio
from bedplate.records import DriftFinding, Estimate, TrainResult


class Interval(NamedTuple):
    """One row of an interval chart: the label, the figure, and where it lies between 0 and 100."""

    label: str
    estimate: Estimate
    low: float
    value: float
    high: float
    emphasis: str = ""
    note: str = ""


class IntervalChart(NamedTuple):
    """Rows on one common scale. ``mark`` is the position of a reference value, such as zero or a limit."""

    rows: tuple[Interval, ...]
    start: float
    end: float
    mark: float | None = None
    mark_label: str = ""


def intervals(
    rows: Sequence[tuple[str, Estimate, str, str]], *, mark: float | None = None, mark_label: str = ""
) -> IntervalChart:
    """A chart of (label, estimate, emphasis, note) on one scale that always holds zero."""
    edges = [0.0, *(e.low for _, e, _, _ in rows), *(e.high for _, e, _, _ in rows)]
    if mark is not None:
        edges.append(mark)
    start, end = min(edges), max(edges)
    span = (end - start) * 1.04 or 1.0

    def place(value: float) -> float:
        return round(100 * (value - start) / span, 2)

    return IntervalChart(
        rows=tuple(
            Interval(label, e, place(e.low), place(e.value), place(e.high), emphasis, note)
            for label, e, emphasis, note in rows
        ),
        start=start,
        end=start + span,
        mark=None if mark is None else place(mark),
        mark_label=mark_label,
    )


class Bar(NamedTuple):
    """What one use case is worth and costs, on a scale from 0 to 100; ``worth`` is None where nobody said."""

    name: str
    worth: float | None
    cost: float


def funding(found: Portfolio) -> tuple[Bar, ...]:
    """Worth and cost of each use case that has a cost, on one scale."""
    rows = [share for share in found.shares if share.cost is not None]
    most = max([*(share.cost or 0.0 for share in rows), *(share.worth or 0.0 for share in rows)], default=0.0) or 1.0
    return tuple(
        Bar(
            share.use_case,
            None if share.worth is None else round(100 * share.worth / most, 2),
            round(100 * (share.cost or 0.0) / most, 2),
        )
        for share in rows
    )


def models(training: TrainResult, metric: str, part: str = "all") -> IntervalChart | None:
    """The candidate against every baseline on one metric and slice, best first."""
    rows = [m for m in training.metrics if m.metric == metric and m.slice == part]
    if not rows:
        return None
    rows.sort(key=lambda m: -m.estimate.value)
    return intervals([(m.model, m.estimate, "candidate" if m.model == "candidate" else "", "") for m in rows])


def leads(training: TrainResult, metric: str, part: str = "all") -> IntervalChart | None:
    """How far the candidate is ahead of each baseline; an interval that touches zero proves nothing."""
    rows = [c for c in training.comparisons if c.metric == metric and c.slice == part]
    if not rows:
        return None
    shown = [(c.baseline, c.difference, "good" if c.difference.low > 0 else "bad", "") for c in rows]
    return intervals(shown, mark=0.0, mark_label="no difference")


def drift(findings: Sequence[DriftFinding]) -> IntervalChart | None:
    """Effect per feature against the least effect that matters."""
    if not findings:
        return None
    ordered = sorted(findings, key=lambda f: (not f.alarm, -f.effect.value))
    rows = [(f.feature, f.effect, "bad" if f.alarm else "", f"e-value {f.e_value:,.3g}") for f in ordered]
    least = findings[0].minimum_effect
    return intervals(rows, mark=least, mark_label=f"least effect that matters: {least:g}")


def metric_names(training: TrainResult) -> tuple[str, ...]:
    """The metrics of a run in the order the recipe reported them."""
    return tuple(dict.fromkeys(m.metric for m in training.metrics))


def slice_names(training: TrainResult) -> tuple[str, ...]:
    """The slices of a run, everyone first."""
    return tuple(sorted(dict.fromkeys(m.slice for m in training.metrics), key=lambda name: name != "all"))


def model_names(training: TrainResult) -> tuple[str, ...]:
    """The candidate, then the baselines in the order the recipe reported them."""
    return tuple(sorted(dict.fromkeys(m.model for m in training.metrics), key=lambda name: name != "candidate"))


def metric_cell(training: TrainResult, metric: str, model: str, part: str) -> Estimate | None:
    """One cell of the metrics table."""
    for m in training.metrics:
        if (m.metric, m.model, m.slice) == (metric, model, part):
            return m.estimate
    return None
