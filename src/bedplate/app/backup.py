"""Backup and restore of a home, while it runs.

The order makes it consistent. Whatever a row of the database names (an artifact, a table version, a bundle) is
written before the row, is never changed, and so is there when the files are copied *after* the database. Only the
ledger's folder follows the database instead of leading it: it is copied *before*, and its checkpoint before its tiles.
The record of steps is taken before the metadata, so that no step counts as done whose effect is not in the backup.
"""

import hashlib
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from bedplate import clock, files
from bedplate.app import home as homes
from bedplate.app import residency
from bedplate.app.read_models import BackupReport, RestoreReport
from bedplate.errors import HomeError, InputError, IntegrityError, StorageError
from bedplate.ids import Digest
from bedplate.policy.residency import refusal
from bedplate.settings import FORMAT, Home, Settings

MANIFEST = "backup.json"
UNKNOWN = "it does not say where its rows may lie, so that was not asked: the version that wrote it did not know"
WARNING = "this backup holds the private keys of the home: keep it as you keep them"
_BLOCK = 1 << 20
# What belongs to running processes is left out; LMDB's files are taken through LMDB.
_IMMUTABLE = ("keys", "blobs", "bundles", "tables", "journal")
_COPY_ONLINE = "import lmdb, sys; lmdb.open(sys.argv[1], readonly=True, max_dbs=0).copy(sys.argv[2])"


class Entry(msgspec.Struct, frozen=True):
    """One file of a backup."""

    digest: Digest
    size: int


class BackupManifest(msgspec.Struct, frozen=True, kw_only=True):
    """``backup.json``: written last, so a backup without it is not one."""

    format: int
    home: str
    created: str
    files: dict[str, Entry]
    region: str = ""
    """Where it lies, by the word of whoever made it."""
    residency: dict[str, tuple[str, ...]] | None = None
    """Where rows of each use case have to stay, if anywhere; None where whatever wrote it did not write that down."""


def backup(
    home: Home, destination: Path, region: str = "", stays: Mapping[str, tuple[str, ...]] | None = None
) -> BackupReport:
    """Copy a home, running or not, and read the copy again. ``destination`` appears whole or not at all.

    ``region``, and where rows of each use case have to stay, go with it, for whoever restores it; whether it may lie
    there was asked before.

    Raises:
        InputError: the destination exists and is not empty, or lies in the home.
        HomeError: there is no home.
        StorageError: the disk is full or refuses.
        IntegrityError: what was read again differs from what was written.
    """
    manifest = homes.read_manifest(home)
    destination = destination.absolute()
    if destination.is_relative_to(home.root):
        raise InputError("a backup cannot lie in the home it is of", where=str(destination), fix="choose another path")
    partial = _begin(destination)
    try:
        _copy_files(home.ledger, partial / "ledger", first=("checkpoint",))
        for database in (home.workflow, home.database):
            if database.exists():
                _copy_database(database, partial / database.name)
        for name in _IMMUTABLE:
            _copy_files(home.root / name, partial / name, first=("_last_checkpoint", "_delta_log"))
        _copy_online(home.online, partial / "online")
        for single in (home.manifest, home.prices):
            if single.exists():
                files.write(partial / single.name, single.read_bytes())
        entries = {str(path.relative_to(partial)): _entry(path) for path in _walk(partial)}
        kept = BackupManifest(
            format=FORMAT, home=manifest.id, created=clock.timestamp(), files=entries, region=region,
            residency=None if stays is None else dict(stays),
        )  # fmt: skip
        files.write(partial / MANIFEST, msgspec.json.encode(kept))
        _verify(partial, kept)
        _end(partial, destination)
    except OSError as error:
        raise _refused(error, destination) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return _report(kept, destination)


def restore(source: Path, target: Path, settings: Settings) -> RestoreReport:
    """Make a home from a backup, at any path. ``target`` appears whole or not at all.

    It lies where ``settings`` say, which every use case of the backup has to allow. No ledger is there yet that could
    say that one did not.

    The home keeps its identity and keys: do not run it beside the one it was copied from, since both would sign the
    same ledger differently.

    Raises:
        InputError: ``source`` is no backup, or ``target`` exists and is not empty.
        DeniedError: rows of a use case may not lie here.
        HomeError: the backup is of another format.
        IntegrityError: a file of the backup is missing, damaged or added.
        StorageError: the disk is full or refuses.
    """
    manifest = _read_manifest(source)
    for use_case, asked in (manifest.residency or {}).items():
        refused = refusal(asked, residency.of_home(settings))
        if refused is not None:
            raise residency.denied(use_case, refused)
    _verify(source, manifest)
    target = target.absolute()
    partial = _begin(target)
    try:
        for name in manifest.files:
            to = partial / name
            files.make_folder(to.parent)
            _copy(source / name, to)
        _verify(partial, manifest)
        _end(partial, target)
    except OSError as error:
        raise _refused(error, target) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return _restored(manifest, target)


def _begin(destination: Path) -> Path:
    if destination.exists() and (not destination.is_dir() or any(destination.iterdir())):
        raise InputError("this path exists and is not empty", where=str(destination), fix="choose another path")
    partial = destination.with_name(f".{destination.name}.{os.getpid()}.partial")
    try:
        files.make_folder(destination.parent)
        partial.mkdir(mode=0o700)
    except OSError as error:
        raise _refused(error, destination) from error
    return partial


def _end(partial: Path, destination: Path) -> None:
    for folder, _, _ in os.walk(partial):
        files.sync_folder(Path(folder))
    partial.rename(destination)  # an empty folder in its place is replaced
    files.sync_folder(destination.parent)


def _copy_database(source: Path, target: Path) -> None:
    """SQLite's own online copy: one consistent state, writers go on meanwhile."""
    try:
        reader = sqlite3.connect(source, timeout=30)
        os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        writer = sqlite3.connect(target)
        try:
            reader.backup(writer)
            # One file, without a log beside it, until a home opens it again.
            writer.execute("PRAGMA journal_mode=DELETE").close()
            found = writer.execute("PRAGMA integrity_check").fetchone()[0]
        finally:
            writer.close()
            reader.close()
    except sqlite3.Error as error:
        raise StorageError(f"the database cannot be copied: {error}", where=str(source), fix="try again") from error
    if found != "ok":
        raise IntegrityError(f"the database is damaged: {found}", where=str(source), fix="restore an earlier backup")
    _sync(target)


def _copy_online(source: Path, target: Path) -> None:
    if not (source / "data.mdb").exists():
        return
    target.mkdir(mode=0o700)
    # LMDB must not be opened twice in one process, and this one may be using it.
    done = subprocess.run(
        [sys.executable, "-c", _COPY_ONLINE, str(source), str(target)], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        line = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise StorageError(f"the online features cannot be copied: {line}", where=str(source))
    for path in _walk(target):
        path.chmod(0o600)
        _sync(path)


def _copy_files(source: Path, target: Path, first: tuple[str, ...] = ()) -> None:
    """Copy a folder of files that are never changed once they are there.

    What names others is copied before them (``first``, by any part of the path): then they are there when their turn
    comes. A file that grows (an open journal segment) is copied to the length it had when its turn came.
    """

    def turn(path: Path) -> tuple[int, str]:
        parts = path.relative_to(source).parts
        return (min((first.index(part) for part in parts if part in first), default=len(first)), str(path))

    if not source.is_dir():
        return
    for named in (True, False):
        # Listed again for the second turn: what the first turn's files name was there before them.
        for path in sorted(_walk(source), key=turn):
            if (turn(path)[0] < len(first)) is named and not _temporary(path):
                to = target / path.relative_to(source)
                to.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                try:
                    _copy(path, to)
                except FileNotFoundError:
                    to.unlink(missing_ok=True)  # superseded meanwhile: a partial tile, a vacuumed file


def _temporary(path: Path) -> bool:
    return path.name.endswith((".tmp", ".partial")) or path.name.startswith(".") or "#" in path.name


def _copy(source: Path, target: Path) -> None:
    with source.open("rb") as reader:
        left = os.fstat(reader.fileno()).st_size
        descriptor = os.open(target, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600)
        with os.fdopen(descriptor, "wb") as writer:
            while left > 0 and (block := reader.read(min(_BLOCK, left))):
                writer.write(block)
                left -= len(block)
            writer.flush()
            os.fsync(writer.fileno())


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _walk(folder: Path) -> Iterator[Path]:
    for root, _, names in os.walk(folder):
        for name in names:
            path = Path(root, name)
            if path.is_file() and not path.is_symlink():
                yield path


def _entry(path: Path) -> Entry:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return Entry(Digest(f"sha256:{digest}"), os.fstat(file.fileno()).st_size)


def _read_manifest(source: Path) -> BackupManifest:
    path = source / MANIFEST
    try:
        manifest = msgspec.json.decode(path.read_bytes(), type=BackupManifest)
    except OSError as error:
        raise InputError(
            "this is not a backup", where=str(path), fix="name the folder that was backed up to"
        ) from error
    except msgspec.DecodeError as error:
        raise IntegrityError("the list of files is damaged", where=str(path), fix="use another backup") from error
    if manifest.format != FORMAT:
        raise HomeError(
            f"this backup is of format {manifest.format}, this Bedplate writes format {FORMAT}",
            where=str(path),
            fix="use the version of Bedplate that wrote it",
        )
    for name in manifest.files:
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise IntegrityError(f"{name!r} leads out of the backup", where=str(path), fix="use another backup")
    return manifest


def _verify(folder: Path, manifest: BackupManifest) -> None:
    there = {str(path.relative_to(folder)) for path in _walk(folder)} - {MANIFEST}
    problems = [f"{name} is missing" for name in sorted(manifest.files.keys() - there)]
    problems += [f"{name} was added" for name in sorted(there - manifest.files.keys())]
    problems += [
        f"{name} is damaged"
        for name, entry in manifest.files.items()
        if name in there and _entry(folder / name) != entry
    ]
    if problems:
        raise IntegrityError(
            f"the backup is not what was written: {'; '.join(problems[:5])}",
            where=str(folder),
            fix="use another backup",
        )


def _report(manifest: BackupManifest, path: Path) -> BackupReport:
    return BackupReport(
        path=str(path),
        home=manifest.home,
        created=manifest.created,
        files=len(manifest.files),
        size=sum(entry.size for entry in manifest.files.values()),
        warning=WARNING,
    )


def _restored(manifest: BackupManifest, path: Path) -> RestoreReport:
    size = sum(entry.size for entry in manifest.files.values())
    warning = WARNING if manifest.residency is not None else f"{WARNING}; {UNKNOWN}"
    return RestoreReport(home=str(path), files=len(manifest.files), size=size, warning=warning)


def _refused(error: OSError, path: Path) -> StorageError:
    fix = "free some space or mend the permissions, then try again"
    return StorageError(f"cannot copy: {error.strerror}", where=str(error.filename or path), fix=fix)
