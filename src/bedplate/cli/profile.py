"""``profile``: what holds a model, a program, a training or an endpoint back."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bedplate.cli.options import HomeOption, JsonOption
from bedplate.cli.output import emit, table
from bedplate.cli.probe import ShapeOption
from bedplate.cli.session import connect

if TYPE_CHECKING:
    from bedplate.app.profile_models import ProfileReport


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command("profile")(profile)


def profile(
    target: Annotated[
        str,
        typer.Argument(
            metavar="TARGET", help="An ONNX file, a Python program (.py), the run of a training, or an endpoint's name."
        ),
    ],
    rows: Annotated[int, typer.Option("--rows", min=1, max=65536, help="Rows of one call of a model.")] = 1,
    shape: ShapeOption = None,
    rate: Annotated[
        float | None,
        typer.Option(
            "--rate", min=0.1, help="Requests a second to an endpoint. Default: its peak.", show_default=False
        ),
    ] = None,
    duration: Annotated[float, typer.Option("--duration", min=1.0, max=600.0, help="Seconds.")] = 6.0,
    out: Annotated[
        Path | None, typer.Option("--out", help="Write an HTML page with pictures.", show_default=False)
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find the bottleneck: its class, the evidence, what it costs, what each remedy gains, and how to check it."""
    from bedplate import files
    from bedplate.cli.progress import progress

    if out is not None:
        files.check_file(out.absolute())
    with progress(sys.stderr) as on_event:
        report = connect(home).profile(
            target, shapes=shape or (), rows=rows, rate=rate, seconds=duration, on_event=on_event
        )
    if out is not None:
        from bedplate.app.profile_page import page

        files.write(out.absolute(), page(report).encode(), 0o644)
    emit(report, as_json=as_json, text=_lines)


def _lines(report: "ProfileReport") -> Iterator[str]:
    finding = report.finding
    share = finding.share
    yield f"{report.target}: {report.what}"
    yield f"on        {report.machine}"
    yield ""
    if finding.kind == "mixed":
        yield "bound by  nothing alone: no class reaches its threshold"
    else:
        yield f"bound by  {finding.kind}: {share.value:.0%} [{share.low:.0%}, {share.high:.0%}] over {share.n} windows"
        yield f"costs     {report.cost_ms:.3f} of {report.step_ms:.3f} ms"
    if report.price:
        yield f"price     {report.price}"
    for text in finding.evidence:
        yield f"evidence  {text}"
    if report.counted:
        yield f"counted   {report.counted}"
    for remedy in finding.remedies:
        yield f"remedy    {remedy.what}: up to {remedy.gain:.1f} times as fast ({remedy.why})"
    if report.by_rows:
        yield ""
        rows = ((str(count), f"{ms:.3f}", f"{ms / count * 1e3:.1f}") for count, ms in report.by_rows)
        yield from table(("rows", "ms a call", "us a row"), rows, right=(0, 1, 2))
    yield ""
    yield from (f"Warning: {text}" for text in report.warnings)
    yield f"check     {report.verify}"
