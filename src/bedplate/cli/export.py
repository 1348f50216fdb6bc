"""``export``: an endpoint for another platform to serve, and a plan for a tool to launch."""

import enum
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bedplate.cli.options import HomeOption, JsonOption, UseCaseName, noun
from bedplate.cli.output import emit, to_json
from bedplate.cli.session import connect

if TYPE_CHECKING:
    from bedplate.app.exports.launch import LaunchExport, Tool
    from bedplate.app.serving_models import KubernetesExport


OptionOption = Annotated[
    str,
    typer.Option("--option", help="Another option, by the name that the plan gives it.", show_default="the chosen"),
]
OutOption = Annotated[
    Path | None, typer.Option("--out", help="File to write. Default: standard output.", show_default=False)
]


_TOOLS: "dict[Tool, str]" = {
    "skypilot": "a task of SkyPilot",
    "ray": "a cluster of Ray's launcher",
    "terraform": "variables of Terraform",
}
"""What is launched by a file that needs no more than the option."""


class As(enum.StrEnum):
    """What is made of an endpoint."""

    deployment = "deployment"
    kserve = "kserve"


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    group = noun("Endpoints for other platforms to serve, and plans for tools to launch.")
    group.command("kubernetes")(kubernetes)
    for tool, what in _TOOLS.items():
        group.command(tool, help=f"Write the option that the plan chose as {what}.")(_launched(tool))
    group.command("kuberay")(kuberay)
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
    out: OutOption = None,
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


def _yaml(export: "KubernetesExport") -> Iterator[str]:
    import yaml

    for made in export.objects:
        yield "---\n" + yaml.safe_dump(made, sort_keys=False, allow_unicode=True, width=120)


def _launched(tool: "Tool") -> Callable[..., None]:
    """The command that writes a plan for one of the tools that need nothing more said."""

    def launched(
        use_case: UseCaseName,
        option: OptionOption = "",
        out: OutOption = None,
        home: HomeOption = None,
        as_json: JsonOption = False,
    ) -> None:
        _launch(use_case, tool, option, out, home, as_json)

    return launched


def kuberay(
    use_case: UseCaseName,
    option: OptionOption = "",
    image: Annotated[str, typer.Option("--image", help="Image of its pods.", show_default="Ray's own")] = "",
    namespace: Annotated[str, typer.Option("--namespace", help="Where the object lies.")] = "default",
    out: OutOption = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write the option that the plan chose as a RayCluster of KubeRay."""
    _launch(use_case, "kuberay", option, out, home, as_json, image=image, namespace=namespace)


def _launch(
    use_case: str, tool: "Tool", option: str, out: Path | None, home: Path | None, as_json: bool, **more: str
) -> None:
    export = connect(home).export_launch(use_case, tool, option=option, **more)
    if out is not None:
        from bedplate import files

        files.write(out, _document(export).encode(), 0o644)
    if out is None or as_json:
        emit(export, as_json=as_json, text=lambda export: (_document(export).rstrip("\n"),))
    sys.stderr.writelines(f"needs {line}\n" for line in export.needs)


def _document(export: "LaunchExport") -> str:
    """The file as its tool reads it, with the plan that it is from where the format lets one say so."""
    if export.name.endswith(".json"):
        return to_json(export.content) + "\n"
    import yaml

    written = yaml.safe_dump(export.content, sort_keys=False, allow_unicode=True, width=120)
    return f"# from the plan {export.plan} of {export.use_case}\n{written}"
