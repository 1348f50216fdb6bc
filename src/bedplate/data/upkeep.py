"""What is done to tables between writes: history, an older state made the newest again, small files made large."""

from datetime import UTC, datetime

import msgspec

from bedplate.data.parquet import ROWS_PER_FILE
from bedplate.data.tables import Tables
from bedplate.errors import NotFoundError
from bedplate.records import TableVersion


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One version in the history of a table: when it was made, how, and what it holds. ``time`` is ISO 8601, UTC."""

    version: int
    time: str
    what: str
    rows: int
    files: int


def history(tables: Tables, name: str, limit: int = 20) -> tuple[Change, ...]:
    """The newest versions, newest first.

    Raises:
        NotFoundError: there is no such table.
    """
    found = []
    for entry in tables.log(name, limit):
        version = tables.version(name, entry["version"])
        mode = str(entry.get("operationParameters", {}).get("mode", "")).lower()
        what = str((entry.get("bedplate") or {}).get("what", "write"))
        found.append(
            Change(
                version=version.version,
                time=_time(entry).isoformat(),
                what=what if what != "write" else "append" if mode == "append" else "write",
                rows=version.rows,
                files=len(tables.files(version)),
            )
        )
    return tuple(found)


def as_of(tables: Tables, name: str, moment: datetime) -> TableVersion:
    """The version that was the newest at a moment (UTC where it bears no zone).

    Raises:
        NotFoundError: there is no such table, or it is younger.
    """
    wanted = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    newest = tables.current(name)
    for entry in tables.log(name, newest.version + 1):
        if _time(entry) <= wanted:
            return tables.version(name, entry["version"])
    raise NotFoundError(f"table {name} has no version from before {wanted.isoformat()}", fix="name a later moment")


def restore(tables: Tables, version: TableVersion) -> TableVersion:
    """Make an older version the newest again, as a version of its own: nothing is lost, no row is copied.

    Raises:
        ConflictError: somebody else wrote meanwhile.
        IntegrityError: the log does not say what the version's digest covers.
    """
    current = tables.current(version.name)
    if current.digest == version.digest:
        return current
    with tables.staged(version) as staged:
        return staged.commit(mode="overwrite", after=current, what="restore")


def compact(tables: Tables, name: str) -> TableVersion:
    """Write small files together into large ones, as a new version with the same rows in the same order.

    A table with no more files than its rows need stays as it is.

    Raises:
        NotFoundError: there is no such table.
        ConflictError: somebody else wrote meanwhile; nothing was changed.
    """
    current = tables.current(name)
    if len(tables.files(current)) <= 1 + current.rows // ROWS_PER_FILE:
        return current
    with tables.stage(name, tables.scan(current)) as staged:
        return staged.commit(mode="overwrite", after=current, what="compact")


def _time(entry: dict[str, object]) -> datetime:
    return datetime.fromtimestamp(int(str(entry["timestamp"])) / 1000, UTC)
