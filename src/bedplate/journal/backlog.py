"""What a writer that does not wait was given and has not written yet, in memory that outlives its process.

Two halves: while the records of one are written, those that come go to the other. Each record has its length before it,
which is written last, and none stands behind the last one; so a killed process leaves whole records. Where they are
written to is a state beside the one in force, and one byte then says which of the two is.

Behind the halves are drafts: records of what is not over yet, as they would stand if the process ended now.
"""

import mmap
import os
import struct

_HALF = 40 << 20
_PAGE = 4096
_STATE = struct.Struct("<Q48s")
_STATES = 64, 192
_LENGTH = struct.Struct("<I")
_DRAFTS, _DRAFT = 256, 64 << 10
_DRAFTS_AT = _PAGE + 2 * _HALF
_SIZE = _DRAFTS_AT + 2 * _DRAFTS * _DRAFT


class Backlog:
    """Memory for one :class:`~bedplate.journal.Writer`, which alone uses it, under its lock.

    Raises:
        OSError: the system has no room for it.
    """

    def __init__(self) -> None:
        self.descriptor = os.memfd_create("backlog", os.MFD_CLOEXEC)
        os.ftruncate(self.descriptor, _SIZE)
        self._memory = mmap.mmap(self.descriptor, _SIZE)
        self._view = memoryview(self._memory)
        self._drafts = list(range(_DRAFTS - 1, -1, -1))
        self._filled = [0, 0]
        self._half: int | None = 0
        self._writing: tuple[int, ...] = ()
        self._now = 0

    def add(self, record: bytes) -> bytes | memoryview:
        """Keep a record, and give it as it lies here until it is :meth:`written`: so nobody has to hold another copy.

        One for which there is no room is not kept, and given back.
        """
        half, size = self._half, _LENGTH.size + len(record)
        if half is None or self._filled[half] + size + _LENGTH.size > _HALF:
            return record
        at = _start(half) + self._filled[half]
        kept = self._view[at + _LENGTH.size : at + size]
        kept[:] = record
        _LENGTH.pack_into(self._memory, at + size, 0)
        _LENGTH.pack_into(self._memory, at, len(record))
        self._filled[half] += size
        return kept

    def draft(self) -> "Draft | None":
        """Room for a record of what is not over yet; None where all is taken."""
        return Draft(self._memory, self._drafts, self._drafts.pop()) if self._drafts else None

    def taken(self) -> None:
        """All records are about to be written; others may come meanwhile, as far as there is a free half."""
        self._writing = tuple(half for half in (0, 1) if self._filled[half])
        self._half = next((half for half in (0, 1) if not self._filled[half]), None)

    def into(self, segment: str, count: int) -> None:
        """What is written next goes behind the first ``count`` records of this segment."""
        now = self._now = 1 - self._now
        _STATE.pack_into(self._memory, _STATES[now], count, segment.encode("ascii"))
        self._memory[0] = now

    def written(self) -> None:
        """What was taken is written."""
        for half in self._writing:
            _LENGTH.pack_into(self._memory, _start(half), 0)
            self._filled[half] = 0
        if self._half is None:
            self._half = 0


class Draft:
    """The record of something that is not over yet. To be used from one thread, as all that are of one backlog."""

    def __init__(self, memory: mmap.mmap, free: list[int], number: int) -> None:
        self._memory, self._free, self._number = memory, free, number
        self._now = 0

    def keep(self, record: bytes) -> bool:
        """What the record is now, in place of what it was; False, and it stays as it was, where this does not fit."""
        size = len(record)
        if _LENGTH.size + size > _DRAFT:
            return False
        before, self._now = self._now, 1 - self._now
        at = _draft(self._number, self._now)
        self._memory[at + _LENGTH.size : at + _LENGTH.size + size] = record
        _LENGTH.pack_into(self._memory, at, size)
        _LENGTH.pack_into(self._memory, _draft(self._number, before), 0)
        return True

    def end(self) -> None:
        """It is over: its record stands elsewhere, or there is none."""
        _LENGTH.pack_into(self._memory, _draft(self._number, self._now), 0)
        self._free.append(self._number)


def left(backlog: int) -> tuple[str, int, list[bytes], list[bytes]]:
    """What a killed writer was given and had not finished writing, from the descriptor of its memory; and drafts.

    First the segment that it wrote to, empty before the first, and the records in it that were not among these. Of a
    draft that was being changed there may be two.
    """
    with mmap.mmap(backlog, 0, prot=mmap.PROT_READ) as memory:
        count, segment = _STATE.unpack_from(memory, _STATES[memory[0]])
        records = []
        for half in (0, 1):
            at = _start(half)
            while length := _LENGTH.unpack_from(memory, at)[0]:
                at += _LENGTH.size
                records.append(memory[at : at + length])
                at += length
        drafts = [
            memory[at + _LENGTH.size : at + _LENGTH.size + length]
            for number in range(_DRAFTS)
            for which in (0, 1)
            if (length := _LENGTH.unpack_from(memory, at := _draft(number, which))[0])
        ]
    return segment.rstrip(b"\0").decode("ascii"), count, records, drafts


def _start(half: int) -> int:
    return _PAGE + half * _HALF


def _draft(number: int, which: int) -> int:
    return _DRAFTS_AT + (2 * number + which) * _DRAFT
