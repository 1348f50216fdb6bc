"""What the processor itself counts while something runs: cycles, instructions, and what its last cache did not have.

Linux hands these out by ``perf_event_open`` (its manual page, section 2), of the calling thread and without what the
kernel does for it, which needs no right as long as ``kernel.perf_event_paranoid`` is 2 or less. Many virtual machines
and containers have no counters, or hide them: then the reason is what is told.
"""

import contextlib
import ctypes
import fcntl
import os
import platform
import struct
import sys
import time
from collections.abc import Callable

import msgspec

_CALL = {"x86_64": 298, "aarch64": 241}
"""The number of the system call, by machine."""
_EVENTS = (0, 1, 3)  # cycles, instructions, misses of the last cache
_HARDWARE = 0
_ATTRIBUTES = "IIQQQQQIIQ"  # type, size, config, period, sample and read format, flags, wake-up, two fields unused
_SHARES = 0b11  # how long it was asked to count, and how long it did: there are fewer counters than events
_FLAGS = 0b1100001  # begins disabled, leaves out kernel and hypervisor
_ENABLE, _DISABLE = 0x2400, 0x2401
_LINE = 64
"""Bytes that one miss brings."""


class Counted(msgspec.Struct, frozen=True, kw_only=True):
    """Of one thread: seconds by the clock, and what was counted in them."""

    seconds: float
    cycles: float
    instructions: float
    misses: float

    def __str__(self) -> str:
        rate, clock = self.instructions / self.cycles, self.cycles / self.seconds / 1e9
        fetched = self.misses * _LINE / self.seconds / 1e9
        return (
            f"{rate:.2f} instructions a cycle at {clock:.2f} GHz; {fetched:.2f} GB/s came from beyond the last cache, "
            "what was fetched ahead of need not among it"
        )


def count(work: Callable[[], object]) -> Counted | str:
    """What was counted while ``work`` ran on this thread, or why nothing could be."""
    if sys.platform != "linux" or platform.machine() not in _CALL:
        return "the processor's counters are read on Linux only, on x86-64 and 64-bit ARM"
    with contextlib.ExitStack() as opened:
        try:
            files = [_open(event, opened) for event in _EVENTS]
        except OSError as error:
            return f"this system gives no counters of its processor ({(error.strerror or 'unknown error').lower()})"
        began = time.perf_counter()
        for file in files:
            fcntl.ioctl(file, _ENABLE)
        work()
        for file in files:
            fcntl.ioctl(file, _DISABLE)
        seconds = time.perf_counter() - began
        cycles, instructions, misses = (_read(file) for file in files)
    if not cycles:
        return "the processor's counters stood still"
    return Counted(seconds=seconds, cycles=cycles, instructions=instructions, misses=misses)


def _open(event: int, opened: contextlib.ExitStack) -> int:
    """The descriptor of one counter.

    Raises:
        OSError: there is none, or it may not be read.
    """
    size = struct.calcsize(_ATTRIBUTES)
    attributes = ctypes.create_string_buffer(
        struct.pack(_ATTRIBUTES, _HARDWARE, size, event, 0, 0, _SHARES, _FLAGS, 0, 0, 0), size
    )
    libc = ctypes.CDLL(None, use_errno=True)
    number = ctypes.c_long(_CALL[platform.machine()])
    file = libc.syscall(number, attributes, 0, -1, -1, ctypes.c_ulong(0))  # this thread, on any processor, no group
    if file < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    opened.callback(os.close, file)
    return int(file)


def _read(file: int) -> float:
    """The count, as if it had counted all the time that it was asked to."""
    value, enabled, running = struct.unpack("QQQ", os.read(file, 24))
    return value * enabled / running if running else 0.0
