"""Sign and verify a model folder in the form of OpenSSF model-signing 1.0; the signature lies beside the folder.

The stock library signs and its stock command verifies. Loading it costs a second and 500 modules, so a replica verifies
with the code here, which reads the same format and is stricter: files by SHA-256, no symbolic link, nothing ignored.
"""

import hashlib
import os
import stat
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from bedplate.bundle import dsse
from bedplate.bundle.keys import load_private, load_public, make_key
from bedplate.errors import IntegrityError, StorageError
from bedplate.ids import Digest, digest_bytes

__all__ = ["make_key", "sign", "signature_path", "verify_signature"]

SIGNATURE_LIMIT = 8 << 20
_STATEMENT = "https://in-toto.io/Statement/v1"
_PREDICATE = "https://model_signing/signature/v1.0"


class _Resource(msgspec.Struct):
    name: str
    algorithm: Literal["sha256"]
    digest: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]


class _Serialization(msgspec.Struct):
    method: Literal["files"]
    hash_type: Literal["sha256"]
    allow_symlinks: bool
    ignore_paths: tuple[str, ...] = ()


class _Predicate(msgspec.Struct):
    serialization: _Serialization
    resources: tuple[_Resource, ...]


class _Hashes(msgspec.Struct):
    sha256: str


class _Subject(msgspec.Struct):
    name: str
    digest: _Hashes


class _Statement(msgspec.Struct, rename={"kind": "_type", "predicate_type": "predicateType"}):
    kind: str
    subject: Annotated[tuple[_Subject, ...], msgspec.Meta(min_length=1, max_length=1)]
    predicate_type: str
    predicate: _Predicate


def signature_path(folder: Path) -> Path:
    """Where the signature of ``folder`` lies: beside it, so that every file inside is signed."""
    return folder.with_name(f"{folder.name}.sig.json")


def sign(folder: Path, private: Path, public: Path) -> Digest:
    """Sign every file of ``folder``; returns the digest of the signature file.

    A signature that is there already and holds is kept, so that signing again changes nothing.

    Raises:
        HomeError: the private key cannot be used.
        IntegrityError: the folder holds anything but plain files.
        StorageError: the signature cannot be written.
    """
    # The whole of Sigstore: a second and 500 modules that only a release needs.
    from model_signing import hashing
    from model_signing import signing as stock

    target = signature_path(folder)
    load_private(private)
    hash_files(folder)
    if target.exists():
        verify_signature(folder, public)
        return digest_bytes(target.read_bytes())
    files = hashing.Config().set_ignored_paths(paths=[], ignore_git_paths=False)  # type: ignore[no-untyped-call]
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        signer = stock.Config().set_hashing_config(files)  # type: ignore[no-untyped-call]
        signer.use_elliptic_key_signer(private_key=private).sign(folder, temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(target)
        sync_folder(target.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise StorageError(f"the signature cannot be written: {error}", where=str(target)) from error
    return digest_bytes(target.read_bytes())


def verify_signature(folder: Path, public: Path) -> dict[str, Digest]:
    """The digest of every file of ``folder``, after its signature was verified with the key in ``public``.

    Raises:
        IntegrityError: a file was added, removed, renamed, changed or replaced by a link since it was signed; or the
            signature is missing, malformed, or made with another key.
    """
    where = signature_path(folder)
    payload = dsse.verify(_read_signature(where), load_public(public), str(where))
    try:
        statement = msgspec.json.decode(payload, type=_Statement)
    except msgspec.DecodeError as error:
        raise IntegrityError(f"the signed statement cannot be read: {error}", where=str(where)) from error
    if statement.kind != _STATEMENT or statement.predicate_type != _PREDICATE:
        raise IntegrityError("the signed statement is of another kind", where=str(where))
    settings = statement.predicate.serialization
    if settings.allow_symlinks or settings.ignore_paths:
        raise IntegrityError("the signature leaves out files or follows links", where=str(where))
    root = hashlib.sha256(b"".join(bytes.fromhex(r.digest) for r in statement.predicate.resources)).hexdigest()
    if root != statement.subject[0].digest.sha256:
        raise IntegrityError("the signed statement contradicts itself", where=str(where))
    signed = {resource.name: Digest(f"sha256:{resource.digest}") for resource in statement.predicate.resources}
    found = hash_files(folder)
    if signed != found:
        raise IntegrityError(f"it is not what was signed: {_difference(signed, found)}", where=str(folder))
    return found


def hash_files(folder: Path) -> dict[str, Digest]:
    """The digest of every file of a flat folder, by name.

    Raises:
        IntegrityError: the folder is missing, or holds a link, a folder or anything else that is no plain file.
    """
    digests: dict[str, Digest] = {}
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        for entry in entries:
            digests[entry.name] = _hash_file(entry.path)
    except OSError as error:
        raise IntegrityError(f"the folder cannot be read: {error}", where=str(folder)) from error
    return digests


def sync_folder(folder: Path) -> None:
    """Put a folder's entries on disk."""
    file = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _hash_file(path: str) -> Digest:
    # O_NOFOLLOW and a look at the opened file: a link put there between looking and opening is not followed.
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise IntegrityError(f"it is not a plain file: {error.strerror}", where=path) from error
    with open(file, "rb") as opened:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise IntegrityError("it is not a plain file", where=path)
        return Digest(f"sha256:{hashlib.file_digest(opened, 'sha256').hexdigest()}")


def _read_signature(path: Path) -> bytes:
    try:
        if path.stat().st_size > SIGNATURE_LIMIT:
            raise IntegrityError("the signature file is too large", where=str(path))
        return path.read_bytes()
    except OSError as error:
        raise IntegrityError(f"the signature cannot be read: {error.strerror}", where=str(path)) from error


def _difference(signed: dict[str, Digest], found: dict[str, Digest]) -> str:
    parts = (
        ("added", found.keys() - signed.keys()),
        ("removed", signed.keys() - found.keys()),
        ("changed", {name for name in signed.keys() & found.keys() if signed[name] != found[name]}),
    )
    return "; ".join(f"{what} {', '.join(sorted(names))}" for what, names in parts if names)
