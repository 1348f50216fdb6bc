"""A kernel without Landlock, for the processes that this one starts: run by :mod:`tests.data.test_unconfined`.

A filter answers the three calls of Landlock as a kernel does that has none; then this becomes the command of its
arguments.
"""

import ctypes
import errno
import os
import platform
import struct
import sys

from bedplate.isolation import seccomp

_CREATE_RULESET, _NO_NEW_PRIVS = 444, 38


def main() -> None:
    """Become the command that the arguments name."""
    lines = [
        (0x20, 0, 0, 0),  # load the number of the call
        (0x35, 0, 2, _CREATE_RULESET),
        (0x35, 1, 0, _CREATE_RULESET + 3),
        (0x06, 0, 0, 0x00050000 | errno.ENOSYS),
        (0x06, 0, 0, 0x7FFF0000),
    ]
    assert platform.machine() in ("x86_64", "aarch64")
    ctypes.CDLL(None).prctl(_NO_NEW_PRIVS, 1, 0, 0, 0)
    seccomp.install(b"".join(struct.pack("<HBBI", *line) for line in lines))
    os.execv(sys.argv[1], sys.argv[1:])


if __name__ == "__main__":
    main()
