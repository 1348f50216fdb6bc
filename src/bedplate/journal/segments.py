"""Finding, reading and recovering segments."""

import fcntl
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec

from bedplate.errors import IntegrityError
from bedplate.ids import Digest
from bedplate.journal import format as fmt


class Segment(msgspec.Struct, frozen=True, kw_only=True):
    """One segment file. ``count`` and ``digest`` are known once it is sealed."""

    path: Path
    id: str
    salt: str
    created: str
    sealed: bool
    count: int = 0
    digest: Digest | None = None


def segments(folder: Path, *, sealed_only: bool = False) -> list[Segment]:
    """The segments in ``folder``, oldest first. A file that was created and never got its header is left out.

    Raises:
        IntegrityError: a sealed file has no readable header or footer.
    """
    if not folder.is_dir():
        return []
    found = []
    for path in sorted(folder.iterdir()):
        if path.suffix == fmt.SEALED:
            found.append(_describe_sealed(path))
        elif path.suffix == fmt.OPEN and not sealed_only:
            segment = _describe_open(path)
            if segment is not None:
                found.append(segment)
    return found


def _describe_open(path: Path) -> Segment | None:
    try:
        with path.open("rb") as file:
            head = fmt.read_header(file)
    except FileNotFoundError:  # it was sealed or recovered between the listing and here
        return None
    if head is None:
        return None
    return Segment(path=path, id=head[0].id, salt=head[0].salt, created=head[0].created, sealed=False)


def _describe_sealed(path: Path) -> Segment:
    """Header and footer only: records are checked when they are read."""
    with path.open("rb") as file:
        head = fmt.read_header(file)
        if head is None:
            raise IntegrityError("a sealed journal segment has no header", where=str(path))
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 256))
        tail = file.read()
    mark = tail.rfind(b"\xff\xff\xff\xff")
    footer = fmt.parse_footer(tail[mark:]) if mark >= 0 else None
    if footer is None:
        raise IntegrityError("a sealed journal segment has no footer", where=str(path))
    return Segment(
        path=path,
        id=head[0].id,
        salt=head[0].salt,
        created=head[0].created,
        sealed=True,
        count=footer.count,
        digest=footer.digest,
    )


def read(segment: Segment | Path) -> Iterator[bytes]:
    """The records of a segment, in the order they were appended.

    An open segment ends at its last whole record. A sealed one is checked as it is read, to its digest at the end.

    Raises:
        IntegrityError: a sealed segment is not what was sealed.
    """
    path = segment.path if isinstance(segment, Segment) else segment
    sealed = path.suffix == fmt.SEALED
    try:
        opened = path.open("rb")
    except FileNotFoundError:
        if sealed:
            raise
        yield from read(path.with_suffix(fmt.SEALED))  # it was sealed after it was listed
        return
    with opened as file:
        head = fmt.read_header(file)
        if head is None:
            if sealed:
                raise IntegrityError("a sealed journal segment has no header", where=str(path))
            return
        crc, count = head[1], 0
        while True:
            end = file.tell()
            item = fmt.read_record(file, crc)
            if isinstance(item, tuple):
                count, crc = count + 1, item[1]
                yield item[0]
                continue
            break
        if not sealed:
            return
        rest = file.read(1)
    if item is None or rest:
        raise IntegrityError("a sealed journal segment is damaged", where=f"{path} at byte {end}")
    if item.count != count or item.digest != _digest_until(path, end):
        raise IntegrityError("a sealed journal segment is not what was sealed", where=str(path))


def _digest_until(path: Path, end: int) -> Digest:
    """SHA-256 over the first ``end`` bytes."""
    state = hashlib.sha256()
    with path.open("rb") as file:
        while end > 0:
            block = file.read(min(end, 1 << 20))
            if not block:
                break
            state.update(block)
            end -= len(block)
    return Digest(f"sha256:{state.hexdigest()}")


def remove(segment: Segment) -> None:
    """Delete a segment whose content is kept elsewhere by now."""
    segment.path.unlink()
    sync_folder(segment.path.parent)


def recover(folder: Path) -> list[Segment]:
    """Seal the open segments whose writer is gone, and give them.

    A torn tail (bytes after the last whole record, never acknowledged) is moved to a ``.torn`` file beside the segment.
    A segment whose writer lives is locked and left alone; one without any record is removed.
    """
    recovered = []
    for path in sorted(folder.glob(f"*{fmt.OPEN}")):
        try:
            file = path.open("r+b")
        except FileNotFoundError:
            continue
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            if not path.exists():  # its writer sealed it between the listing and the lock
                continue
            segment = _seal_abandoned(path, file)
            if segment is not None:
                recovered.append(segment)
    return recovered


def _seal_abandoned(path: Path, file: BinaryIO) -> Segment | None:
    head = fmt.read_header(file)
    crc, count, end = (head[1], 0, file.tell()) if head else (0, 0, 0)
    footer: fmt.Footer | None = None
    while head:
        item = fmt.read_record(file, crc)
        if isinstance(item, fmt.Footer):
            footer, end = item, file.tell()
        if not isinstance(item, tuple):
            break
        count, crc, end = count + 1, item[1], file.tell()
    file.seek(end)
    torn = file.read()
    if torn:
        _keep_torn(path, torn)
    if not count:
        path.unlink()
        sync_folder(path.parent)
        return None
    file.truncate(end)
    if footer is None:
        file.seek(end)
        file.write(fmt.encode_footer(fmt.Footer(count=count, digest=_digest_until(path, end))))
    file.flush()
    os.fsync(file.fileno())
    return _describe_sealed(promote(path))


def _keep_torn(path: Path, torn: bytes) -> None:
    with path.with_suffix(fmt.TORN).open("wb") as kept:
        kept.write(torn)
        kept.flush()
        os.fsync(kept.fileno())


def promote(path: Path) -> Path:
    """Give a segment whose footer is on disk its sealed name."""
    sealed = path.with_suffix(fmt.SEALED)
    path.rename(sealed)
    sync_folder(path.parent)
    return sealed


def sync_folder(folder: Path) -> None:
    """Put a folder's entries on disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
