"""A load run as one page that needs nothing but itself: the verdict, latency over time, and every percentile."""

import math
from collections.abc import Sequence
from html import escape

from bedplate.app.read_models import LoadReport
from bedplate.app.report_page import document
from bedplate.records import Estimate

_WIDTH, _HEIGHT = 860, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 16, 16, 40
_NINES = (0.0, 0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999)
Points = Sequence[tuple[float, float]]


def page(report: LoadReport) -> str:
    """The report as HTML, light or dark as its reader has it."""
    test = report.test
    title = f"Load on {report.endpoint}"
    rows = [
        ("answered", f"{test.requests - test.failed:,}", f"{test.rate:,.1f}/s over {test.seconds:.1f} s"),
        ("failed", f"{test.failed:,}", f"share {_estimate(report.failures, 5)}"),
        ("never sent", f"{test.unsent:,}", f"with {test.connections} connections"),
    ]
    if test.lag_p99_ms is not None:
        rows.append(("client late by", f"{test.lag_p99_ms:.2f} ms", "at the 99th percentile"))
    if report.ceiling is not None:
        rows.append(("client could send", f"{report.ceiling:,.0f}/s", "measured against a server that does nothing"))
    shares = [
        (f"p{100 * share:g}", f"{estimate.value:.2f} ms", f"[{_bound(estimate.low)}, {_bound(estimate.high)}] ms")
        for share, estimate in test.intervals
    ]
    curve = [(_nines(share), value) for share, value in test.percentiles]
    ticks = [(_nines(share), f"{100 * share:g} %") for share in _NINES]
    last = max((x for x, _ in curve), default=1.0)
    over = [(part.at, part.p50_ms) for part in test.over_time], [(part.at, part.p99_ms) for part in test.over_time]
    seconds = max(1.0, test.over_time[-1].at if test.over_time else 1.0)
    step = max(1, math.ceil(seconds / 10))
    times = [(float(at), f"{at} s") for at in range(0, int(seconds) + 1, step)]
    limit = test.limit_p99_ms
    return document(
        title,
        (
            f"<h1>{escape(title)}</h1>",
            f'<p class="quiet">{escape(report.url)} at {report.rate:g} requests/s; {report.requests:,} different '
            f"requests; the use case expects {report.peak:g}/s at its peak</p>",
            f'<p class="verdict {report.verdict}">{report.verdict.upper()}: {escape("; ".join(report.because))}</p>',
            *(f"<p>Warning: {escape(text)}</p>" for text in report.warnings),
            "<h2>Latency over time</h2>",
            _plot((("one", "p50", over[0]), ("two", "p99", over[1])), times, seconds, limit),
            "<h2>Latency by percentile</h2>",
            _plot((("one", "", curve),), [t for t in ticks if t[0] <= last + 1e-9], last, limit),
            '<p class="quiet">Each step to the right is ten times rarer. Requests count from when they were due.</p>',
            "<h2>Percentiles</h2>",
            _table(("percentile", "latency", "95 % interval"), shares),
            "<h2>Requests</h2>",
            _table(("", "", ""), rows),
        ),
    )


def _nines(share: float) -> float:
    """Where a share lies on an axis of which each unit is ten times rarer."""
    return -math.log10(max(1 - share, 1e-5))


def _plot(
    lines: Sequence[tuple[str, str, Points]], ticks: Sequence[tuple[float, str]], right: float, limit: float
) -> str:
    """Curves over one axis from 0 to ``right``, in milliseconds from zero, with the limit if it is finite."""
    top = max([value for _, _, points in lines for _, value in points] or [1.0]) or 1.0
    shown = math.isfinite(limit) and limit <= 4 * top
    top = _round(max(top, limit) if shown else top)

    def x(value: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * value / (right or 1.0)

    def y(value: float) -> float:
        return _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * value / top

    drawn = []
    for part in range(5):
        value = top * part / 4
        drawn.append(
            f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y(value):.1f}" y2="{y(value):.1f}"/>'
        )
        drawn.append(f'<text x="{_LEFT - 8}" y="{y(value) + 4:.1f}" text-anchor="end">{value:g} ms</text>')
    drawn += [
        f'<text x="{x(at):.1f}" y="{_HEIGHT - _BOTTOM + 20}" text-anchor="middle">{escape(text)}</text>'
        for at, text in ticks
    ]
    if shown:
        drawn.append(
            f'<line class="limit" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y(limit):.1f}" y2="{y(limit):.1f}"/>'
            f'<text class="limit" x="{_LEFT + 6}" y="{y(limit) - 5:.1f}">limit of the p99: {limit:g} ms</text>'
        )
    named = [name for _, name, _ in lines if name]
    for kind, name, points in lines:
        path = " ".join(f"{x(at):.1f},{y(value):.1f}" for at, value in points)
        drawn.append(f'<polyline class="curve {kind}" points="{path}"/>')
        if name:
            left = _WIDTH - _RIGHT - 40 * (len(named) - named.index(name))
            drawn.append(f'<text class="{kind}" x="{left}" y="{_TOP - 3}">{name}</text>')
    told = escape(", ".join(named) or "latency by percentile")
    return (
        f'<figure><svg viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" role="img" aria-label="{told}">'
        f"{''.join(drawn)}</svg></figure>"
    )


def _round(value: float) -> float:
    """The next 1, 2, 4 or 8 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(value))
    return next((factor * power for factor in (1, 2, 4, 8, 10) if value <= factor * power), 10 * power)


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    titles = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    lines = ("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table>{f'<tr>{titles}</tr>' if any(head) else ''}{''.join(lines)}</table>"


def _estimate(value: Estimate, digits: int) -> str:
    return f"{value.value:.{digits}f} [{value.low:.{digits}f}, {value.high:.{digits}f}]"


def _bound(value: float) -> str:
    return f"{value:.2f}" if math.isfinite(value) else "∞"
