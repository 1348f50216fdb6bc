"""The home folder: made whole or not at all, and refused when it is not ours, of another format, or open to others."""

import contextlib
import fcntl
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path

import msgspec

from bedplate import bundle, clock, files, ids
from bedplate.errors import HomeError, StorageError
from bedplate.ledger import Signer, new_key
from bedplate.settings import FORMAT, Home

_MAKING = ".making"
_FOLDERS = ("keys", "ledger", "tables", "blobs", "bundles", "journal", "online", "run", "logs")
_SECRETS = ("ledger.key", "signing.key", "journal.salt")


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """``home.json``."""

    format: int
    id: str
    created: str


class Opened(msgspec.Struct, frozen=True, kw_only=True):
    """A home that is whole and ours. ``new`` says that this call made it."""

    home: Home
    id: str
    created: str
    new: bool
    ledger_key: Signer
    journal_salt: bytes

    @property
    def signing_key(self) -> Path:
        """The private P-256 key that signs bundles."""
        return self.home.keys / "signing.key"

    @property
    def signing_public(self) -> Path:
        """Its public half."""
        return self.home.keys / "signing.pub"


def create_or_open(home: Home) -> Opened:
    """Open the home, after making it if the folder is missing or empty. What a kill left half made is made anew.

    Raises:
        HomeError: the folder holds something else, was written in another format, or lets others read its keys.
        StorageError: the folder cannot be made or written, or the disk is full.
    """
    try:
        new = not home.manifest.exists()
        if new:
            _refuse_foreign(home)
            files.make_folder(home.root)
            with _making(home) as making:
                # A second process waited here and finds the home made.
                if not home.manifest.exists():
                    _make(home)
                making.unlink(missing_ok=True)
        return _open(home, new=new)
    except OSError as error:
        raise StorageError(
            f"the home folder cannot be used: {error.strerror}",
            where=str(error.filename or home.root),
            fix="free some space or mend the permissions, or choose another folder: BEDPLATE_HOME",
        ) from error


def read_manifest(home: Home) -> Manifest:
    """What ``home.json`` says.

    Raises:
        HomeError: it is missing, damaged, or of another format.
    """
    where = str(home.manifest)
    try:
        manifest = msgspec.json.decode(home.manifest.read_bytes(), type=Manifest)
    except FileNotFoundError as error:
        raise HomeError("this is not a home", where=where, fix="make one: bedplate run FOLDER") from error
    except msgspec.DecodeError as error:
        raise HomeError("the file is damaged", where=where, fix="restore a backup: bedplate restore") from error
    if manifest.format != FORMAT:
        raise HomeError(
            f"this home is of format {manifest.format}, this Bedplate writes format {FORMAT}",
            where=where,
            fix="use the version of Bedplate that wrote it, or another folder: BEDPLATE_HOME",
        )
    return manifest


def _refuse_foreign(home: Home) -> None:
    root = home.root
    if root.exists() and not root.is_dir():
        raise HomeError("this is a file, not a folder", where=str(root), fix="choose another: BEDPLATE_HOME")
    # In this order: the mark is made before anything else, and the manifest before the mark is taken away.
    if root.is_dir() and any(root.iterdir()) and not (root / _MAKING).exists() and not home.manifest.exists():
        raise HomeError(
            "this folder holds other things and is not a home",
            where=str(root),
            fix="choose an empty or missing folder: BEDPLATE_HOME",
        )


@contextlib.contextmanager
def _making(home: Home) -> Iterator[Path]:
    """Mark the folder as being made, one process at a time. The mark outlives a kill, and says what to do then."""
    marker = home.root / _MAKING
    descriptor = os.open(marker, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        files.sync_folder(home.root)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield marker
    finally:
        os.close(descriptor)


def _make(home: Home) -> None:
    """Make everything; ``home.json`` comes last, so nothing rests on what is here before it."""
    identifier = ids.new_id("home")
    for name in _FOLDERS:
        files.make_folder(home.root / name)
    for name in ("signing.key", "signing.pub"):
        (home.keys / name).unlink(missing_ok=True)
    ledger_key = new_key(f"bedplate/{identifier}")
    files.write(home.keys / "ledger.key", ledger_key.encode())
    public = f"{Signer(ledger_key).public}\n".encode()
    files.write(home.keys / "ledger.pub", public)
    # Beside the ledger too, so that a copy of that folder alone can be verified.
    files.write(home.ledger / "ledger.pub", public)
    bundle.make_key(home.keys / "signing.key", home.keys / "signing.pub")
    files.write(home.keys / "journal.salt", secrets.token_bytes(32))
    manifest = Manifest(format=FORMAT, id=identifier, created=clock.timestamp())
    files.write(home.manifest, msgspec.json.encode(manifest))


def _open(home: Home, *, new: bool) -> Opened:
    manifest = read_manifest(home)
    for name in _FOLDERS:
        files.make_folder(home.root / name)
    for name in _SECRETS:
        path = home.keys / name
        if not path.exists():
            raise HomeError("a key of this home is missing", where=str(path), fix="restore it from a backup")
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise HomeError("others can read this key", where=str(path), fix=f"close it: chmod 600 {path}")
    salt = (home.keys / "journal.salt").read_bytes()
    key = Signer.load(home.keys / "ledger.key")
    return Opened(home=home, id=manifest.id, created=manifest.created, new=new, ledger_key=key, journal_salt=salt)
