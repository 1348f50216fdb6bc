"""Taking rows out of every version of a table for good: the files that hold them are written anew and removed.

What a version's digest covers is its log, which stays. A file that is gone is looked up in ``_bedplate/erased``, which
says what it became, so every version can still be read: without those rows. The newest version becomes one of the new
files, for readers that know nothing of this. The log never held values, and nothing here writes one.

Killed at any moment, the same call again finishes: a file goes only once what it became is written down.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from bedplate.data.arrow import table_schema
from bedplate.data.folder import Folder
from bedplate.data.parquet import DataFile, stream, write_files
from bedplate.errors import ConflictError, IntegrityError, NotFoundError

if TYPE_CHECKING:
    from bedplate.data.tables import Tables

Marked = Callable[[pa.Schema], pc.Expression | None]
"""Which rows go, of files with these columns; None where it can be none of them."""
_RECORD = "_bedplate/erased"
_TRIES = 10


class Erased(msgspec.Struct, frozen=True, kw_only=True):
    """What was taken out of a table: ``rows`` over all its files, older versions included, and the files rewritten."""

    name: str
    rows: int = 0
    files: int = 0


def replaced(folder: Folder) -> dict[str, tuple[DataFile, ...]]:
    """What each file that is gone became."""
    data = folder.get(_RECORD)
    return {} if data is None else msgspec.json.decode(data, type=dict[str, tuple[DataFile, ...]])


def present(folder: Folder, files: Sequence[DataFile], where: str) -> list[DataFile]:
    """The files as they lie there now: those that rows were taken out of, as what they became.

    Raises:
        IntegrityError: one is missing or has another size.
    """
    sizes = [folder.size(file.path) for file in files]
    if sizes == [file.size for file in files]:
        return list(files)
    became, found = replaced(folder), list[DataFile]()
    for file, size in zip(files, sizes, strict=True):
        now = became.get(file.path, (file,)) if size is None else (file,)
        for each in now:
            if folder.size(each.path) != each.size:
                raise IntegrityError(
                    f"data file {each.path} is missing or has another size",
                    where=where,
                    fix="restore the home from a backup",
                )
        found += now
    return found


def erase(tables: "Tables", name: str, marked: Marked) -> Erased:
    """Take the rows that are ``marked`` out of every version.

    Raises:
        ConflictError: somebody wrote all the while.
        NotFoundError: there is no such table.
        StorageError: the disk is full or refuses; run it again.
    """
    folder = tables.folder_of(name)
    tables.current(name)
    rows, files = 0, dict[str, tuple[DataFile, ...]]()
    for _ in range(_TRIES):
        for path in _there(folder):
            if path in files:
                continue
            count, became = _without(tables, name, path, marked)
            if count:
                rows += count
                files[path] = became
        _write_down(folder, files)
        try:
            _renew(tables, name, files)
        except ConflictError:
            continue  # rows that came in meanwhile are looked through as well
        for path in files:
            folder.delete(path)
        return Erased(name=name, rows=rows, files=len(files))
    raise ConflictError(f"table {name} is being written", where=folder.url, fix="run the same command again")


def _there(folder: Folder) -> list[str]:
    return [path for path in folder.files("") if path.startswith("part_") and path.endswith(".parquet")]


def _without(tables: "Tables", name: str, path: str, marked: Marked) -> tuple[int, tuple[DataFile, ...]]:
    """How many rows of a file are marked, and the file written anew without them if there are any."""
    folder = tables.folder_of(name)
    file = DataFile(path, "", 0, 0)
    schema = table_schema(tables.file_schema(name, path))
    condition = marked(schema)
    if condition is None:
        return 0, ()
    goes = pc.coalesce(condition, pc.scalar(False))
    whole = tables.dataset_of(name, schema, [file])
    count = int(whole.count_rows(filter=goes))
    if not count:
        return 0, ()
    rest = stream(whole, {field.name: pc.field((field.name,)) for field in schema}, ~goes, where=f"table {name}")
    prefix = path.rpartition("-")[0]  # files are read by name: what it becomes stands in its place
    return count, tuple(write_files(folder, prefix, schema, rest))


def _write_down(folder: Folder, files: dict[str, tuple[DataFile, ...]]) -> None:
    if not files:
        return
    known = replaced(folder)
    for path, became in known.items():  # what an earlier erasure made of a file may hold more that goes
        known[path] = tuple(new for file in became for new in files.get(file.path, (file,)))
    folder.put(_RECORD, msgspec.json.encode({**known, **files}))


def _renew(tables: "Tables", name: str, files: dict[str, tuple[DataFile, ...]]) -> None:
    """Make a version of the new files the newest, if the newest held one that goes."""
    try:
        current = tables.current(name)
    except NotFoundError:
        return
    if not any(file.path in files for file in tables.files(current)):
        return
    with tables.staged(current) as staged:
        staged.files = [new for file in tables.files(current) for new in files.get(file.path, (file,))]
        staged.commit(mode="overwrite", after=current, what="erase")
