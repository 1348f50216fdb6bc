"""A profile as one page: what holds it back, what to do, a flame graph, and the roof of the machine."""

import math
from collections.abc import Iterator, Sequence
from html import escape
from typing import NamedTuple

from bedplate.app.profile_models import Frame, ProfileReport, RoofPoint
from bedplate.app.report_page import document, words_table

_WIDTH, _ROW = 920, 20
_NARROWEST = 0.002
"""Share of the time below which a frame is not drawn."""
_LETTER = 7.5
"""Width of a letter of a label, in any usual font of its size."""
_LEFT, _RIGHT, _TOP, _BOTTOM, _HEIGHT = 64, 24, 16, 40, 320


def page(report: ProfileReport) -> str:
    """The report as HTML."""
    title = f"Profile of {report.target}"
    return document(title, (f"<h1>{escape(title)}</h1>", *_body(report)))


def _body(report: ProfileReport) -> Iterator[str]:
    finding = report.finding
    share = finding.share
    yield f'<p class="quiet">{escape(report.what)}; {escape(report.machine)}</p>'
    if finding.kind == "mixed":
        yield '<p class="verdict open">Nothing alone holds it back: no class reaches its threshold.</p>'
    else:
        yield (
            f'<p class="verdict missed">Held back by {escape(finding.kind)}: {share.value:.0%} of the time or rate '
            f"[{share.low:.0%}, {share.high:.0%}] over {share.n} windows, {report.cost_ms:.3f} of "
            f"{report.step_ms:.3f} ms</p>"
        )
    if report.price:
        yield f"<p>Such steps cost {report.price}.</p>"
    yield from (f'<p class="open">Warning: {escape(text)}</p>' for text in report.warnings)
    yield "<h2>Evidence</h2><ul>" + "".join(f"<li>{escape(text)}</li>" for text in finding.evidence) + "</ul>"
    if report.counted:
        yield f"<p>By the processor's own counters: {escape(report.counted)}.</p>"
    if finding.remedies:
        yield "<h2>What to do</h2>"
        rows = [(r.what, f"{r.gain:.1f} times", r.why) for r in finding.remedies]
        yield words_table(("remedy", "faster, at most", "because"), rows, (1,))
        yield f"<p>To check: <code>{escape(report.verify)}</code></p>"
    if report.frames:
        yield "<h2>Where the time goes</h2>"
        yield flame(report.frames)
    if report.points and report.roof_gflops and report.roof_gbps:
        yield "<h2>Against what this machine can do</h2>"
        yield roofline(report.points, report.roof_gflops, report.roof_gbps)
    if report.by_rows:
        yield "<h2>Rows together</h2>"
        rows = [(str(n), f"{ms:.3f}", f"{ms / n * 1e3:.1f}") for n, ms in report.by_rows]
        yield words_table(("rows a call", "ms a call", "us a row"), rows, (1, 2))


class _Node(NamedTuple):
    share: float
    children: dict[str, "_Node"]


def flame(frames: Sequence[Frame]) -> str:
    """A flame graph: width is the share of the time, a frame lies on what called it; hovering tells the whole name."""
    root = _tree(frames)
    drawn: list[str] = []
    depth = _draw(root, 0.0, 0, drawn)
    height = (depth + 1) * _ROW
    return (
        f'<figure><svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="Flame graph">{"".join(drawn)}</svg>'
        "<figcaption>From top to bottom: who calls whom. Width is the share of the time.</figcaption></figure>"
    )


def _tree(frames: Sequence[Frame]) -> _Node:
    root = _Node(sum(frame.share for frame in frames), {})
    for frame in frames:
        at = root
        for label in frame.stack:
            before = at.children.get(label)
            at.children[label] = _Node(
                (before.share if before else 0.0) + frame.share, before.children if before else {}
            )
            at = at.children[label]
    return root


def _draw(node: _Node, left: float, level: int, drawn: list[str]) -> int:
    deepest = level
    for label, child in sorted(node.children.items(), key=lambda item: -item[1].share):
        if child.share < _NARROWEST:
            continue
        width = child.share * _WIDTH
        place = f'x="{left * _WIDTH:.1f}" y="{level * _ROW}"'
        fits = int((width - 8) / _LETTER)
        shown = label if len(label) <= fits else label[: fits - 1] + "…" if fits > 2 else ""
        drawn.append(
            f"<g><title>{escape(label)}: {child.share:.1%}</title>"
            f'<rect class="frame" {place} width="{width:.1f}" height="{_ROW - 1}"/>'
            + (
                f'<text class="label" x="{left * _WIDTH + 4:.1f}" y="{level * _ROW + 14}">{escape(shown)}</text>'
                if shown
                else ""
            )
            + "</g>"
        )
        deepest = max(deepest, _draw(child, left, level + 1, drawn))
        left += child.share
    return deepest


def roofline(points: Sequence[RoofPoint], gflops: float, gbps: float) -> str:
    """Nodes below what memory and operations allow; both axes go by powers of ten."""
    xs, ys = [p.intensity for p in points] + [gflops / gbps], [p.gflops for p in points] + [gflops]
    low_x, high_x = math.floor(math.log10(min(xs))), math.ceil(math.log10(max(xs) * 3))
    low_y, high_y = math.floor(math.log10(max(min(ys), 1e-4))), math.ceil(math.log10(max(ys) * 1.2))

    def x(value: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * (math.log10(value) - low_x) / (high_x - low_x)

    def y(value: float) -> float:
        return (
            _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * (math.log10(max(value, 1e-4)) - low_y) / (high_y - low_y)
        )

    drawn = []
    for power in range(low_y, high_y + 1):
        drawn.append(
            f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y(10**power):.1f}" y2="{y(10**power):.1f}"/>'
        )
        drawn.append(f'<text x="{_LEFT - 8}" y="{y(10**power) + 4:.1f}" text-anchor="end">{10.0**power:g}</text>')
    drawn += [
        f'<text x="{x(10**power):.1f}" y="{_HEIGHT - _BOTTOM + 18}" text-anchor="middle">{10.0**power:g}</text>'
        for power in range(low_x, high_x + 1)
    ]
    ridge, left = gflops / gbps, max(10.0**low_x, 10.0**low_y / gbps)
    roof = f"{x(left):.1f},{y(left * gbps):.1f} {x(ridge):.1f},{y(gflops):.1f} {_WIDTH - _RIGHT},{y(gflops):.1f}"
    drawn.append(f'<polyline class="curve two" points="{roof}"/>')
    drawn.append(
        f'<text class="two" x="{_WIDTH - _RIGHT}" y="{y(gflops) - 6:.1f}" text-anchor="end">'
        f"{gflops:.0f} GFLOP/s; left of the bend {gbps:.1f} GB/s</text>"
    )
    drawn += [
        f'<circle class="dot" cx="{x(point.intensity):.1f}" cy="{y(point.gflops):.1f}" r="5">'
        f"<title>{escape(point.name)}: {point.gflops:.2f} GFLOP/s at {point.intensity:.2f} a byte</title></circle>"
        for point in points
    ]
    drawn.append(f'<text x="{_WIDTH / 2:.0f}" y="{_HEIGHT - 4}" text-anchor="middle">operations for each byte</text>')
    return (
        f'<figure><svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="Roofline">{"".join(drawn)}</svg>'
        "<figcaption>10⁹ operations a second of each node against the roof of one core; a dot on the slope is held "
        "back by memory, one under the flat part by operations, one far below by neither. Above the slope, bytes come "
        "from caches.</figcaption></figure>"
    )
