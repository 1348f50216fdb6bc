"""Online features in LMDB: one memory-mapped file that any number of processes read while one writes."""

import hashlib
import struct
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import lmdb

from bedplate.errors import StorageError
from bedplate.online import lmdb_pages
from bedplate.online.keys import Get, check_keys, check_namespace

_INITIAL_MAP = 64 << 20
_VERSION = struct.Struct("<Q")
_META = b"\x00"
_ERASURES = b"\x00\x00"
"""The key under which the erasures of all processes are counted."""
_ZEROS = b"\x02"
_SPARE_PAGES = 1 << 17
"""More pages than LMDB keeps in memory between two changes (``MDB_IDL_UM_MAX``)."""
_PATIENCE, _HELD_UP = 10.0, 0.02
"""Seconds to wait for whoever reads an old state, and seconds of them in which others may not write."""


@dataclass
class _Opened:
    """An environment of this process; ``clean``: how many erasures there were when its spare pages were last wiped."""

    environment: lmdb.Environment
    read_only: bool
    clean: int
    users: int = 0


class _Shared:
    """The environments open in this process: LMDB allows one per file, so openers share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[Path, _Opened] = {}

    def acquire(self, location: Path, read_only: bool, map_size: int) -> _Opened:
        with self._lock:
            found = self._open.get(location)
            if found is None:
                environment = _open(location, read_only, map_size)
                with environment.begin() as transaction:
                    found = _Opened(environment, read_only, _number(transaction.get(_ERASURES)))
            if found.read_only and not read_only:
                raise StorageError("online features are open for reading only in this process", where=str(location))
            found.users += 1
            self._open[location] = found
            return found

    def release(self, location: Path) -> None:
        with self._lock:
            found = self._open[location]
            found.users -= 1
            if not found.users:
                self._open.pop(location).environment.close()


def _open(location: Path, read_only: bool, map_size: int) -> lmdb.Environment:
    try:
        data = location / "data.mdb"
        if not data.exists():  # a reader may come before the first writer: the empty store is made for it
            location.mkdir(parents=True, exist_ok=True)
            lmdb.open(str(location), map_size=map_size).close()
        size = max(map_size, data.stat().st_size * 2)
        return lmdb.open(str(location), map_size=size, readonly=read_only, readahead=False, max_readers=1024)
    except (lmdb.Error, OSError) as error:
        raise StorageError(f"online features cannot be opened: {error}", where=str(location)) from error


_shared = _Shared()  # one per process, because the limit it keeps is per process


class _Prefixes(dict[str, bytes]):
    """What stands before the keys of each namespace."""

    def __missing__(self, namespace: str) -> bytes:
        check_namespace(namespace)
        made = self[namespace] = b"\x01" + hashlib.sha256(namespace.encode()).digest()[:8]
        return made


class LmdbOnline:
    """The :class:`bedplate.online.Online` port on LMDB.

    A key is stored under 8 bytes of the namespace's digest, so namespaces are as cheap as keys. The map doubles when it
    is full; a process that meets a map grown by another adopts its size.
    """

    waits = False

    def __init__(self, location: Path, *, read_only: bool = False, map_size: int = _INITIAL_MAP) -> None:
        self._location = location.absolute()
        self._read_only = read_only
        self._prefixes = _Prefixes()
        self._opened = _shared.acquire(self._location, read_only, map_size)
        self._environment = self._opened.environment
        self._closed = False

    def _begin(self) -> lmdb.Transaction:
        try:
            return self._environment.begin()
        except lmdb.MapResizedError:
            self._environment.set_mapsize(0)
            return self._environment.begin()

    def get(self, namespace: str, key: bytes) -> bytes | None:
        """The value under ``key``, or None."""
        return self.getter(namespace)(key)

    def getter(self, namespace: str) -> Get:
        """:meth:`get` of one namespace, in which nothing is looked up that is the same for every key."""
        prefix = self._prefixes[namespace]
        begin: Callable[[], Any] = self._environment.begin

        def get(key: bytes) -> bytes | None:
            try:
                transaction = begin()
            except lmdb.MapResizedError:
                transaction = self._begin()
            try:
                return cast("bytes | None", transaction.get(prefix + key))
            finally:
                transaction.abort()  # keeps it for the next read, where committing ends it: half of what a read takes

        return get

    def get_many(self, namespace: str, keys: Sequence[bytes]) -> list[bytes | None]:
        """The values under ``keys``, in their order, from one moment."""
        prefix = self._prefixes[namespace]
        transaction = self._begin()
        try:
            get = cast("Callable[[bytes], bytes | None]", transaction.get)  # copies: no buffers are asked for
            return [get(prefix + key) for key in keys]
        finally:
            transaction.abort()  # as above

    def put_many(
        self, namespace: str, items: Mapping[bytes, bytes] | Iterable[tuple[bytes, bytes]], *, replace: bool = False
    ) -> int:
        """Store all of ``items`` or none, synced; gives the namespace's new version.

        Raises:
            InputError: a key is empty or longer than 400 bytes.
            StorageError: opened for reading only, or the disk refused; nothing was stored.
        """
        prefix = self._prefixes[namespace]
        pairs = sorted(items.items() if isinstance(items, Mapping) else items)
        check_keys(key for key, _ in pairs)
        drop = None if not replace else {key for key, _ in pairs}
        return self._write(prefix, [(prefix + key, value) for key, value in pairs], drop)

    def delete(self, namespace: str, keys: Iterable[bytes]) -> int:
        """Forget ``keys``; gives the namespace's new version."""
        prefix = self._prefixes[namespace]
        return self._write(prefix, [(prefix + key, None) for key in keys], None)

    def erase(self, namespace: str, left: Mapping[bytes, bytes | None]) -> int:
        """Forget what is under these keys, and leave no byte of it on the disk; gives the namespace's new version.

        Under each key is what ``left`` says from then on, or nothing. A change leaves behind what it replaced: in pages
        that it freed, beside the entries of pages in use, and in the spare pages that each process which ever wrote
        keeps in memory, and will write again. So all that is not in use is wiped, and a process that finds an erasure
        counted wipes its spare pages before it next writes.

        Raises:
            StorageError: opened for reading only, or a reader holds on to an old state: ask again.
        """
        prefix, file = self._prefixes[namespace], self._location / "data.mdb"
        version = self._write(prefix, [(prefix + key, value) for key, value in left.items()], None)
        self._growing(_count_erasure)
        self._wipe()  # after the spare pages were wiped, as before any change that follows an erasure
        gone = [prefix + key for key, value in left.items() if value is None]
        if lmdb_pages.holds(file, gone):  # where a page ends is told by a key that once was in it
            self._write_anew()
            self._wipe()
            if lmdb_pages.holds(file, gone):
                raise StorageError("bytes of erased features are still on the disk", where=str(file))
        return version

    def _write_anew(self) -> None:
        with tempfile.TemporaryDirectory(prefix="anew-", dir=self._location) as scratch:
            size = self._environment.info()["map_size"]
            with lmdb.open(scratch, map_size=size, sync=False) as copy:
                with self._begin() as source, copy.begin(write=True) as target:
                    for key, value in source.cursor():
                        target.put(key, value, append=True)
                self._growing(lambda transaction: _refill(transaction, copy, self._environment))

    def _wipe(self) -> None:
        """Wipe what is not in use, once nobody reads an old state."""
        until = time.monotonic() + _PATIENCE
        while not self._growing(self._wipe_now):
            if time.monotonic() > until:
                raise StorageError(
                    "bytes of erased features are still on the disk, because somebody reads an old state",
                    where=str(self._location), fix="run it again in a moment",
                )  # fmt: skip
            time.sleep(_HELD_UP)

    def _wipe_now(self, transaction: lmdb.Transaction) -> bool:
        """Wipe what is not in use, while ``transaction`` keeps others from writing; it changes nothing itself. Whether
        it was: whoever reads an old state for long must not keep others from writing as long."""
        until = time.monotonic() + _HELD_UP
        while self._environment.reader_check() or _oldest(self._environment) < transaction.id() - 1:
            if time.monotonic() > until:
                return False
            time.sleep(0.001)
        lmdb_pages.wipe(self._location / "data.mdb")
        return True

    def _use_spare_pages(self, transaction: lmdb.Transaction) -> None:
        """Have each page that LMDB keeps for the next change hold zeros; ``transaction`` is one to abort."""
        last, size = self._environment.info()["last_pgno"], self._environment.stat()["psize"]
        zeros = bytes(size - 16)  # with its head, one page of its own
        for number in range(min(last + 64, _SPARE_PAGES)):
            transaction.put(_ZEROS + number.to_bytes(8, "big"), zeros)

    def _write(self, prefix: bytes, pairs: Sequence[tuple[bytes, bytes | None]], keep: set[bytes] | None) -> int:
        def change(transaction: lmdb.Transaction) -> int:
            if keep is not None:
                _drop_others(transaction, prefix, keep)
            for key, value in pairs:
                if value is None:
                    transaction.delete(key)
                else:
                    transaction.put(key, value)
            stamp = _stamp(prefix)
            version = _number(transaction.get(stamp)) + 1
            transaction.put(stamp, _VERSION.pack(version))
            return version

        return self._growing(change)

    def _growing(self, change: Callable[[lmdb.Transaction], int]) -> int:
        """Make one change, in a larger map if it does not fit."""
        if self._read_only:
            raise StorageError("online features are open for reading only here", where=str(self._location))
        while True:
            try:
                with self._environment.begin(write=True) as transaction:
                    erasures = _number(transaction.get(_ERASURES))
                    if erasures == self._opened.clean:
                        return change(transaction)
                    self._use_spare_pages(transaction)
                    transaction.abort()
                    self._opened.clean = erasures
            except lmdb.MapFullError:
                self._environment.set_mapsize(self._environment.info()["map_size"] * 2)
            except lmdb.MapResizedError:
                self._environment.set_mapsize(0)
            except lmdb.Error as error:
                raise StorageError(f"online features cannot be written: {error}", where=str(self._location)) from error

    def items(self, namespace: str) -> Iterator[tuple[bytes, bytes]]:
        """Every key and its value, from one moment: that of the first."""
        prefix = self._prefixes[namespace]
        with self._begin() as transaction:
            for key in _keys(transaction, prefix):
                value = transaction.get(key)
                assert value is not None, "a key of one transaction"
                yield key[len(prefix) :], bytes(value)

    def version(self, namespace: str) -> int:
        """How many batches changed the namespace; 0 when it was never written."""
        with self._begin() as transaction:
            return _number(transaction.get(_stamp(self._prefixes[namespace])))

    def count(self, namespace: str) -> int:
        """How many keys the namespace holds. Walks them."""
        with self._begin() as transaction:
            return sum(1 for _ in _keys(transaction, self._prefixes[namespace]))

    def close(self) -> None:
        """Let go of the file; the last user in this process closes it."""
        if not self._closed:
            self._closed = True
            _shared.release(self._location)


def _stamp(prefix: bytes) -> bytes:
    """Where the version of a namespace lies. Before a number, the whole prefix would look like one of its keys."""
    return _META + prefix[1:]


def _count_erasure(transaction: lmdb.Transaction) -> int:
    erasures = _number(transaction.get(_ERASURES)) + 1
    transaction.put(_ERASURES, _VERSION.pack(erasures))
    return erasures


def _oldest(environment: lmdb.Environment) -> int:
    """The oldest state that somebody reads, as the number of the transaction that made it."""
    numbers = [line.split()[-1] for line in environment.readers().splitlines()[1:]]
    return min((int(number) for number in numbers if number.isdecimal()), default=2**63)


def _refill(transaction: lmdb.Transaction, copy: lmdb.Environment, environment: lmdb.Environment) -> int:
    """Put all of ``copy`` in the place of everything. Dropping, unlike deleting, copies no page that held something."""
    transaction.drop(environment.open_db(None, txn=transaction), delete=False)
    with copy.begin() as source:
        for key, value in source.cursor():
            transaction.put(key, value, append=True)
    return 0


def _number(stamp: bytes | memoryview | None) -> int:
    return int(_VERSION.unpack(stamp)[0]) if stamp else 0


def _keys(transaction: lmdb.Transaction, prefix: bytes) -> Iterator[bytes]:
    cursor = transaction.cursor()
    if not cursor.set_range(prefix):
        return
    for found in cursor.iternext(keys=True, values=False):
        key = bytes(found)
        if not key.startswith(prefix):
            return
        yield key


def _drop_others(transaction: lmdb.Transaction, prefix: bytes, keep: set[bytes]) -> None:
    for key in [key for key in _keys(transaction, prefix) if key[len(prefix) :] not in keep]:
        transaction.delete(key)
