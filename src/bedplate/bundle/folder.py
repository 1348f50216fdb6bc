"""Bundles on disk: ``<digest>/`` holds the files and ``bedplate.json``; ``<digest>.sig.json`` beside it signs them."""

import mmap
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import msgspec

from bedplate.bundle import manifest as manifests
from bedplate.bundle.formats import BUNDLE_LIMIT, identify
from bedplate.bundle.manifest import File, Manifest
from bedplate.bundle.signing import hash_files, sync_folder, verify_signature
from bedplate.errors import InputError, IntegrityError, StorageError
from bedplate.ids import Digest, digest_bytes


def path_of(bundles: Path, digest: Digest) -> Path:
    """The folder of the bundle ``digest`` below ``bundles``."""
    return bundles / digest.removeprefix("sha256:")


def complete(files: Mapping[str, bytes], manifest: Manifest) -> Manifest:
    """``manifest`` with the digest, size and format of every file filled in.

    Raises:
        InputError: a name is no flat name, or a file is of a format that trusted processes do not load.
    """
    entries: dict[str, File] = {}
    limited = manifest.signature.predictor in manifests.LIMITED
    for name, data in sorted(files.items()):
        manifests.check_name(name)
        if name == manifests.NAME:
            raise InputError(f"{name} is the manifest's own name", fix="give the file another name")
        entries[name] = File(digest=digest_bytes(data), size=len(data), format=identify(name, data, limited=limited))
    if sum(entry.size for entry in entries.values()) > BUNDLE_LIMIT:
        raise InputError(f"the bundle is larger than {BUNDLE_LIMIT >> 30} GiB", fix="release a smaller model")
    return msgspec.structs.replace(manifest, files=entries)


def write(bundles: Path, files: Mapping[str, bytes], manifest: Manifest) -> Digest:
    """Write a bundle below ``bundles`` and return its digest; all of it or nothing, and on disk before this returns.

    The files of ``manifest`` are filled in here. Writing the same bundle again changes nothing.

    Raises:
        InputError: a name or a format is refused.
        StorageError: the disk is full or refuses.
    """
    manifest = complete(files, manifest)
    digest = manifest.digest
    target = path_of(bundles, digest)
    if target.exists():
        return digest
    temporary = bundles / f".{target.name}.{os.getpid()}"
    try:
        bundles.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(temporary, ignore_errors=True)  # left by a process of this number that was killed
        temporary.mkdir()
        for name, data in {**files, manifests.NAME: manifest.encode()}.items():
            with (temporary / name).open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        sync_folder(temporary)
        temporary.rename(target)
        sync_folder(bundles)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise StorageError(
            f"the bundle cannot be written: {error}", where=str(target), fix="free some space"
        ) from error
    return digest


def verify(folder: Path, *, public_key: Path, digest: Digest | None = None) -> Manifest:
    """The manifest of the bundle in ``folder``, after everything about it was verified.

    That is: the signature with the key in ``public_key``; that the folder holds exactly the files signed and listed;
    that each is of the format listed, and runs no code unless a limited process loads the bundle; and, when ``digest``
    is given, that this is the bundle meant.

    Raises:
        IntegrityError: any of it does not hold.
    """
    digests = verify_signature(folder, public_key)
    where = str(folder / manifests.NAME)
    if manifests.NAME not in digests:
        raise IntegrityError("the folder has no manifest", where=where)
    data = read_file(folder, manifests.NAME, digests[manifests.NAME], manifests.MANIFEST_LIMIT)
    manifest = manifests.decode(data, where)
    if digest is not None and manifest.digest != digest:
        raise IntegrityError(f"this is bundle {manifest.digest}, not {digest}", where=where)
    listed = {name: file.digest for name, file in manifest.files.items()}
    if listed != {name: found for name, found in digests.items() if name != manifests.NAME}:
        raise IntegrityError("the manifest does not list the files that are there", where=where)
    for name, file in manifest.files.items():
        _verify_format(folder / name, file, limited=manifest.signature.predictor in manifests.LIMITED)
    return manifest


def read(folder: Path, manifest: Manifest, name: str) -> bytes:
    """One file of a bundle, checked against the manifest as it is read: what is loaded is what was verified.

    Raises:
        IntegrityError: the file is not listed, or changed since it was verified.
    """
    if name not in manifest.files:
        raise IntegrityError(f"the bundle has no file {name!r}", where=str(folder))
    return read_file(folder, name, manifest.files[name].digest, manifest.files[name].size)


def read_file(folder: Path, name: str, digest: Digest, limit: int) -> bytes:
    """The file ``name`` of ``folder``, at most ``limit`` bytes, if it has ``digest``."""
    path = folder / name
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        with open(file, "rb") as opened:
            data = opened.read(limit + 1)
    except OSError as error:
        raise IntegrityError(f"the file cannot be read: {error.strerror}", where=str(path)) from error
    if digest_bytes(data) != digest:
        raise IntegrityError("the file changed since it was verified", where=str(path))
    return data


def files_changed(folder: Path, manifest: Manifest) -> tuple[str, ...]:
    """Names of files that are no longer what ``manifest`` lists; empty when all is well. Signatures are not checked."""
    found = hash_files(folder)
    listed = {name: file.digest for name, file in manifest.files.items()} | {manifests.NAME: manifest.digest}
    return tuple(sorted(name for name in found.keys() | listed.keys() if found.get(name) != listed.get(name)))


def _verify_format(path: Path, file: File, *, limited: bool) -> None:
    where = str(path)
    if file.size == 0:
        raise IntegrityError("the file is empty", where=where)
    with path.open("rb") as opened:
        # Not closed by hand: an error from below still holds views of it.
        mapped = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
    if len(mapped) != file.size:
        raise IntegrityError(f"the file has {len(mapped)} bytes, not {file.size}", where=where)
    try:
        found = identify(path.name, memoryview(mapped), limited=limited)
    except InputError as error:
        raise IntegrityError(error.message, where=where) from error
    if found != file.format:
        raise IntegrityError(f"the file is {found}, not {file.format}", where=where)
