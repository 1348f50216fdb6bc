"""The pages of an LMDB file: which of them its newest state is made of, and the wiping of everything else.

A page that became free keeps what was in it, and a page in use keeps, between its index and its entries, what was there
before. The layout is that of LMDB's data version 1, on machines of 64 bits (``mdb.c`` of LMDB 0.9: ``MDB_meta``,
``MDB_page``, ``MDB_node``).
"""

import mmap
import os
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeAlias

from bedplate.errors import StorageError

_MAGIC, _DATA_VERSION = 0xBEEFC0DE, 1
_HEAD = 16
_NOTHING = 2**64 - 1
"""The root of an empty tree."""
_META = struct.Struct("<II16x")
_TREE = struct.Struct("<IHH5Q")  # page size, flags, depth, branch, leaf and overflow pages, entries, root
_PAGE = struct.Struct("<10xHHH")  # flags, end of the index, start of the entries
_NODE = struct.Struct("<HHHH")
_BRANCH, _LEAF, _KINDS = 0x01, 0x02, 0x07
_BIG, _TREE_INSIDE = 0x01, 0x02

Span: TypeAlias = tuple[int, int]
"""First byte, and the one after the last."""


def wipe(file: Path) -> None:
    """Fill with zeros, on the disk too, whatever ``file`` holds beside its newest state.

    Nobody may write to it meanwhile, nor read a state before the newest: hold the write lock, and look for readers.

    Raises:
        StorageError: the file is of another layout, or cannot be written.
    """
    try:
        descriptor = os.open(file, os.O_RDWR)
        try:
            with mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ) as data:
                for start, end in _between(sorted(_used(data, file)), len(data)):
                    _zero(descriptor, data, start, end)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise StorageError(f"online features cannot be wiped: {error}", where=str(file)) from error


def holds(file: Path, wanted: Iterable[bytes]) -> bool:
    """Whether the bytes of one of ``wanted`` stand anywhere in ``file``."""
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return any(data.find(each) >= 0 for each in wanted)


def _zero(descriptor: int, data: mmap.mmap, start: int, end: int) -> None:
    """What is zero stays as it is: a page is written only if it has to be."""
    for at in range(start, end, mmap.PAGESIZE):
        size = min(mmap.PAGESIZE, end - at)
        if data[at : at + size].count(0) != size:
            os.pwrite(descriptor, bytes(size), at)


def _between(used: Iterable[Span], size: int) -> Iterator[Span]:
    at = 0
    for start, end in used:
        if start > at:
            yield at, start
        at = max(at, end)
    if at < size:
        yield at, size


def _used(data: mmap.mmap, file: Path) -> Iterator[Span]:
    """All that the newest state is made of: both meta pages, and the pages of its two trees without their slack."""
    page = _TREE.unpack_from(data, _HEAD + _META.size)[0]
    roots: dict[int, tuple[int, int]] = {}
    for at in (0, page):
        magic, version = _META.unpack_from(data, at + _HEAD)
        if (magic, version) != (_MAGIC, _DATA_VERSION):
            raise StorageError("online features are in a file of a layout that is not known", where=str(file))
        trees = [_TREE.unpack_from(data, at + _HEAD + _META.size + number * _TREE.size) for number in (0, 1)]
        _, transaction = struct.unpack_from("<QQ", data, at + _HEAD + _META.size + 2 * _TREE.size)
        roots[transaction] = (trees[0][-1], trees[1][-1])
    yield 0, 2 * page
    left = [root for root in roots[max(roots)] if root != _NOTHING]
    while left:
        start = left.pop() * page
        flags, lower, upper = _PAGE.unpack_from(data, start)
        if flags & _KINDS not in (_BRANCH, _LEAF):
            raise StorageError("online features are in a file whose pages are not what they should be", where=str(file))
        yield start, start + lower
        yield start + upper, start + page
        for place in struct.unpack_from(f"<{(lower - _HEAD) // 2}H", data, start + _HEAD):
            low, high, kind, key = _NODE.unpack_from(data, start + place)
            if flags & _BRANCH:
                left.append(low | high << 16 | kind << 32)
            elif kind & _TREE_INSIDE:
                raise StorageError("online features are in a file that holds several databases", where=str(file))
            elif kind & _BIG:  # the value lies in pages of its own
                first = struct.unpack_from("<Q", data, start + place + _NODE.size + key)[0] * page
                yield first, first + _HEAD + (low | high << 16)
