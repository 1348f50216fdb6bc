"""What a process gives up before it runs code that is not ours: capabilities, files, network, other processes."""

import ctypes
import functools
import os
import platform
import resource
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from bedplate.isolation import landlock, seccomp

_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38
_SIGKILL = 9
_CAPABILITY_VERSION_3 = 0x20080522

# What numerical libraries read about the machine, and shared objects they are linked with.
_MACHINE = (
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/usr/share/zoneinfo",
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/sys/vm/overcommit_memory",
    "/sys/devices/system/cpu",
)
_DEVICES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")


class Isolation(NamedTuple):
    """What holds a limited process. ``isolated`` only when files, network and other processes are out of its reach."""

    landlock: int
    seccomp: bool
    reason: str

    @property
    def isolated(self) -> bool:
        """Whether code in the process can reach nothing but what it was given."""
        return self.landlock > 0 and self.seccomp


def available() -> Isolation:
    """What this machine can hold a limited process with; nothing is restricted by asking."""
    return _isolation(landlock.abi(), seccomp.supported())


def _isolation(version: int, filtered: bool) -> Isolation:
    lacking = [
        *(["this kernel has no Landlock, so files are open"] if not version else []),
        *(["system calls are not filtered, so the network is open"] if not filtered else []),
    ]
    return Isolation(version, filtered, "; ".join(lacking) or f"Landlock version {version} and a system call filter")


def die_with_parent(parent: int) -> None:
    """Be killed when the process ``parent`` ends, even by kill -9; leave at once when it has ended already."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        raise SystemExit("the owner has ended")


def limit(*, memory: int, cpu_seconds: int | None) -> None:
    """Hard limits; None: processor time has none.

    Resident memory is watched by the owner; here is only the backstop for a sudden grab of memory.
    """
    for kind, value in (
        # Twice over: allocators and thread stacks reserve far more than they use.
        (resource.RLIMIT_DATA, 2 * memory + (4 << 30)),
        (resource.RLIMIT_CPU, resource.RLIM_INFINITY if cpu_seconds is None else cpu_seconds),
        (resource.RLIMIT_NOFILE, 256),
        (resource.RLIMIT_FSIZE, max(memory, 1 << 30)),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(kind)[1]
        most = (
            value if hard == resource.RLIM_INFINITY else hard if value == resource.RLIM_INFINITY else min(value, hard)
        )
        resource.setrlimit(kind, (most, most))


@functools.cache
def interpreter() -> tuple[Path, ...]:
    """The folders that Python and installed packages are imported from, and this package."""
    paths = sysconfig.get_paths()
    folders = {paths[key] for key in ("stdlib", "platstdlib", "purelib", "platlib")}
    package = Path(sys.modules["bedplate"].__path__[0])
    # A Python built as a shared library lies beside its standard library.
    shared = Path(str(sysconfig.get_config_var("LIBDIR") or ""), str(sysconfig.get_config_var("INSTSONAME") or ""))
    return (*(Path(folder) for folder in sorted(folders)), package, shared)


def confine(*, readable: Sequence[Path], scratch: Path) -> Isolation:
    """Give up everything but the interpreter, ``readable`` and ``scratch``. Cannot be undone.

    The caller MUST be single-threaded: Landlock holds the calling thread and what it starts from then on. Where the
    kernel lacks a part, the rest is still put in force and the answer says what is lacking.
    """
    if len(os.listdir("/proc/self/task")) != 1:
        raise RuntimeError("a process is confined before it starts a thread")
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        return _isolation(0, filtered=False)
    _drop_capabilities(libc)
    version = landlock.abi()
    if version:
        version = landlock.restrict(
            readable=(*interpreter(), *(Path(p) for p in _MACHINE), Path("/proc/self"), *readable),
            writable=(scratch,),
            devices=tuple(Path(p) for p in _DEVICES),
        )
    filtered = seccomp.supported()
    if filtered:
        seccomp.install(seccomp.program(os.getpid(), platform.machine()))
    return _isolation(version, filtered)


def confined() -> bool:
    """Whether this process has given up what :func:`confine` takes: no new privileges, and system calls filtered."""
    lines = Path("/proc/self/status").read_text("ascii", errors="replace").splitlines()
    known = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    return known.get("NoNewPrivs") == "1" and known.get("Seccomp") == "2"


def _drop_capabilities(libc: ctypes.CDLL) -> None:
    """Empty all capability sets: as root a process would otherwise read past file modes and raise its own limits."""
    head = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    nothing = (ctypes.c_uint32 * 6)()
    libc.capset(ctypes.byref(head), ctypes.byref(nothing))
