"""``export``: an endpoint for another platform to serve."""

from __future__ import annotations

import enum
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bedplate.cli.options import HomeOption, JsonOption, noun
from bedplate.cli.output import emit
from bedplate.cli.session import connect

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bedplate.app.read_models import KubernetesExport


class As(enum.StrEnum):
    """What is made of an endpoint."""

    deployment = "deployment"
    kserve = "kserve"


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    group = noun("Endpoints for other platforms to serve.")
    group.command("kubernetes")(kubernetes)
    # A callback keeps `export` a group: one command alone would lose its name.
    group.callback()(lambda: None)
    app.add_typer(group, name="export")


def kubernetes(
    endpoint: Annotated[str, typer.Argument(metavar="ENDPOINT", help="Name of the endpoint: that of its use case.")],
    form: Annotated[As, typer.Option("--as", help="A deployment with all around it, or KServe's object.")] = (
        As.deployment
    ),
    image: Annotated[
        str, typer.Option("--image", help="Repository of its images, one tag a bundle.", show_default="its name")
    ] = "",
    namespace: Annotated[str, typer.Option("--namespace", help="Where the objects lie.")] = "default",
    gateway: Annotated[
        str, typer.Option("--gateway", help="Gateway that splits requests between releases.", show_default=False)
    ] = "",
    host: Annotated[
        list[str] | None, typer.Option("--host", help="Name that callers use; may be repeated.", show_default=False)
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="File to write. Default: standard output.", show_default=False)
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write an endpoint as Kubernetes objects. No secret is in them; what they need beside them is told."""
    export = connect(home).export_kubernetes(
        endpoint, form=form.value, image=image, namespace=namespace, gateway=gateway, hosts=host or ()
    )
    if out is not None:
        from bedplate import files

        files.write(out, "".join(_yaml(export)).encode())
    if out is None or as_json:
        emit(export, as_json=as_json, text=lambda export: ("".join(_yaml(export)).rstrip("\n"),))
    sys.stderr.writelines(f"needs {line}\n" for line in export.needs)


def _yaml(export: KubernetesExport) -> Iterator[str]:
    import yaml

    for made in export.objects:
        yield "---\n" + yaml.safe_dump(made, sort_keys=False, allow_unicode=True, width=120)
