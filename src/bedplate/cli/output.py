"""How commands print: text for people, one JSON document for programs, errors as what, where and fix."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import typer

from bedplate.errors import BedplateError, UseCaseError

T = TypeVar("T")


def emit(value: T, *, as_json: bool, text: Callable[[T], Iterable[str]]) -> None:
    """Print ``value`` as JSON, or as the lines that ``text`` makes of it."""
    if as_json:
        typer.echo(to_json(value))
        return
    for line in text(value):
        typer.echo(line)


def to_json(value: object) -> str:
    """Indented JSON of structs and plain values."""
    import msgspec

    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, right: Sequence[int] = ()) -> list[str]:
    """Aligned columns; the columns numbered in ``right`` are set flush right."""
    lines = [[str(cell) for cell in row] for row in (head, *rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]

    def render(line: Sequence[str]) -> str:
        cells = (
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        return "  ".join(cells).rstrip()

    return [render(lines[0]), "  ".join("-" * width for width in widths), *(render(line) for line in lines[1:])]


def show_error(error: BedplateError, *, as_json: bool) -> None:
    """Print an error: with ``--json`` as the one document on stdout, else as text on stderr."""
    if as_json:
        typer.echo(to_json(error.to_dict()))
        return
    for line in error_lines(error):
        typer.echo(line, err=True)


def error_lines(error: BedplateError) -> list[str]:
    """What, where and fix; for a use case every problem, with its line and a caret under the place."""
    problems = error.problems if isinstance(error, UseCaseError) else ()
    lines = [f"Error: {error.message.splitlines()[0] if problems else error.message}"]
    if error.where:
        lines.append(f"Where: {error.where}")
    source = _source(error.where) if problems else []
    for problem in problems:
        lines += ["", *_problem_lines(problem, source, error.where or "usecase.yaml")]
    if problems:
        lines.append("")
    if error.fix:
        lines.append(f"Fix:   {error.fix}")
    return lines


def _source(where: str | None) -> list[str]:
    """The lines of the file an error names, or nothing if it cannot be read: the excerpt is a courtesy."""
    if not where:
        return []
    for candidate in (where, where.rsplit(":", 1)[0]):
        path = Path(candidate)
        if path.is_file():
            try:
                return path.read_text("utf-8").splitlines()
            except (OSError, UnicodeDecodeError):
                return []
    return []


def _problem_lines(problem: object, source: list[str], where: str) -> list[str]:
    import msgspec

    fields: dict[str, Any] = msgspec.to_builtins(problem, str_keys=True)
    line, column = int(fields.get("line") or 0), int(fields.get("column") or 0)
    name = Path(where).name
    lines = [f"{name}:{line}:{column}: {fields.get('message', '')}" if line else f"{name}: {fields.get('message', '')}"]
    if 0 < line <= len(source):
        text = source[line - 1].replace("\t", " ")
        start = max(0, column - 60)
        lines.append(f"{line:>5} | {text[start : start + 100]}")
        lines.append(f"      | {' ' * max(0, column - 1 - start)}^")
    if fields.get("nearest"):
        lines.append(f"      did you mean {fields['nearest']}?")
    elif fields.get("allowed"):
        allowed = fields["allowed"]
        shown = allowed if isinstance(allowed, str) else ", ".join(str(value) for value in allowed)
        lines.append(f"      allowed: {shown}")
    return lines
