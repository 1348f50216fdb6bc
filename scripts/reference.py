"""Write the reference pages from the code: `python scripts/reference.py`; with `--check`, say which are out of date."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import msgspec

from bedplate import errors, records, settings
from bedplate.app.read_models import STAGES
from bedplate.cli.surface import commands
from bedplate.extensions import plugins
from bedplate.http import RouteTable
from bedplate.usecase.schema import schema

FOLDER = Path(__file__).parent.parent / "docs" / "reference"
NOTE = "<!-- Written by scripts/reference.py from the code. Change the code, then run `make docs`. -->"


def cli() -> Iterator[str]:
    """Every command with its arguments and options."""
    yield from head("Command line", "Every command takes `--help`. With `--json`, stdout is exactly one JSON document.")
    yield from (
        "Exit codes: 0 done; 1 something failed; 2 the input or the command line is wrong; 3 a release gate refused;",
        "4 a digest or proof does not match; 70 a fault in Bedplate itself; 130 stopped with Ctrl-C.",
    )
    for command in commands():
        yield from ("", f"## bedplate {command.name}", "", command.help)
        usage = " ".join(["bedplate", command.name, *command.arguments, *(["[OPTIONS]"] if command.options else [])])
        yield from ("", "```", usage, "```")
        if command.options:
            yield ""
            yield from table(("Option", "Meaning"), [(f"`{option.name}`", option.help) for option in command.options])


def settings_page() -> Iterator[str]:
    """Every setting with its default."""
    yield from head(
        "Settings", "Settings are environment variables. Another variable that begins with `BEDPLATE_` is an error."
    )
    for setting in settings.SETTINGS:
        default = f"`{setting.default}`" if setting.default else "empty"
        yield from ("", f"## {setting.variable}", "", setting.help, "", f"Default: {default}")


def errors_page() -> Iterator[str]:
    """Every error with its code, exit code and HTTP status."""
    yield from head(
        "Errors", "Every error says what is wrong, where, and what to do. Over HTTP and with `--json` it is one object."
    )
    for kind in sorted(tree(errors.BedplateError), key=lambda kind: (kind.code, kind.__name__)):
        if kind.__module__ != "bedplate.errors" or kind is errors.BedplateError:
            continue
        doc = (kind.__doc__ or "").strip().splitlines()[0]
        yield from ("", f"## {kind.code}", "", doc, "")
        yield from table(
            ("Class", "Exit code", "HTTP status"), [(f"`{kind.__name__}`", str(kind.exit_code), str(kind.http_status))]
        )


def tree(kind: type[Any]) -> Iterator[type[Any]]:
    """The class and everything below it."""
    yield kind
    for child in kind.__subclasses__():
        yield from tree(child)


def events() -> Iterator[str]:
    """The progress event, its states, and the stages."""
    yield from head(
        "Events", "A run reports its progress as events: in the Python API, on the owner's socket, on the screen."
    )
    yield from ("", "## Fields", "")
    hints = {field.name: field for field in msgspec.structs.fields(records.Event)}
    yield from table(("Field", "Type"), [(f"`{name}`", type_name(field.type)) for name, field in hints.items()])
    yield from ("", "## States", "")
    yield from (f"- `{state}`" for state in get_args(hints["state"].type))
    yield from ("", "## Stages", "")
    yield from (f"{index}. `{stage}`" for index, stage in enumerate(STAGES, 1))


def type_name(kind: Any) -> str:
    """The name of a type as a reader writes it."""
    values = get_args(kind)
    if values and all(isinstance(value, str) for value in values):
        return "one of the states below"
    return f"`{getattr(kind, '__name__', str(kind))}`".replace("typing.", "") if not values else f"`{kind}`"


class AnySite:
    """Routes close over a site, and use it only when they are called."""

    def __getattr__(self, name: str) -> "AnySite":
        return self


def api() -> Iterator[str]:
    """Every route with what it declares."""
    yield from head(
        "HTTP API",
        "Send a key as `Authorization: Bearer KEY`. Each route declares an action, a resource and an audit class; one "
        "that does not cannot be mounted. What stands under `/api` for MLflow's clients stands under `/ajax-api` too.",
    )
    any_site: Any = AnySite()
    mounted = RouteTable(route for routes in plugins("bedplate.routes") for route in routes(any_site))
    for route in mounted.routes:
        if route.twin:
            continue
        yield from ("", f"## {route.method} {route.path}", "", f"{route.summary}.", "")
        audit = route.audit.kind + (f": {route.audit.reason}" if route.audit.reason else "")
        body = route.request_type.__name__ if route.request_type is not None else "none"
        access = "everybody" if route.public else f"who may `{route.action}`"
        yield from table(("Access", "Audit class", "Body"), [(access, audit, f"`{body}`" if body != "none" else body)])


def mlflow() -> Iterator[str]:
    """What of MLflow's API is here, what is left out, and which replies are not MLflow's."""
    # The table of differences lies beside the test that holds every reply against it.
    sys.path.insert(0, str(FOLDER.parent.parent))
    from tests.mlflow.differences import DIFFERENCES

    from bedplate.api.mlflow import left_out, wire

    yield from head(
        "MLflow's REST API",
        "The clients of MLflow 3.17 speak to a home unchanged: [how](../how-to/mlflow.md). `tests/mlflow` plays "
        "the same calls on `mlflow server` and here, and compares the replies field by field.",
    )
    any_site: Any = AnySite()
    mounted = RouteTable(route for routes in plugins("bedplate.routes") for route in routes(any_site))
    here = [route for route in mounted.routes if route.render is wire.error and not route.twin]
    yield from ("", "## Here", "", "Each is under `/api` for clients and `/ajax-api` for pages.", "")
    yield from table(
        ("Method", "Path", "What it does"), [(route.method, f"`{route.path}`", route.summary) for route in here]
    )
    yield from ("", "## Left out", "", "What begins like this answers 501 `NOT_IMPLEMENTED`.", "")
    families: dict[str, list[str]] = {}
    for path, name in left_out.FAMILIES.items():
        families.setdefault(name, []).append(f"`{path}`")
    yield from table(("What", "Paths"), [(name, ", ".join(paths)) for name, paths in sorted(families.items())])
    yield from ("", "## Other replies than MLflow's", "", "Beside ids, times, page tokens and texts of errors.", "")
    rows = [(entry.where, entry.theirs, entry.ours, entry.why) for entry in DIFFERENCES]
    yield from table(("Where", "MLflow", "Bedplate", "Why"), rows)


def usecase() -> Iterator[str]:
    """Every section of ``usecase.yaml``."""
    yield from head(
        "usecase.yaml", "`bedplate schema` prints the JSON Schema for editors. The sections, from that schema:"
    )
    whole = schema()
    definitions = whole.get("$defs", {})
    yield from section("The file", resolve(whole, definitions), definitions)
    for name, definition in sorted(definitions.items()):
        if definition.get("properties"):
            yield from section(name, definition, definitions)


def resolve(node: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """The object behind a reference."""
    reference = node.get("$ref", "")
    return definitions.get(reference.rsplit("/", 1)[-1], node) if reference else node


def section(title: str, node: dict[str, Any], definitions: dict[str, Any]) -> Iterator[str]:
    """One object of the schema as a table."""
    yield from ("", f"## {title}", "")
    if node.get("description"):
        yield from (" ".join(str(node["description"]).split()), "")
    required = set(node.get("required", ()))
    rows = []
    for name, field in node.get("properties", {}).items():
        shown = json.dumps(field["default"]) if "default" in field else ""
        rows.append((f"`{name}`", kind_of(field), "yes" if name in required else "", f"`{shown}`" if shown else ""))
    yield from table(("Key", "Value", "Required", "Default"), rows)


def kind_of(field: dict[str, Any]) -> str:
    """What a key holds, in a few words."""
    if "$ref" in field:
        return field["$ref"].rsplit("/", 1)[-1]
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    if "const" in field:
        return f"`{field['const']}`"
    if "quantity" in field:
        return str(field["quantity"])
    for several in ("anyOf", "oneOf"):
        if several in field:
            return " or ".join(dict.fromkeys(kind_of(item) for item in field[several]))
    if field.get("type") == "array":
        return (
            f"list of {kind_of(field.get('items', {})) or 'values'}" if isinstance(field.get("items"), dict) else "list"
        )
    kind = field.get("type", "")
    return " or ".join(kind) if isinstance(kind, list) else str(kind)


def head(title: str, text: str) -> Iterator[str]:
    """The beginning of a page."""
    yield from (f"# {title}", "", NOTE, "", text)


def table(names: tuple[str, ...], rows: list[tuple[str, ...]]) -> Iterator[str]:
    """A Markdown table."""
    yield "| " + " | ".join(names) + " |"
    yield "|" + "---|" * len(names)
    for row in rows:
        yield "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in row) + " |"


PAGES = {
    "cli.md": cli,
    "settings.md": settings_page,
    "errors.md": errors_page,
    "events.md": events,
    "api.md": api,
    "mlflow.md": mlflow,
    "schema.md": usecase,
}


def texts() -> dict[str, str]:
    """Every page as it should be."""
    return {name: "\n".join(page()) + "\n" for name, page in PAGES.items()}


def main() -> int:
    """Write the pages, or with ``--check`` compare them."""
    stale = []
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, text in texts().items():
        path = FOLDER / name
        if path.is_file() and path.read_text("utf-8") == text:
            continue
        if "--check" in sys.argv[1:]:
            stale.append(str(path))
        else:
            path.write_text(text, "utf-8")
    if stale:
        sys.stderr.write(f"out of date: {', '.join(stale)}\nFix: make docs\n")
    return bool(stale)


if __name__ == "__main__":
    sys.exit(main())
