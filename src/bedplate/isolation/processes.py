"""What an owner needs to know of its limited processes: the environment they start in, and what they use."""

import os
import sys
from pathlib import Path

THREADS = 512
"""More threads at once than any honest code has."""
_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICKS = os.sysconf("SC_CLK_TCK")


def environment(scratch: Path, *, threads: int, seed: int = 7) -> dict[str, str]:
    """The environment of a limited process, made from nothing: no variable of the owner is in it."""
    return {
        "PYTHONPATH": str(Path(sys.modules["bedplate"].__path__[0]).parent),
        "PYTHONHASHSEED": str(seed % 2**32),
        "LANG": "C.UTF-8",
        "TZ": "UTC",
        "HOME": str(scratch),
        "TMPDIR": str(scratch),
        "OMP_NUM_THREADS": str(threads),
        "OPENBLAS_NUM_THREADS": "1",  # small matrices, many callers: its threads would wait for each other
        "MKL_NUM_THREADS": str(threads),
    }


def usage(pid: int) -> tuple[int, int, float]:
    """Private memory in bytes, number of threads, and processor seconds of a process; zeros when it has gone."""
    try:
        resident, shared = Path(f"/proc/{pid}/statm").read_text().split()[1:3]
        # After the name in brackets, which may hold anything, proc(5) counts from the third field.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        user, kernel, threads = int(fields[11]), int(fields[12]), int(fields[17])
    except (OSError, IndexError, ValueError):
        return 0, 0, 0.0
    return (int(resident) - int(shared)) * _PAGE, threads, (user + kernel) / _TICKS


def size_of(amount: int) -> str:
    """An amount of memory, to be read."""
    return f"{amount / 2**30:.1f} GiB" if amount >= 2**30 else f"{amount / 2**20:.0f} MiB"
