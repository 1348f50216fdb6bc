"""What a writer that does not wait was given and has not written yet, in memory that outlives its process.

Two halves: while the records of one are written, those that come go to the other. A state is written beside the one in
force, and one byte then says which of the two is, so a killed process leaves one or the other.
"""

import mmap
import os
import struct

_HALF = 40 << 20
_PAGE = 4096
_STATE = struct.Struct("<3Q48s")
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
        self._segment, self._count, self._now = "", 0, 0

    def add(self, record: bytes) -> None:
        """Keep a record; one for which there is no room is not kept."""
        half = self._half
        if half is None or self._filled[half] + len(record) + _LENGTH.size > _HALF:
            return
        at = _PAGE + half * _HALF + self._filled[half]
        end = at + _LENGTH.size + len(record)
        self._memory[at:end] = _LENGTH.pack(len(record)) + record
        self._filled[half] += end - at
        self._commit()

    def taken(self) -> None:
        """All records are about to be written; others may come meanwhile, as far as there is a free half."""
        self._writing = tuple(half for half in (0, 1) if self._filled[half])
        self._half = next((half for half in (0, 1) if not self._filled[half]), None)

    def into(self, segment: str, count: int) -> None:
        """What is written next goes behind the first ``count`` records of this segment."""
        self._segment, self._count = segment, count
        self._commit()

    def written(self) -> None:
        """What was taken is written."""
        for half in self._writing:
            self._filled[half] = 0
        if self._half is None:
            self._half = 0
        self._commit()

    def _commit(self) -> None:
        now = self._now = 1 - self._now
        _STATE.pack_into(self._memory, _STATES[now], *self._filled, self._count, self._segment.encode("ascii"))
        self._memory[0] = now


def left(backlog: int) -> tuple[str, int, list[bytes]]:
    """What a killed writer was given and had not finished writing, from the descriptor of its memory.

    First the segment that it wrote to, empty before the first, and the records in it that were not among these.
    """
    head = os.pread(backlog, _PAGE, 0)
    *filled, count, segment = _STATE.unpack_from(head, _STATES[head[0]])
    records = []
    for half in (0, 1):
        data, at = os.pread(backlog, filled[half], _PAGE + half * _HALF), 0
        while at < len(data):
            (length,) = _LENGTH.unpack_from(data, at)
            at += _LENGTH.size
            records.append(data[at : at + length])
            at += length
    return segment.rstrip(b"\0").decode("ascii"), count, records
