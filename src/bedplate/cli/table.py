"""``table`` and ``access``: the tables of a home, as you may see them, and what others would see."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bedplate.cli.options import HomeOption, JsonOption, UseCasePath, noun
from bedplate.cli.output import emit, table
from bedplate.cli.session import connect
from bedplate.words import clip, listed, moment, number, size

if TYPE_CHECKING:
    from bedplate.app import table_reports as reports

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the table, as in: bedplate table list.")]
DataSetName = Annotated[str, typer.Argument(metavar="DATASET", help="Name of the data set in the file.")]
Purpose = Annotated[
    str | None,
    typer.Option("--purpose", help="What rows are read for. Default: what the use case names.", show_default=False),
]


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    group = noun("Tables: every version of what came in and was made of it.")
    group.command("list")(list_)
    group.command("show")(show)
    group.command("history")(history)
    group.command("read")(read)
    group.command("scrub")(scrub)
    group.command("compact")(compact)
    group.command("restore")(restore)
    group.command("backfill")(backfill)
    group.command("replay")(replay)
    app.add_typer(group, name="table")
    rights = noun("Access: who sees what of a table, and why.")
    rights.command("explain")(explain)
    rights.command("diff")(diff)
    app.add_typer(rights, name="access")


def list_(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """List the tables that you may know of."""
    emit({"tables": connect(home).tables.list()}, as_json=as_json, text=lambda found: _all(found["tables"]))


def _all(tables: "Sequence[reports.TableLine]") -> Iterator[str]:
    yield from table(
        ("table", "use case", "version", "rows"),
        ((t.name, t.use_case, str(t.version), _count(t.rows)) for t in tables),
        right=(2, 3),
    )


def _count(rows: int | None) -> str:
    return "-" if rows is None else number(rows)


def show(name: Name, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Show the newest version of a table: columns, rows, files, digest."""
    emit(connect(home).tables.show(name), as_json=as_json, text=_view)


def _view(view: "reports.TableView") -> Iterator[str]:
    space = "-" if view.size is None else size(view.size)
    yield f"{view.name}  version {view.version}, {_count(view.rows)} rows, {view.files} files, {space}"
    yield f"digest   {view.digest}"
    yield f"purpose  {view.purpose or '-'}"
    yield from table(("column", "type"), view.columns.items())


def history(
    name: Name,
    limit: Annotated[int, typer.Option("--limit", help="Most versions to show.")] = 20,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the versions of a table, newest first."""
    changes = connect(home).tables.history(name, limit)
    emit({"versions": changes}, as_json=as_json, text=lambda found: _history(found["versions"]))


def _history(changes: "Sequence[reports.TableChange]") -> Iterator[str]:
    yield from table(
        ("version", "when", "what", "rows", "files"),
        ((str(c.version), moment(c.time), c.what, _count(c.rows), str(c.files)) for c in changes),
        right=(0, 3, 4),
    )


def read(
    name: Name,
    version: Annotated[int | None, typer.Option("--version", help="Number of a version.", show_default=False)] = None,
    as_of: Annotated[
        str | None,
        typer.Option("--as-of", help="The version of a moment, such as 2026-01-31T10:00.", show_default=False),
    ] = None,
    column: Annotated[list[str] | None, typer.Option("--column", help="A column to show; repeat for more.")] = None,
    limit: Annotated[int, typer.Option("--limit", help="Most rows to show.")] = 20,
    purpose: Purpose = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Read rows as you may see them; the read stands in the ledger."""
    rows = connect(home).tables.read(
        name, version=version, as_of=as_of, columns=column or (), limit=limit, purpose=purpose
    )
    emit(rows, as_json=as_json, text=_rows)


def _rows(found: "reports.TableRows") -> Iterator[str]:
    cells = ([clip("-" if value is None else str(value), 40) for value in row] for row in found.rows)
    yield from table(found.columns, cells)
    if found.more:
        yield f"There are more than these {len(found.rows)}: see --limit."


def scrub(name: Name, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Hash every data file of every version again. Exit code 2 if one is not what was written."""
    found = connect(home).tables.scrub(name)
    emit(found, as_json=as_json, text=_scrubbed)
    if not found.sound:
        raise typer.Exit(2)


def _scrubbed(found: "reports.TableScrub") -> Iterator[str]:
    yield f"{found.files} files, {size(found.size)}"
    for verb, names in (("damaged", found.damaged), ("missing", found.missing)):
        for name in names:
            yield f"{verb}  {name}"
    yield "Every byte is what was written." if found.sound else "Restore the home from a backup."


def compact(name: Name, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Write small files together into large ones, as a new version with the same rows."""
    emit(connect(home).tables.compact(name), as_json=as_json, text=_view)


def restore(
    name: Name,
    version: Annotated[int, typer.Argument(metavar="VERSION", help="Number of the version to go back to.")],
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make an older version the newest again; the versions between stay in the history."""
    emit(connect(home).tables.restore(name, version), as_json=as_json, text=_view)


def backfill(
    path: UseCasePath,
    dataset: DataSetName,
    since: Annotated[
        str | None, typer.Option("--from", help="First value of the watermark, such as 2026-01-31.", show_default=False)
    ] = None,
    until: Annotated[
        str | None, typer.Option("--to", help="The first value after the range.", show_default=False)
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Bring in the rows of a range, however late they are; rows that are there stay as they are."""
    emit(connect(home).tables.backfill(path, dataset, since=since, until=until), as_json=as_json, text=_batch)


def _batch(report: "reports.BatchReport") -> Iterator[str]:
    yield (
        f"{report.table}  version {report.version}: {number(report.accepted)} of {number(report.read)} rows came in, "
        f"{number(report.known)} were there, {number(report.outside)} are outside the range, "
        f"{number(report.rejected)} were set aside"
    )
    if report.unconfined:
        yield f"not isolated: {report.unconfined}"


def replay(path: UseCasePath, dataset: DataSetName, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Bring in rows that were set aside and keep the contract as it is now, each once."""
    emit(connect(home).tables.replay(path, dataset), as_json=as_json, text=_replayed)


def _replayed(report: "reports.ReplayReport") -> Iterator[str]:
    yield (
        f"{report.table}  version {report.version}: {number(report.accepted)} of {number(report.read)} rows came in, "
        f"{number(report.known)} were there, {number(report.left)} stay set aside"
    )


def explain(
    who: Annotated[str, typer.Argument(metavar="WHO", help="Name of a user or service.")],
    name: Annotated[str, typer.Argument(metavar="TABLE", help="Name of the table.")],
    purpose: Purpose = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what somebody sees of a table, and why. Reads no row. Exit code 0 whatever the answer."""
    emit(connect(home).tables.explain(who, name, purpose), as_json=as_json, text=_explained)


def diff(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A file of policies (*.cedar), or a use case.")],
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show who would see more or less of which table, before a change is made. Exit code 0 whatever the answer."""
    emit(connect(home).tables.diff(path), as_json=as_json, text=_diff)


def _diff(found: "reports.AccessDiff") -> Iterator[str]:
    for change in found.changes:
        before, after = change.may_read
        word = "sees otherwise" if before and after else "may now read" if after else "may no longer read"
        yield f"{change.who} {word} {change.table}"
        if change.rows_more or change.rows_fewer:
            yield f"  rows     {number(change.rows_more)} more, {number(change.rows_fewer)} fewer"
        if before and after:
            for name, (was, now) in change.columns.items():
                yield f"  {name}  {was} -> {now}"
    if not found.changes:
        yield "Nobody would see more or less of any table."
    if not found.compared_all:
        yield "There are too many users and tables to compare them all: these are the first."


def _explained(view: "reports.AccessView") -> Iterator[str]:
    may = "may" if view.allowed else "may not"
    yield f"{view.who} {may} read {view.table}, version {view.version}, for {view.purpose!r}"
    for reason in view.reasons:
        yield f"because  {reason}"
    yield f"by       {listed(view.policies, 'no policy')}"
    if view.allowed:
        yield f"rows     {view.rows or 'all'}" + (f" (by {listed(view.row_policies)})" if view.row_policies else "")
        yield from table(("column", "seen as"), ((name, mask or "it is") for name, mask in view.columns.items()))
