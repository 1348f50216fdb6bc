"""Tables as a program or a command asks about them: ``Bedplate.tables``."""

from collections.abc import Sequence
from pathlib import Path

from bedplate.app.nouns import CarryOut, read_policies
from bedplate.app.table_reports import (
    AccessDiff,
    AccessView,
    BatchReport,
    ReplayReport,
    TableChange,
    TableLine,
    TableRows,
    TableScrub,
    TableView,
)


class Tables:
    """The tables of a home: what lies in them, as you may see it, and what is done to them between writes."""

    def __init__(self, carry_out: CarryOut) -> None:
        self._carry_out = carry_out

    def list(self) -> tuple[TableLine, ...]:
        """The tables that policy lets you know of, by name."""
        return self._carry_out("list_tables", tuple[TableLine, ...])

    def show(self, name: str) -> TableView:
        """The newest version of a table: columns, rows, files, digest."""
        return self._carry_out("show_table", TableView, name=name)

    def history(self, name: str, limit: int = 20) -> tuple[TableChange, ...]:
        """The newest versions of a table, newest first."""
        return self._carry_out("table_history", tuple[TableChange, ...], name=name, limit=limit)

    def read(
        self,
        name: str,
        *,
        version: int | None = None,
        as_of: str | None = None,
        columns: Sequence[str] = (),
        limit: int = 20,
        purpose: str | None = None,
    ) -> TableRows:
        """Rows as you may see them, from the newest version, a numbered one, or that of a moment.

        They are read for the ``purpose`` of the use case unless you name another one. Every read is in the ledger.
        """
        return self._carry_out(
            "read_table",
            TableRows,
            name=name,
            version=version,
            as_of=as_of,
            columns=tuple(columns),
            limit=limit,
            purpose=purpose,
        )

    def scrub(self, name: str) -> TableScrub:
        """Hash every data file of every version again: finds rot that no reader has met yet."""
        return self._carry_out("scrub_table", TableScrub, name=name)

    def compact(self, name: str) -> TableView:
        """Write small files together into large ones, as a new version with the same rows."""
        return self._carry_out("compact_table", TableView, name=name)

    def restore(self, name: str, version: int) -> TableView:
        """Make an older version the newest again; the versions between stay in the history."""
        return self._carry_out("restore_table", TableView, name=name, version=version)

    def backfill(
        self, path: str | Path, dataset: str, *, since: str | None = None, until: str | None = None
    ) -> BatchReport:
        """Bring in the rows of a range of the watermark (``until`` not included), however late they are."""
        where = str(Path(path).absolute())
        return self._carry_out("backfill_table", BatchReport, path=where, dataset=dataset, since=since, until=until)

    def replay(self, path: str | Path, dataset: str) -> ReplayReport:
        """Bring in the rows of a quarantine that keep the contract as it is now, each once."""
        return self._carry_out("replay_table", ReplayReport, path=str(Path(path).absolute()), dataset=dataset)

    def explain(self, who: str, name: str, purpose: str | None = None) -> AccessView:
        """What somebody else would see of a table, and why. Reads no row."""
        return self._carry_out("explain_access", AccessView, who=who, name=name, purpose=purpose)

    def diff(self, path: str | Path) -> AccessDiff:
        """What adding a file of policies (``*.cedar``), or checking a use case, would let whom see more or less of."""
        if Path(path).suffix == ".cedar":
            return self._carry_out("diff_policies", AccessDiff, text=read_policies(path), where=str(path))
        return self._carry_out("diff_use_case", AccessDiff, path=str(Path(path).absolute()))
