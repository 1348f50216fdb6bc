"""Appending records to the open segment of one writer."""

import errno
import fcntl
import hashlib
import math
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from bedplate import clock
from bedplate.errors import InputError, StorageError
from bedplate.ids import Digest
from bedplate.journal import format as fmt
from bedplate.journal.backlog import Backlog, Draft
from bedplate.journal.segments import promote, recover, sync_folder

Mode = Literal["buffered", "durable"]
Done = Callable[[StorageError | None], None]
Record = bytes | memoryview

MOST_WAITING = 32 << 20
"""Bytes that a buffered writer keeps in memory while the disk refuses; then appending fails."""


class Writer:
    """Appends records to a folder of segments. Safe to use from several threads.

    Opening recovers what earlier writers left behind. One background thread writes and syncs; whoever waits for a
    durable append waits for it, so one sync serves all of them. What nobody waits for is given to the system every
    ``flush_seconds``, and outlives this process from then on; it is synced every ``sync_seconds``, and outlives the
    machine: a sync takes many times what a write takes, on the core that answers requests.

    After a failed sync the writer refuses everything: the kernel may have dropped the pages, and a second sync would
    lie. A disk that is too full to write to is different: what did not fit is taken back, its callers are told, and
    the writer works again once there is room.

    With a ``backlog``, whoever has its descriptor can write what this process was given, had it to end at once.
    """

    def __init__(
        self,
        folder: Path,
        mode: Mode = "durable",
        *,
        seal_bytes: int = 64 << 20,
        seal_seconds: float = 60.0,
        flush_seconds: float = 0.02,
        sync_seconds: float = 0.25,
        backlog: Backlog | None = None,
    ) -> None:
        if mode not in ("buffered", "durable"):
            raise InputError(f"{mode!r} is not a journal mode", fix="use buffered or durable")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            recover(folder)
        except OSError as error:
            raise StorageError(f"the journal cannot be opened: {error.strerror}", where=str(folder)) from error
        self.mode = mode
        self._folder = folder
        self._seal_bytes, self._seal_seconds = seal_bytes, seal_seconds
        self._flush_seconds, self._sync_seconds = flush_seconds, sync_seconds
        self._lock = threading.Lock()  # taken as it is where nobody waits: a third of what the condition takes
        self._work = threading.Condition(self._lock)
        self._waiting: list[tuple[Record, Done | None]] = []
        self._waiting_bytes = 0
        self._appended = 0  # records handed to submit, ever
        self._settled = 0  # records that are on disk or were refused, ever
        self._unsynced = 0  # records that are written and may not be on disk
        self._synced = -math.inf  # when the last sync ended
        self._sync_asked = self._seal_asked = self._closing = self._refusing = False
        self._idle = False  # whether the thread sleeps until something is appended, or is due by the clock
        self._failed: StorageError | None = None
        self._backlog = backlog
        self._segment: OpenSegment | None = None
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
        self._thread.start()

    def append(self, record: bytes) -> None:
        """Append one record; in durable mode, return when it is on disk.

        Raises:
            InputError: the record is empty or larger than 256 MiB.
            StorageError: it could not be recorded (disk full, I/O error, or the writer is closed).
        """
        if self.mode == "buffered":
            self.submit(record, None)
            return
        settled = threading.Event()
        outcome: list[StorageError | None] = []

        def done(error: StorageError | None) -> None:
            outcome.append(error)
            settled.set()

        self.submit(record, done)
        settled.wait()
        if outcome[0] is not None:
            raise outcome[0]

    def submit(self, record: bytes, done: Done | None) -> None:
        """Append one record and return at once; ``done`` is called from the writer's thread when it is on disk.

        ``done`` gets None, or the error that kept the record from the disk. It must be quick and not raise.

        Raises:
            InputError: the record is empty or larger than 256 MiB.
            StorageError: the writer failed, is closed, or keeps too much that the disk refused.
        """
        size = len(record)
        if not 1 <= size <= fmt.MAX_RECORD:
            raise InputError(f"a journal record of {size} bytes cannot be kept", fix="1 byte to 256 MiB")
        with self._lock:
            self.check(waited_for=done is not None)
            kept = self._backlog.add(record) if done is None and self._backlog is not None else record
            self._waiting.append((kept, done))
            self._waiting_bytes += size
            self._appended += 1
            if self._idle or done is not None or self._waiting_bytes > 1 << 20:
                self._work.notify_all()

    def check(self, *, waited_for: bool = False) -> None:
        """Raise the StorageError that :meth:`submit` would."""
        if self._failed is not None:
            raise self._failed
        if self._closing:
            raise StorageError("the journal is closed", where=str(self._folder))
        if not waited_for and self._waiting_bytes > MOST_WAITING:
            raise StorageError("the journal cannot keep up", where=str(self._folder), fix="free disk space")

    def draft(self) -> Draft | None:
        """Room for the record of something that is not over yet, which is written if this process is killed before;
        None where nothing outlives it, or too much is under way."""
        return None if self._backlog is None else self._backlog.draft()

    def flush(self) -> None:
        """Return when everything appended before is on disk.

        Raises:
            StorageError: some of it could not be written.
        """
        self._settle(seal=False)

    def seal(self) -> None:
        """Put everything on disk and seal the segment, if it holds a record.

        Raises:
            StorageError: some of it could not be written.
        """
        self._settle(seal=True)

    def _settle(self, *, seal: bool) -> None:
        with self._work:
            until = self._appended
            self._seal_asked = self._seal_asked or seal
            tried = 0
            while self._failed is None and (self._settled < until or (seal and self._seal_asked)):
                if not self._thread.is_alive():
                    return
                self._sync_asked = True
                self._work.notify_all()
                self._work.wait(0.1)
                tried += 1
                if tried > 100:
                    raise StorageError("the journal cannot be written", where=str(self._folder), fix="free disk space")
            if self._failed is not None:
                raise self._failed

    def close(self) -> None:
        """Flush, seal and stop. Further appends fail."""
        with self._work:
            self._closing = True
            self._work.notify_all()
        self._thread.join()

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # ------------------------------------------------------------------------------------------- the writer's thread

    def _run(self) -> None:
        quiet = True
        while True:
            with self._work:
                if quiet:
                    self._sleep()
                if self._refusing or not self._due():  # while the disk refuses, try again at the pace of the clock
                    self._work.wait(self._flush_seconds)
                batch, self._waiting, self._waiting_bytes = self._waiting, [], 0
                sealing, closing = self._seal_asked or self._closing, self._closing
                syncing, self._sync_asked = self._sync_asked, False
                if self._backlog is not None:
                    self._backlog.taken()
            quiet = not batch
            if batch:
                self._write(batch)
            if self._unsynced and (syncing or clock.monotonic() - self._synced >= self._sync_seconds):
                self._sync()
            self._maybe_seal(sealing)
            with self._work:
                if closing and (not self._waiting or self._failed):
                    self._work.notify_all()
                    return

    def _sleep(self) -> None:
        """Until something is appended or asked for, or what was written is to be synced or sealed."""
        self._idle = True
        while not self._waiting and not self._due():
            now = clock.monotonic()
            if self._segment is None or self._failed is not None:
                seconds = None
            elif self._unsynced:
                seconds = self._synced + self._sync_seconds - now
            else:
                seconds = self._segment.opened + self._seal_seconds - now
            if seconds is not None and seconds <= 0:
                break
            self._work.wait(seconds)
        self._idle = False

    def _due(self) -> bool:
        waited_for = any(done is not None for _, done in self._waiting)
        return waited_for or self._sync_asked or self._seal_asked or self._closing

    def _write(self, batch: list[tuple[Record, Done | None]]) -> None:
        error = self._written([record for record, _ in batch])
        if error is None:
            self._unsynced += len(batch)
            if any(done is not None for _, done in batch):
                error = self._sync()
        else:
            if self._failed is None and not self._closing:
                self._keep(batch)
                batch = [entry for entry in batch if entry[1] is not None]
            self._settle_more(len(batch))
        for _, done in batch:
            if done is not None:
                done(error)

    def _written(self, records: Sequence[Record]) -> StorageError | None:
        """Give records to the system; why not, if it does not take them."""
        self._refusing = False
        try:
            if self._segment is None:
                self._segment = OpenSegment(self._folder)
            if self._backlog is not None:
                with self._work:
                    self._backlog.into(self._segment.id, self._segment.count)
            self._segment.write(records)
        except OSError as cause:
            return self._refused(cause)
        if self._backlog is not None:
            with self._work:
                self._backlog.written()
        return None

    def _sync(self) -> StorageError | None:
        """Put on disk what the system was given; a failure is final."""
        assert self._segment is not None, "what is not synced is in a segment"
        try:
            self._segment.sync()
        except OSError as cause:
            return self._fail(cause)
        self._synced = clock.monotonic()
        done, self._unsynced = self._unsynced, 0
        self._settle_more(done)
        return None

    def _settle_more(self, count: int) -> None:
        with self._work:
            self._settled += count
            self._work.notify_all()

    def _keep(self, batch: list[tuple[Record, Done | None]]) -> None:
        """Nobody waits for these, so nobody can be told: they are tried again."""
        kept = [entry for entry in batch if entry[1] is None]
        with self._work:
            self._waiting[:0] = kept
            self._waiting_bytes += sum(len(record) for record, _ in kept)

    def _refused(self, cause: OSError) -> StorageError:
        """Take back what was not written as a whole, to try again; a failure where that makes no sense."""
        self._refusing = True
        if cause.errno not in (errno.ENOSPC, errno.EDQUOT):
            return self._fail(cause)
        try:
            if self._segment is not None:
                self._segment.take_back()
        except OSError as worse:
            return self._fail(worse)
        return self._error(cause)

    def _fail(self, cause: OSError) -> StorageError:
        """Refuse everything from now on."""
        error = self._error(cause)
        with self._work:
            self._failed = error
            self._work.notify_all()
        return error

    def _error(self, cause: OSError) -> StorageError:
        return StorageError(
            f"the journal could not be written: {cause.strerror or cause}",
            where=str(self._folder),
            fix="free disk space" if cause.errno in (errno.ENOSPC, errno.EDQUOT) else None,
        )

    def _maybe_seal(self, asked: bool) -> None:
        segment = self._segment
        if segment is not None and self._failed is None:
            full = segment.size >= self._seal_bytes
            old = clock.monotonic() - segment.opened >= self._seal_seconds
            if (asked or full or old) and not (self._unsynced and self._sync()):
                try:
                    segment.seal()
                    self._segment = None
                except OSError as cause:
                    self._refused(cause)
        if asked:
            with self._work:
                self._seal_asked = bool(self._segment) and self._failed is None
                self._work.notify_all()


class OpenSegment:
    """The file being appended to. Locked while its writer lives, so that nobody else recovers it."""

    def __init__(self, folder: Path) -> None:
        while True:
            header = fmt.new_header()
            self.id = header.id
            self.path = folder / f"{header.id}{fmt.OPEN}"
            self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._fd, fcntl.LOCK_EX)
            if os.fstat(self._fd).st_nlink:
                break
            os.close(self._fd)  # another writer's recovery removed the empty file before it was locked
        start, self._crc = fmt.encode_header(header)
        self.opened = clock.monotonic()
        self.count = 0
        try:
            _write_all(self._fd, start, 0)
            sync_folder(folder)
        except OSError:
            os.close(self._fd)
            self.path.unlink(missing_ok=True)
            raise
        self.size = len(start)
        self._sha = hashlib.sha256(start)

    def write(self, records: Sequence[Record]) -> None:
        """Give ``records`` to the system; on an error the caller decides between :meth:`take_back` and giving up."""
        pieces: list[Record] = []
        crc = self._crc
        for record in records:
            start, crc = fmt.start_record(record, crc)
            pieces += (start, record)
        data = b"".join(pieces)
        _write_all(self._fd, data, self.size)
        self.size += len(data)
        self.count += len(records)
        self._crc = crc
        self._sha.update(data)

    def sync(self) -> None:
        """Put what was written on disk."""
        os.fdatasync(self._fd)

    def take_back(self) -> None:
        """Drop what was written after the last successful :meth:`write`."""
        os.ftruncate(self._fd, self.size)

    def seal(self) -> None:
        """Write the footer, sync, and give the file its sealed name; without a record, remove it."""
        if not self.count:
            self.path.unlink()
        else:
            digest = Digest(f"sha256:{self._sha.hexdigest()}")
            _write_all(self._fd, fmt.encode_footer(fmt.Footer(count=self.count, digest=digest)), self.size)
            os.fsync(self._fd)
            promote(self.path)
        os.close(self._fd)


def _write_all(fd: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        view, offset = view[written:], offset + written
