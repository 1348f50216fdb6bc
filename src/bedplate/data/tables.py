"""Delta tables that keep what they acknowledged, on a local disk or an object store.

A write encodes Parquet files with page checksums, names each by the SHA-256 of its bytes, makes them durable, then adds
them in one Delta commit and makes that durable too. The digests stand in the file names, so the log, its checkpoints
and every :class:`~bedplate.records.TableVersion` carry them without a second list that could disagree.
"""

import hashlib
import json
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import msgspec
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.fs as pafs
import pyarrow.parquet as pq
from deltalake import CommitProperties, DeltaTable, PostCommitHookProperties, Transaction
from deltalake import Schema as DeltaSchema
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from deltalake.fs import DeltaStorageHandler
from deltalake.transaction import AddAction, RemoveAction, create_table_with_add_actions

from bedplate import clock
from bedplate.data import erase
from bedplate.data import log as delta_log
from bedplate.data.arrow import table_schema
from bedplate.data.folder import Folder, open_folder, storage_error, storage_options_of
from bedplate.data.parquet import DataFile, Rows, columns_and_rows, stream, write_files
from bedplate.data.versions import application, arrow_schema, digest_in, files_of, version_digest
from bedplate.errors import BedplateError, ConflictError, InputError, IntegrityError, NotFoundError, StorageError
from bedplate.ids import new_id
from bedplate.records import TableVersion

Mode = Literal["append", "overwrite"]

_RETRIES = 20
_CHECKPOINT_EVERY = 50
_REMEMBERED = 50_000
"""Most data files whose names are kept in memory, over all versions that were read."""
_LOG = logging.getLogger(__name__)
# Versions are evidence: no part of the log expires by itself.
_CONFIGURATION = {"delta.enableExpiredLogCleanup": "false", "delta.checkpointInterval": "1000000"}


class Scrub(msgspec.Struct, frozen=True, kw_only=True):
    """What re-hashing a table found. ``damaged`` and ``missing`` name files inside the table's folder."""

    name: str
    files: int
    size: int
    damaged: tuple[str, ...]
    missing: tuple[str, ...]

    @property
    def sound(self) -> bool:
        """Whether every byte is what was committed."""
        return not self.damaged and not self.missing


class Staged:
    """Rows written as files that no version holds yet: check them, then :meth:`commit`, or they are removed."""

    def __init__(self, tables: "Tables", name: str, schema: pa.Schema, files: list[DataFile]) -> None:
        self._tables = tables
        self.name = name
        self.schema = schema
        self.files = files
        self.held = False
        """Whether a version may hold the files: then they stay, whatever becomes of the write."""

    @property
    def rows(self) -> int:
        """How many rows were staged."""
        return sum(file.rows for file in self.files)

    def dataset(self) -> ds.Dataset:
        """The staged rows, to be scanned as often as needed."""
        return self._tables.dataset_of(self.name, self.schema, self.files)

    def commit(
        self, *, mode: Mode, key: str | None = None, after: TableVersion | None = None, what: str = "write"
    ) -> TableVersion:
        """Make the staged rows a version of the table; see :meth:`Tables.write`.

        ``after``: only if that is still the newest version. ``what`` is noted in the log, for people.

        Raises:
            ConflictError: somebody else has written since ``after``.
        """
        return self._tables._commit(self, mode, key, after=after, what=what)


class Tables:
    """All tables under one location. Any number of threads may share it; so may processes.

    ``before_commit`` is called right before a version is made; if it raises, none is.
    """

    def __init__(
        self,
        location: Path | str,
        storage_options: Mapping[str, str] | None = None,
        *,
        before_commit: Callable[[], None] | None = None,
    ) -> None:
        self._before_commit = before_commit
        self._options = storage_options_of(str(location), storage_options or {})
        self._root = open_folder(location, self._options)
        self._known: OrderedDict[TableVersion, tuple[pa.Schema, list[DataFile]]] = OrderedDict()
        self._guard = threading.Lock()

    # ------------------------------------------------------------------------------------------------------- writing

    def write(self, name: str, data: Rows, *, mode: Mode, key: str | None = None) -> TableVersion:
        """Write rows as one new version.

        With ``key`` the write happens once: the same key again, also after a crash, gives the version it made and reads
        nothing from ``data``.

        Raises:
            InputError: a column's type cannot be kept, or appended rows have other columns than the table.
            StorageError: the disk is full or refuses; no version was made and no file is left.
            IntegrityError: the table's log is damaged.
        """
        if (made := self.made_by(name, key)) is not None:
            return made
        with self.stage(name, data) as staged:
            return staged.commit(mode=mode, key=key)

    @contextmanager
    def stage(self, name: str, data: Rows, schema: pa.Schema | None = None) -> Iterator[Staged]:
        """Write rows as files, and leave it to the block to commit them. Without a commit nothing stays.

        ``schema`` is what the rows become; what they are where it is not given.
        """
        schema, batches = columns_and_rows(data) if schema is None else (table_schema(schema), data)
        folder = self.folder_of(name)
        self._remember(folder, name)
        prefix = new_id("part")
        files: list[DataFile] = []
        staged: Staged | None = None
        try:
            files.extend(write_files(folder, prefix, schema, batches))
            staged = Staged(self, name, schema, files)
            yield staged
        finally:
            if staged is None or not staged.held:
                self._discard(folder, prefix)

    def made_by(self, name: str, key: str | None) -> TableVersion | None:
        """The version that a write with ``key`` made, None where there was none."""
        if key is None:
            return None
        folder = self.folder_of(name)
        delta = self._open(folder)
        if delta is None:
            return None
        version = delta.transaction_version(application(key))
        return None if version is None else self._describe(name, self._at(folder, version))

    # ------------------------------------------------------------------------------------------------------- reading

    def names(self) -> list[str]:
        """The names of all tables, sorted."""
        found = (self._root.child(child).get("_bedplate/name") for child in self._root.children())
        return sorted(data.decode() for data in found if data is not None)

    def current(self, name: str) -> TableVersion:
        """The newest version.

        Raises:
            NotFoundError: there is no such table.
        """
        delta = self._open(self.folder_of(name))
        if delta is None:
            raise NotFoundError(f"there is no table {name!r}", fix="see those that are there: bedplate table list")
        return self._describe(name, delta)

    def version(self, name: str, version: int) -> TableVersion:
        """An older version, by number.

        Raises:
            NotFoundError: there is no such table or version.
        """
        return self._describe(name, self._at(self.folder_of(name), version))

    def schema(self, version: TableVersion) -> pa.Schema:
        """The Arrow schema of a version.

        Raises:
            NotFoundError: there is no such version.
            IntegrityError: the log no longer says what the version's digest covers.
        """
        return self._checked(version)[0]

    def log(self, name: str, limit: int) -> list[dict[str, Any]]:
        """What the log says of the newest versions, newest first: ``version``, ``timestamp`` (ms) and what was noted.

        Raises:
            NotFoundError: there is no such table.
        """
        self.current(name)
        delta = self._open(self.folder_of(name))
        return [] if delta is None else list(delta.history(limit))

    @contextmanager
    def staged(self, version: TableVersion) -> Iterator[Staged]:
        """The files of an older version, to be committed again."""
        schema, files = self._checked(version)
        yield Staged(self, version.name, schema, self._present(version, files))

    def files(self, version: TableVersion) -> list[DataFile]:
        """The data files of a version, in the order they were written.

        Raises:
            IntegrityError: the log no longer says what the version's digest covers.
        """
        return self._checked(version)[1]

    def dataset(self, version: TableVersion) -> ds.Dataset:
        """A version as an Arrow data set whose pages are checked as they are read. Ungoverned: see :mod:`.reads`.

        Raises:
            NotFoundError: there is no such version.
            IntegrityError: the log or a file is not what the version's digest covers.
        """
        schema, files = self._checked(version)
        return self.dataset_of(version.name, schema, self._present(version, files))

    def scan(
        self,
        version: TableVersion,
        columns: Sequence[str] | Mapping[str, ds.Expression] | None = None,
        filter: ds.Expression | None = None,
        *,
        few: bool = False,
    ) -> pa.RecordBatchReader:
        """Stream a version's rows, in the order they were written, verifying every page. Ungoverned: see :mod:`.reads`.

        ``columns`` names those to read, or says what each column that goes out is computed as. ``few``: whoever reads
        will stop early.

        Raises:
            InputError: a column that the table has not.
            IntegrityError: the log or a file is damaged; a damaged page raises while the stream is read.
        """
        dataset = self.dataset(version)
        known = dataset.schema.names
        if not isinstance(columns, Mapping):
            for name in columns or ():
                if name not in known:
                    raise InputError(
                        f"table {version.name} has no column {name!r}", fix=f"use one of {', '.join(known)}"
                    )
            columns = {name: ds.field((name,)) for name in (known if columns is None else columns)}
        where = f"table {version.name}, version {version.version}"
        return stream(dataset, columns, filter, where=where, few=few)

    # ---------------------------------------------------------------------------------------------------- maintenance

    def verify(self, name: str) -> Scrub:
        """Re-hash every data file of every version (one scrub pass); finds rot that no reader has met yet.

        Raises:
            NotFoundError: there is no such table.
            IntegrityError: the table's log is damaged.
        """
        folder = self.folder_of(name)
        current = self.current(name)
        needed = {file.path for file in self.files(current)}
        there = [path for path in folder.files("") if path.endswith(".parquet")]
        damaged, size = [], 0
        for path in there:
            data = folder.get(path) or b""
            size += len(data)
            if hashlib.sha256(data).hexdigest() != digest_in(path):
                damaged.append(path)
        missing = sorted(needed.difference(there))
        return Scrub(name=name, files=len(there), size=size, damaged=tuple(damaged), missing=tuple(missing))

    def collect(self, name: str, before: datetime | None = None, *, dry_run: bool = False) -> int:
        """Remove data files that no version holds, as killed writes leave them; how many. A dry run only counts.

        Only those written last ``before`` a moment: a write that is under way holds files that no version has yet.
        Without one, call it only when no write is running.
        """
        folder = self.folder_of(name)
        delta = self._open(folder)
        held = set() if delta is None else delta_log.paths(folder)
        held |= {file.path for became in erase.replaced(folder).values() for file in became}
        orphans = [path for path in folder.files("") if path.startswith((".tmp_", "part_")) and path not in held]
        if before is not None:
            written = {path: folder.modified(path) for path in orphans}
            orphans = [path for path in orphans if (at := written[path]) is not None and at < before]
        for path in () if dry_run else orphans:
            folder.delete(path)
        return len(orphans)

    # ------------------------------------------------------------------------------------------------------- internal

    def _present(self, version: TableVersion, files: list[DataFile]) -> list[DataFile]:
        where = f"table {version.name}, version {version.version}"
        return erase.present(self.folder_of(version.name), files, where)

    def folder_of(self, name: str) -> Folder:
        """Where a table lies."""
        if not name or len(name) > 400:
            raise InputError("a table name has 1 to 400 characters", where=repr(name[:40]))
        return self._root.child(hashlib.sha256(name.encode()).hexdigest())

    def _remember(self, folder: Folder, name: str) -> None:
        # For people: folders are named by digest, this file says what they hold.
        if folder.size("_bedplate/name") is None:
            folder.put("_bedplate/name", name.encode())

    def _open(self, folder: Folder, *, locked: bool = False) -> DeltaTable | None:
        if folder.local:
            delta_log.settle(folder, locked=locked)
        try:
            return DeltaTable(folder.url, storage_options=self._options or None)
        except TableNotFoundError:
            return None
        except (DeltaError, OSError) as error:
            if folder.local and delta_log.drop_checkpoints(folder):
                _LOG.warning("moved a damaged checkpoint of %s aside; the log itself is whole", folder.url)
                return self._open(folder, locked=locked)
            if not folder.local and isinstance(error, OSError):
                raise storage_error(error, folder.url) from error
            raise IntegrityError(
                "the log of the table cannot be read", where=folder.url, fix="restore the home from a backup"
            ) from error

    def _at(self, folder: Folder, version: int, *, locked: bool = False) -> DeltaTable:
        delta = self._open(folder, locked=locked)
        if delta is None or not 0 <= version <= delta.version():
            raise NotFoundError(
                f"the table has no version {version}", where=folder.url, fix="see them: bedplate table history"
            )
        if version != delta.version():
            try:
                delta.load_as_version(version)
            except DeltaError as error:
                raise IntegrityError(
                    f"version {version} cannot be read", where=folder.url, fix="restore the home from a backup"
                ) from error
        return delta

    def _describe(self, name: str, delta: DeltaTable) -> TableVersion:
        files = files_of(delta)
        return TableVersion(
            name=name,
            version=delta.version(),
            digest=version_digest(arrow_schema(delta), files),
            rows=sum(file.rows for file in files),
        )

    def _checked(self, version: TableVersion) -> tuple[pa.Schema, list[DataFile]]:
        # What the log said once under this digest stays true: opening the log again would cost every read milliseconds.
        with self._guard:
            known = self._known.get(version)
            if known is not None:
                self._known.move_to_end(version)
                return known
        found = self._from_log(version)
        with self._guard:
            self._known[version] = found
            while sum(len(files) for _, files in self._known.values()) > _REMEMBERED and len(self._known) > 1:
                self._known.popitem(last=False)
        return found

    def _from_log(self, version: TableVersion) -> tuple[pa.Schema, list[DataFile]]:
        delta = self._at(self.folder_of(version.name), version.version)
        schema, files = arrow_schema(delta), files_of(delta)
        if version_digest(schema, files) != version.digest:
            raise IntegrityError(
                "the log does not say what this version's digest covers",
                where=f"table {version.name}, version {version.version}",
                fix="restore the home from a backup",
            )
        return schema, files

    def _files_of(self, name: str) -> pafs.FileSystem:
        folder = self.folder_of(name)
        if folder.local:
            return pafs.SubTreeFileSystem(folder.url, pafs.LocalFileSystem())
        return pafs.PyFileSystem(DeltaStorageHandler(folder.url, options=self._options))

    def file_schema(self, name: str, path: str) -> pa.Schema:
        """The columns of one data file of a table.

        Raises:
            IntegrityError: it is damaged.
        """
        try:
            return pq.read_schema(path, filesystem=self._files_of(name))
        except (OSError, pa.ArrowInvalid) as error:
            raise IntegrityError(
                f"data file {path} cannot be read: {error}", where=f"table {name}", fix="restore the home from a backup"
            ) from error

    def dataset_of(self, name: str, schema: pa.Schema, files: list[DataFile]) -> ds.Dataset:
        """Data files of a table, whichever version they are of."""
        folder, system = self.folder_of(name), self._files_of(name)
        kind = ds.ParquetFileFormat(
            default_fragment_scan_options=ds.ParquetFragmentScanOptions(
                page_checksum_verification=True, pre_buffer=not folder.local
            )
        )
        fragments = [kind.make_fragment(file.path, filesystem=system) for file in files]
        return ds.FileSystemDataset(fragments, schema, kind, filesystem=system)

    def _commit(
        self, staged: Staged, mode: Mode, key: str | None, *, after: TableVersion | None, what: str
    ) -> TableVersion:
        folder = self.folder_of(staged.name)
        token = new_id("commit")
        with folder.lock():
            for _ in range(_RETRIES):
                delta = self._open(folder, locked=True)
                if delta is not None and key is not None:
                    made = delta.transaction_version(application(key))
                    if made is not None:
                        return self._describe(staged.name, self._at(folder, made, locked=True))
                target = 0 if delta is None else delta.version() + 1
                if after is not None and target != after.version + 1:
                    raise ConflictError(
                        f"somebody wrote table {staged.name} meanwhile",
                        where=folder.url,
                        fix="run the same command again",
                    )
                if self._before_commit is not None:
                    self._before_commit()
                note = {"commit": token, "what": what}
                if self._try_commit(folder, delta, staged, mode, key, note, target):
                    self._acknowledge(folder, target, staged)
                    return self._describe(staged.name, self._at(folder, target, locked=True))
        raise ConflictError(
            f"{_RETRIES} others wrote table {staged.name} first", where=folder.url, fix="run the same command again"
        )

    def _try_commit(
        self,
        folder: Folder,
        delta: DeltaTable | None,
        staged: Staged,
        mode: Mode,
        key: str | None,
        note: dict[str, str],
        target: int,
    ) -> bool:
        """Commit as version ``target``. False: somebody else took that version."""
        now = int(clock.now().timestamp() * 1000)
        # Only the row count: least and greatest values in the log would outlive an erased subject.
        adds: list[AddAction | RemoveAction] = [
            AddAction(file.path, file.size, {}, now, True, json.dumps({"numRecords": file.rows}))
            for file in staged.files
        ]
        before = {} if delta is None or mode == "append" else {file.path: file for file in files_of(delta)}
        kept = {file.path for file in staged.files if file.path in before}
        if kept:  # a file may not go and come in one commit: say which go, and add those that come
            adds = [add for add in adds if add.path not in kept]
            adds += [RemoveAction(path, True, now, file.size, {}) for path, file in before.items() if path not in kept]
        properties = CommitProperties(
            custom_metadata={"bedplate": note},
            max_commit_retries=0,
            app_transactions=[Transaction(application(key), target)] if key is not None else None,
        )
        hooks = PostCommitHookProperties(create_checkpoint=False, cleanup_expired_logs=False)
        schema = DeltaSchema.from_arrow(staged.schema)
        if delta is not None and mode == "append" and arrow_schema(delta) != staged.schema:
            raise InputError(
                f"appended rows have other columns than table {staged.name}",
                where=", ".join(f"{f.name} {f.type}" for f in staged.schema),
                fix=f"give {', '.join(f'{f.name} {f.type}' for f in arrow_schema(delta))}",
            )
        staged.held = True
        try:
            if delta is None:
                create_table_with_add_actions(
                    folder.url,
                    schema,
                    [add for add in adds if isinstance(add, AddAction)],
                    mode="error",
                    name=staged.name,
                    configuration=_CONFIGURATION,
                    storage_options=self._options or None,
                    commit_properties=properties,
                    post_commithook_properties=hooks,
                )
            else:
                delta.create_write_transaction(
                    adds,
                    "append" if kept else mode,
                    schema,
                    commit_properties=properties,
                    post_commithook_properties=hooks,
                )
        except (DeltaError, OSError) as error:
            # The commit may be there although its answer was lost; our token in the log says so.
            if delta_log.token(folder, target) == note["commit"]:
                return True
            staged.held = False
            if isinstance(error, CommitFailedError) or delta_log.exists(folder, target):
                return False
            raise storage_error(error, folder.url) from error
        return True

    def _acknowledge(self, folder: Folder, version: int, staged: Staged) -> None:
        if not folder.local:
            return
        try:
            delta_log.acknowledge(folder, version)
        except StorageError:
            staged.held = not delta_log.take_back(folder, version)
            raise
        if version and version % _CHECKPOINT_EVERY == 0:
            try:
                self._at(folder, version, locked=True).create_checkpoint()
                delta_log.sync(folder)
            except (DeltaError, OSError, BedplateError) as error:  # it only says shorter what the log says
                _LOG.warning("no checkpoint of %s was made: %s", folder.url, error)

    def _discard(self, folder: Folder, prefix: str) -> None:
        for path in folder.files(""):
            if path.startswith(prefix):
                folder.delete(path)
