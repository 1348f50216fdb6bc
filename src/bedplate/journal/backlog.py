"""What a writer that does not wait was given and has not written yet, in memory that outlives its process.

Two halves: while the records of one are written, those that come go to the other. Each record has its length before it,
which is written last, and none stands behind the last one; so a killed process leaves whole records. Where they are
written to is a state beside the one in force, and one byte then says which of the two is.
"""

import mmap
import os
import struct

_HALF = 40 << 20
_PAGE = 4096
_STATE = struct.Struct("<Q48s")
_STATES = 64, 192
_LENGTH = struct.Struct("<I")


class Backlog:
    """Memory for one :class:`~bedplate.journal.Writer`, which alone uses it, under its lock.

    Raises:
        OSError: the system has no room for it.
    """

    def __init__(self) -> None:
        self.descriptor = os.memfd_create("backlog", os.MFD_CLOEXEC)
        os.ftruncate(self.descriptor, _PAGE + 2 * _HALF)
        self._memory = mmap.mmap(self.descriptor, _PAGE + 2 * _HALF)
        self._filled = [0, 0]
        self._half: int | None = 0
        self._writing: tuple[int, ...] = ()
        self._now = 0

    def add(self, record: bytes) -> None:
        """Keep a record; one for which there is no room is not kept."""
        half, size = self._half, _LENGTH.size + len(record)
        if half is None or self._filled[half] + size + _LENGTH.size > _HALF:
            return
        at = _start(half) + self._filled[half]
        self._memory[at + _LENGTH.size : at + size] = record
        _LENGTH.pack_into(self._memory, at + size, 0)
        _LENGTH.pack_into(self._memory, at, len(record))
        self._filled[half] += size

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


def left(backlog: int) -> tuple[str, int, list[bytes]]:
    """What a killed writer was given and had not finished writing, from the descriptor of its memory.

    First the segment that it wrote to, empty before the first, and the records in it that were not among these.
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
    return segment.rstrip(b"\0").decode("ascii"), count, records


def _start(half: int) -> int:
    return _PAGE + half * _HALF
