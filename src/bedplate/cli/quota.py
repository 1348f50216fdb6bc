"""``quota``: what users, services and groups may ask of an endpoint."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from bedplate.cli.options import HomeOption, JsonOption, noun
from bedplate.cli.output import emit, table
from bedplate.cli.session import connect
from bedplate.words import moment, number

if TYPE_CHECKING:
    from bedplate.app.serving_models import EndpointQuota

Endpoint = Annotated[str, typer.Argument(metavar="ENDPOINT", help="Name of the endpoint: that of its use case.")]
Holder = Annotated[str, typer.Argument(metavar="NAME", help="Name of the user or service; with --group, of a group.")]
Group = Annotated[bool, typer.Option("--group", help="NAME is a group: each of its members may ask so much.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    group = noun("Quotas: how much somebody may ask of an endpoint.")
    group.command("set")(set_)
    group.command("list")(list_)
    group.command("remove")(remove)
    app.add_typer(group, name="quota")


def set_(
    endpoint: Endpoint,
    holder: Holder,
    group: Group = False,
    rate: Annotated[
        float | None, typer.Option("--rate", help="Requests a second, on average.", show_default=False)
    ] = None,
    burst: Annotated[
        int | None, typer.Option("--burst", help="Requests at once. Default: what the rate is.", show_default=False)
    ] = None,
    day: Annotated[int | None, typer.Option("--day", help="Requests a day of UTC.", show_default=False)] = None,
    month: Annotated[int | None, typer.Option("--month", help="Requests a month of UTC.", show_default=False)] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let somebody ask so much of an endpoint, within a second, in the place of what held before."""
    made = connect(home).quotas.set(endpoint, holder, group=group, rate=rate, burst=burst, day=day, month=month)
    emit(made, as_json=as_json, text=lambda quota: [f"{_who(quota)} may ask of {endpoint}: {_words(quota)}."])


def list_(endpoint: Endpoint, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """List the quotas of an endpoint, and what was used of them."""
    emit({"quotas": connect(home).quotas.list(endpoint)}, as_json=as_json, text=lambda found: _all(found["quotas"]))


def remove(
    endpoint: Endpoint, holder: Holder, group: Group = False, home: HomeOption = None, as_json: JsonOption = False
) -> None:
    """Have the quota of usecase.yaml hold again for somebody."""
    gone = connect(home).quotas.remove(endpoint, holder, group=group)
    emit(gone, as_json=as_json, text=lambda quota: [f"{_who(quota)} has no quota at {endpoint} any more."])


def _all(quotas: "Sequence[EndpointQuota]") -> Iterator[str]:
    if not quotas:
        yield "There are none: whoever may ask may ask as much as they like."
        return
    yield from table(
        ("who", "may ask", "today", "this month", "cost", "by", "since"),
        (
            (
                _who(quota),
                _words(quota),
                "-" if quota.used_day is None else f"{quota.used_day:,}",
                "-" if quota.used_month is None else f"{quota.used_month:,}",
                "-" if quota.cost_month is None else f"{quota.cost_month:.3g} {quota.currency}",
                quota.by or "usecase.yaml",
                moment(quota.created) if quota.created else "-",
            )
            for quota in quotas
        ),
    )


def _who(quota: "EndpointQuota") -> str:
    return f"each of {quota.holder}" if quota.kind == "group" else quota.holder


def _words(quota: "EndpointQuota") -> str:
    given = quota.quota
    words = []
    if given.rate is not None:
        at_once = f", {given.burst:,} at once" if given.burst is not None else ""
        words.append(f"{number(given.rate)} a second{at_once}")
    words += [
        f"{count:,} a {name}" for name, count in (("day", given.day), ("month", given.month)) if count is not None
    ]
    return "; ".join(words)
