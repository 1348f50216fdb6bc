"""``status``, ``up``, ``stop``, ``login``: the process that owns a home."""

import gc
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from bedplate.cli.options import HomeOption, JsonOption
from bedplate.cli.output import emit, table
from bedplate.cli.session import connect
from bedplate.words import clip

if TYPE_CHECKING:
    from bedplate.app.read_models import ServingCost, Status, StopReport, UpInfo


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command("status")(status)
    app.command("up")(up)
    app.command("stop")(stop)
    app.command("login")(login)


def status(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Show use cases, endpoints and what is running."""
    emit(connect(home).status(), as_json=as_json, text=_status)


def _status(report: "Status") -> Iterator[str]:
    yield f"home     {report.home}"
    yield f"server   {f'{report.address}, process {report.owner}' if report.address else 'not running: bedplate up'}"
    if report.running:
        yield f"running  {report.running}"
    if not report.use_cases:
        yield "No use case yet: bedplate init my-use-case && bedplate run my-use-case"
        return
    yield ""
    yield from table(
        ("use case", "state", "version", "in words"),
        ((u.name, u.state, str(u.version or "-"), clip(u.sentence, 70)) for u in report.use_cases),
    )
    if report.spans_sent or report.spans_dropped:
        yield f"Traces: {report.spans_sent:,} spans sent, {report.spans_dropped:,} dropped."
    if report.endpoints:
        yield ""
        yield from table(
            ("endpoint", "state", "replicas", "memory", "requests", "failed", "p99 ms", "1,000 cost", "address"),
            (
                (
                    e.name,
                    e.state,
                    str(e.replicas),
                    f"{e.memory / 2**20:,.0f} MiB" if e.memory else "-",
                    f"{e.requests:,}",
                    f"{e.failed:,}",
                    f"{e.p99_ms:.1f}" if e.p99_ms else "-",
                    _thousand(e.cost),
                    f"{e.url}, gRPC {e.grpc}" if e.grpc else e.url,
                )
                for e in report.endpoints
            ),
            right=(2, 3, 4, 5, 6, 7),
        )
        for e in report.endpoints:
            if e.error:
                yield f"{e.name} does not answer: {e.error}."
        for e in report.endpoints:
            if e.cost is not None:
                yield f"Cost of {e.name}: {e.cost.why}."


def _thousand(cost: "ServingCost | None") -> str:
    """What a thousand predictions cost."""
    if cost is None or cost.each is None or cost.price is None:
        return "-"
    return f"{cost.each * 1000:.3g} {cost.price.currency}"


def up(
    detach: Annotated[bool, typer.Option("--detach", help="Go to the background once everything answers.")] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Serve the API, the pages and the approved endpoints until stopped."""
    gc.disable()  # what is loaded stays: looking through it for garbage is a fifth of the start; serving enables it
    bedplate = connect(home)
    if detach:
        emit(bedplate.up_detached(), as_json=as_json, text=_up)
        return
    bedplate.serve_forever(lambda info: emit(info, as_json=as_json, text=_up))


def _up(info: "UpInfo") -> Iterator[str]:
    yield f"serving  {info.address} (process {info.pid})"
    yield f"open     {info.link}"
    yield "         the link lets one browser in, once, within 60 s; bedplate login prints another"
    yield "end      bedplate stop"


def stop(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Stop the server and its endpoints; what is in flight is answered first."""
    emit(connect(home).stop(), as_json=as_json, text=_stopped)


def _stopped(report: "StopReport") -> Iterator[str]:
    if report.pid is None:
        yield "Nothing was running."
        return
    yield f"Stopped process {report.pid}" + (f" and {len(report.endpoints)} endpoints." if report.endpoints else ".")


def login(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Print a link that lets one browser in, once, within 60 seconds."""
    emit({"link": connect(home).login_link()}, as_json=as_json, text=lambda answer: [answer["link"]])
