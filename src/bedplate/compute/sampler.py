"""Run a script and look at what its threads do, a hundred times a second: ``python sampler.py OUT SECONDS SCRIPT ...``.

Runs inside the process that is measured, so it imports nothing but the standard library. What is called from a line but
has no Python frame of its own (``pickle.dumps``, ``a @ b``) is read from the line, and stands at the end of its stack.
"""

import contextlib
import dis
import json
import linecache
import os
import resource
import runpy
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any

INTERVAL = 0.01
_HANDOVER = 0.001
"""Seconds after which a thread that computes lets the sampler in, several times a look; Python has 5 ms."""
DEPTH = 60
Sample = tuple[float, int, int]


class Sampler(threading.Thread):
    """Samples of every other thread until :meth:`stop`; ``over`` is called once, when ``seconds`` are over before."""

    def __init__(self, seconds: float, over: Callable[[], None]) -> None:
        super().__init__(daemon=True)
        self._seconds, self._over = seconds, over
        self._stacks: dict[tuple[str, ...], int] = {}
        self._samples: list[Sample] = []
        self._times: list[tuple[float, int, int, int]] = []
        self._leaves: dict[tuple[CodeType, int], str] = {}
        self._done = threading.Event()
        self._began = time.monotonic()
        self._ended = self._began
        self._spent = 0.0

    def run(self) -> None:
        """Sample."""
        before = sys.getswitchinterval()
        sys.setswitchinterval(min(before, _HANDOVER))
        try:
            while not self._done.wait(INTERVAL):
                now = time.monotonic() - self._began
                if now > self._seconds:
                    self.stop()
                    self._over()
                    return
                self._look(now)
                self._spent = time.thread_time()
        finally:
            sys.setswitchinterval(before)

    def allow(self, seconds: float) -> None:
        """Go on for so many seconds from now, however long it took so far."""
        self._seconds = time.monotonic() - self._began + seconds

    def stop(self) -> None:
        """Take no more samples."""
        self._ended = time.monotonic()
        self._done.set()

    def found(self) -> dict[str, Any]:
        """What was seen until now. It may be asked for while a last look is under way: a sample names a stack that was
        there before it, so samples are taken first.
        """
        samples, times = list(self._samples), list(self._times)
        stacks = list(self._stacks)
        used = resource.getrusage(resource.RUSAGE_SELF)
        limit = min((resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA)
                     if resource.getrlimit(kind)[0] != resource.RLIM_INFINITY), default=None)  # fmt: skip
        return {
            "seconds": self._ended - self._began,
            "stacks": [list(stack) for stack in stacks],
            "samples": samples,
            "times": times,
            "sampler": self._spent,
            "processor": used.ru_utime + used.ru_stime,
            "limit": limit,
            "taken": _taken(),
        }

    def _look(self, now: float) -> None:
        natives = {thread.ident: thread.native_id or 0 for thread in threading.enumerate()}
        own = threading.get_ident()
        for ident, frame in sys._current_frames().items():
            if ident == own:
                continue
            stack = self._stack(frame)
            number = self._stacks.setdefault(stack, len(self._stacks))
            native = natives.get(ident, 0)
            self._samples.append((round(now, 4), native, number))
            with contextlib.suppress(OSError, ValueError, IndexError):
                with open(f"/proc/self/task/{native}/schedstat", encoding="ascii") as file:
                    ran, waited = file.read().split()[:2]
                self._times.append((round(now, 4), native, int(ran), int(waited)))

    def _stack(self, frame: FrameType) -> tuple[str, ...]:
        leaf = self._leaf(frame)
        labels: list[str] = []
        at: FrameType | None = frame
        while at is not None and len(labels) < DEPTH:
            code = at.f_code
            if code.co_filename != __file__ and not code.co_filename.startswith("<frozen runpy"):
                labels.append(f"{code.co_qualname} ({_short(code.co_filename)})")
            at = at.f_back
        labels.reverse()
        return (*labels, leaf) if leaf else tuple(labels)

    def _leaf(self, frame: FrameType) -> str:
        """What the line at the top calls, if it is in a call or an operator; empty otherwise."""
        key = frame.f_code, frame.f_lasti
        if key not in self._leaves:
            self._leaves[key] = _called(*key)
        return self._leaves[key]


def _called(code: CodeType, at: int) -> str:
    if at < 0 or not dis.opname[code.co_code[at]].startswith(("CALL", "PRECALL", "BINARY_OP", "LIST_EXTEND")):
        return ""
    places = list(code.co_positions())
    line, last, start, end = places[at // 2] if at // 2 < len(places) else (None,) * 4
    if line is None or start is None or end is None:
        return ""
    text = linecache.getline(code.co_filename, line).encode()
    part = (text[start:end] if line == last else text[start:]).decode(errors="replace").strip()
    name = part.partition("(")[0].strip() if dis.opname[code.co_code[at]] != "BINARY_OP" else part
    return name[:60]


def _short(path: str) -> str:
    parts = path.split(os.sep)
    for mark in ("site-packages", f"python{sys.version_info[0]}.{sys.version_info[1]}"):
        if mark in parts:
            return "/".join(parts[parts.index(mark) + 1 :])
    return parts[-1]


def _taken() -> int | None:
    """Bytes of address space at its highest."""
    with contextlib.suppress(OSError, ValueError), open("/proc/self/status", encoding="ascii") as file:
        for line in file:
            if line.startswith("VmPeak:"):
                return int(line.split()[1]) * 1024
    return None


def main() -> None:
    """Run the script of the command line under the sampler."""
    out, seconds, script = sys.argv[1], float(sys.argv[2]), sys.argv[3]
    sys.argv = sys.argv[3:]
    sys.path[0] = os.path.dirname(os.path.abspath(script))
    writing = threading.Lock()

    def write() -> None:
        with writing:
            if not os.path.exists(out):
                with open(out + ".tmp", "w", encoding="utf-8") as file:
                    json.dump(sampler.found(), file)
                os.replace(out + ".tmp", out)

    def over() -> None:
        write()
        os._exit(0)

    sampler = Sampler(seconds, over)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sampler.start()
    try:
        runpy.run_path(script, run_name="__main__")
    finally:
        sampler.stop()
        write()


if __name__ == "__main__":
    main()
