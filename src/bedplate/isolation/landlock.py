"""Landlock by ctypes: a process gives up files and TCP for good, without privileges.

Numbers and rules are those of the kernel's userspace API (``linux/landlock.h``). The newest bits that the running
kernel knows are used; what an older kernel lacks is stated by :func:`abi`.
"""

import ctypes
import os
from collections.abc import Iterable
from pathlib import Path

# The three calls have the same numbers on every architecture.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION = 1
_PATH_BENEATH = 1

_READ_FILE, _READ_DIR = 1 << 2, 1 << 3
_WRITE_FILE, _TRUNCATE = 1 << 1, 1 << 14
_EVERYTHING_BY_ABI = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 5: (1 << 16) - 1}
# In the scratch folder: read, write, make, move and remove ordinary files and folders; no devices, sockets or links.
_SCRATCH = _READ_FILE | _READ_DIR | _WRITE_FILE | _TRUNCATE | 1 << 4 | 1 << 5 | 1 << 7 | 1 << 8 | 1 << 13
_TCP = 0b11  # bind, connect; ABI 4
_SCOPED = 0b11  # abstract unix sockets, signals; ABI 6


class _Ruleset(ctypes.Structure):
    _fields_ = (("fs", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _layout_ = "ms"
    _fields_ = (("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32))


def _call(number: int, *arguments: object) -> int:
    # Every argument is passed as a machine word: a variadic C call would truncate a plain Python int.
    words = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    result: int = ctypes.CDLL(None, use_errno=True).syscall(ctypes.c_long(number), *words)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def abi() -> int:
    """The kernel's Landlock version; 0 where there is none or it is switched off."""
    try:
        return _call(_CREATE_RULESET, None, 0, _VERSION)
    except OSError:
        return 0


def restrict(*, readable: Iterable[Path], writable: Iterable[Path], devices: Iterable[Path]) -> int:
    """Leave this thread, and all threads and processes it makes, only these files and no TCP. Cannot be undone.

    ``readable`` files and folders can be read, ``writable`` folders be worked in, ``devices`` be read and written.
    Paths that do not exist are passed over. The caller MUST have set no_new_privs and MUST be single-threaded.

    Returns: the Landlock version in force.

    Raises:
        OSError: the kernel refused.
    """
    version = abi()
    everything = _EVERYTHING_BY_ABI[max(v for v in _EVERYTHING_BY_ABI if v <= version)]
    attributes = _Ruleset(everything, _TCP if version >= 4 else 0, _SCOPED if version >= 6 else 0)
    size = 8 if version < 4 else 16 if version < 6 else 24
    ruleset = _call(_CREATE_RULESET, ctypes.byref(attributes), size, 0)
    try:
        for path in readable:
            _allow(ruleset, path, (_READ_FILE | _READ_DIR) & everything)
        for path in writable:
            _allow(ruleset, path, _SCRATCH & everything)
        for path in devices:
            _allow(ruleset, path, (_READ_FILE | _WRITE_FILE) & everything)
        _call(_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)
    return version


def _allow(ruleset: int, path: Path, access: int) -> None:
    try:
        file = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        if not path.is_dir():
            access &= _READ_FILE | _WRITE_FILE | _TRUNCATE
        rule = _PathBeneath(access, file)
        _call(_ADD_RULE, ruleset, _PATH_BENEATH, ctypes.byref(rule), 0)
    finally:
        os.close(file)
