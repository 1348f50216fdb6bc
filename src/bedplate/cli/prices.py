"""``prices``: what machines cost, from the lists that providers publish and from what your own cost."""

import enum
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bedplate.cli.options import HomeOption, JsonOption, noun
from bedplate.cli.output import emit
from bedplate.cli.session import connect

if TYPE_CHECKING:
    from bedplate.plan.bought import Imported


class Form(enum.StrEnum):
    """Whose list it is."""

    AWS = "aws"
    AZURE = "azure"
    GCP = "gcp"
    SKYPILOT = "skypilot"
    OWN = "own"


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    group = noun("Prices of machines that plans are made from.")
    group.command("import")(import_)
    app.add_typer(group, name="prices")


def import_(
    file: Annotated[list[Path], typer.Argument(metavar="FILE", help="Price lists, as they were fetched.")],
    form: Annotated[Form, typer.Option("--from", help="Whose list it is.")],
    provider: Annotated[
        str | None, typer.Option("--provider", help="With skypilot: aws, azure or gcp.", show_default=False)
    ] = None,
    date: Annotated[
        str | None, typer.Option("--date", help="Day they were fetched, if the list names none.", show_default=False)
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check prices together with those that ship, and make plans from them from now on."""
    found = connect(home).import_prices(file, form=form.value, provider=provider, date=date)
    emit(found, as_json=as_json, text=_lines)


def _lines(found: "tuple[Imported, ...]") -> Iterator[str]:
    for item in found:
        yield f"{item.source}: {item.prices} prices; {item.unknown} of types or regions not in the catalogue"
        yield from (f"left out  {text}" for text in item.left_out)
