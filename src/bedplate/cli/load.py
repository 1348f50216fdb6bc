"""``load``: requests at a rate, and whether the endpoint meets what its use case requires."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bedplate.cli.options import HomeOption, JsonOption
from bedplate.cli.output import emit, table
from bedplate.cli.session import connect
from bedplate.words import estimate

if TYPE_CHECKING:
    from bedplate.app.read_models import LoadReport

_BAR = 40


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command("load")(load)


def load(
    endpoint: Annotated[str, typer.Argument(metavar="ENDPOINT", help="Name of the endpoint.")],
    rate: Annotated[
        float | None,
        typer.Option(
            "--rate", min=0.1, help="Requests a second. Default: the peak in usecase.yaml.", show_default=False
        ),
    ] = None,
    duration: Annotated[float, typer.Option("--duration", min=1.0, max=3600.0, help="Seconds.")] = 10.0,
    connections: Annotated[int, typer.Option("--connections", min=1, max=1000, help="Connections.")] = 32,
    body: Annotated[
        Path | None,
        typer.Option("--body", help="A request as JSON. Default: what was predicted before.", show_default=False),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Write the run as an HTML page, with plots.", show_default=False)
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Send requests at a fixed rate, and hold latency and failures against the requirement."""
    from bedplate import files
    from bedplate.cli.progress import progress

    if out is not None:
        files.check_file(out.absolute())
    with progress(sys.stderr) as on_event:
        report = connect(home).load(
            endpoint, rate=rate, seconds=duration, connections=connections, body=body, on_event=on_event
        )
    if out is not None:
        from bedplate.app.load_page import page

        files.write(out.absolute(), page(report).encode(), 0o644)
    emit(report, as_json=as_json, text=_lines)
    if report.verdict == "missed":
        raise typer.Exit(1)


def _lines(report: "LoadReport") -> Iterator[str]:
    test = report.test
    yield f"{report.endpoint} at {report.url}: {report.rate:g} requests/s for {test.seconds:.1f} s"
    yield f"answered  {test.requests - test.failed:,} ({test.rate:,.1f}/s), {report.requests:,} different requests"
    yield f"failed    {test.failed:,}, share {estimate(report.failures, 5)}; {test.unsent:,} never sent"
    for share, value in test.intervals:
        limit = f", limit {test.limit_p99_ms:g} ms" if share == 0.99 else ""
        yield f"{f'p{100 * share:g}':<9} {estimate(value, 2)} ms{limit}"
    if test.lag_p99_ms is not None:
        yield f"client    late by {test.lag_p99_ms:.2f} ms at the 99th percentile"
    if report.ceiling is not None:
        yield f"client    sends at most {report.ceiling:,.0f}/s to a server that does nothing"
    yield ""
    yield from _bars(("within", "ms"), [(f"{100 * share:g} %", value) for share, value in test.percentiles])
    yield ""
    yield from _bars(("second", "p99 ms"), [(f"{part.at:.0f}", part.p99_ms) for part in test.over_time])
    yield ""
    yield from (f"Warning: {text}" for text in report.warnings)
    yield f"{report.verdict.upper()}: {'; '.join(report.because)}"


def _bars(head: tuple[str, str], rows: Sequence[tuple[str, float]]) -> list[str]:
    """Values with bars as long as they are large."""
    most = max((value for _, value in rows), default=0.0) or 1.0
    drawn = ((name, f"{value:.2f}", "█" * max(1, round(_BAR * value / most))) for name, value in rows)
    return table((*head, ""), drawn, right=(0, 1))
