"""Where the time of a Python program goes: stacks and processor time of its threads, sampled from inside it."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from bedplate.compute import sampler
from bedplate.errors import InputError, UserCodeError
from bedplate.plan.bottlenecks import Signals

_WINDOWS = 3
_GRACE = 10.0
_IMPORT = re.compile(r"importlib|_find_and_load")
_LOADER = re.compile(
    r"(^|\.)(__next__|next_batch|get_batch|batches|read_batch|load_batch|load_image|decode|__getitem__)( |$)"
    r"|torch/utils/data|^_read_tables \(|^(cv2\.imread|Image\.open|np\.load|numpy\.load|next)$"
)
_SERIAL = re.compile(
    r"^(pickle|cPickle|json|orjson|msgspec|marshal|base64|struct|cloudpickle|yaml|copy|copyreg)\b"
    r"|\((json|pickle|copy|yaml|csv|cloudpickle)[./]|\.(tobytes|tolist|to_json|SerializeToString|deepcopy)$"
)
_REMOTE = re.compile(
    r"all_reduce|all_gather|reduce_scatter|torch/distributed|mpi4py|horovod|multiprocessing/connection|\.(recv|recv_into|recvfrom|sendall|barrier)$"
)
_PARKED = re.compile(r"\((threading|queue|selectors|subprocess|asyncio|concurrent/futures|signal)[./]|^time\.sleep$")


class _Raw(msgspec.Struct):
    seconds: float
    stacks: list[list[str]]
    samples: list[tuple[float, int, int]]
    times: list[tuple[float, int, int, int]]
    sampler: float
    processor: float
    limit: int | None
    taken: int | None


class CodeProfile(msgspec.Struct, frozen=True, kw_only=True):
    """A program measured: windows for the classes, its stacks with their counts, and what profiling cost."""

    windows: tuple[Signals, ...]
    stacks: tuple[tuple[tuple[str, ...], int], ...]
    """The most frequent first."""
    seconds: float
    samples: int
    cores: float
    """Processor time over time."""
    overhead: float
    """What the sampler took of one core, as a share."""


def profile(script: Path, arguments: Sequence[str] = (), *, seconds: float = 10.0) -> CodeProfile:
    """Run ``script`` as ``python script`` does, for at most ``seconds``, and sample it. Imports are left out.

    Raises:
        InputError: there is no such file.
        UserCodeError: it failed, or ended before anything could be seen.
    """
    if not script.is_file():
        raise InputError("there is no such program", where=str(script), fix="name a .py file")
    with tempfile.TemporaryDirectory() as folder:
        out, log = Path(folder, "samples.json"), Path(folder, "log")
        command = [sys.executable, sampler.__file__, str(out), str(seconds), str(script), *arguments]
        with log.open("wb") as output:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )
            try:
                status = process.wait(seconds + _GRACE)
            except subprocess.TimeoutExpired:
                status = -signal.SIGKILL
            finally:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(process.pid, signal.SIGKILL)  # what it started as well
                process.wait()
        if status != 0 or not out.is_file():
            last = log.read_text(errors="replace").strip().splitlines()[-1:] or ["it said nothing"]
            raise UserCodeError(
                f"the program ended with {status}: {last[0]}",
                where=str(script),
                fix="run it alone first, until it ends well",
            )
        return read(out.read_bytes(), str(script))


def read(samples: bytes, where: str) -> CodeProfile:
    """What a :class:`~bedplate.compute.sampler.Sampler` found, as JSON.

    Raises:
        UserCodeError: it saw too little.
        msgspec.DecodeError: it is not what one finds.
    """
    raw = msgspec.json.decode(samples, type=_Raw)
    useful = [(at, thread, number) for at, thread, number in raw.samples if not _any(_IMPORT, raw.stacks[number])]
    if len(useful) < 30:
        raise UserCodeError(
            f"only {len(useful)} samples were taken", where=where, fix="let it work for a second or more"
        )
    first, last = useful[0][0], useful[-1][0] + 1e-6
    width = (last - first) / _WINDOWS
    windows = []
    for i in range(_WINDOWS):
        low, high = first + i * width, first + (i + 1) * width
        part = [s for s in useful if low <= s[0] < high]
        if part:
            windows.append(_signals(raw, part, [t for t in raw.times if low <= t[0] < high], width))
    counts = Counter(tuple(raw.stacks[number]) for _, _, number in useful)
    return CodeProfile(
        windows=tuple(windows),
        stacks=tuple(counts.most_common()),
        seconds=last - first,
        samples=len(useful),
        cores=raw.processor / raw.seconds,
        overhead=raw.sampler / raw.seconds,
    )


def _signals(
    raw: _Raw, part: Sequence[tuple[float, int, int]], times: Sequence[tuple[float, int, int, int]], seconds: float
) -> Signals:
    threads: dict[int, list[str]] = defaultdict(list)
    for _, thread, number in part:
        threads[thread].append(_category(raw.stacks[number]))
    leading = _leading(threads)
    share: Callable[[str], float] = lambda kind: leading.count(kind) / max(1, len(leading))  # noqa: E731
    runnable, held, asleep = _lock(threads, times)
    return Signals(
        seconds=seconds,
        loader=share("loader"),
        serialization=share("serial"),
        communication=share("remote"),
        runnable=runnable,
        held=held,
        asleep=asleep,
        memory=raw.taken / raw.limit if raw.taken is not None and raw.limit else None,
    )


def _leading(threads: dict[int, list[str]]) -> list[str]:
    """What the first thread does; where it only waits for others, what those do that do not wait."""
    order = sorted(threads)
    first = threads[order[0]]
    if first.count("parked") < 0.8 * len(first):
        return first
    return [kind for thread in order[1:] for kind in threads[thread] if kind != "parked"] or first


def _lock(
    threads: dict[int, list[str]], times: Sequence[tuple[float, int, int, int]]
) -> tuple[float | None, float | None, float | None]:
    """Threads that want to run, the cores they had, and the share of their time in which they slept nevertheless.

    Who waits for a core is not asleep: another program has it, not another thread's lock.
    """
    spans: dict[int, list[tuple[float, int, int]]] = defaultdict(list)
    for at, thread, ran, waited in times:
        spans[thread].append((at, ran, waited))
    if not spans:
        return None, None, None
    runnable = held = asleep = 0.0
    for thread, seen in spans.items():
        (start, ran, waited), (end, ran_after, waited_after) = seen[0], seen[-1]
        if end - start < 0.1:
            continue
        had, queued = ((now - then) / 1e9 / (end - start) for now, then in ((ran_after, ran), (waited_after, waited)))
        wants = 1 - threads[thread].count("parked") / max(1, len(threads[thread]))
        if had + queued > 0.1 and wants > 0.5:
            runnable, held = runnable + wants, held + had
            asleep += max(0.0, wants - had - queued)
    return runnable, held, asleep / runnable if runnable else 0.0


def _category(stack: Sequence[str]) -> str:
    if any(_LOADER.search(label) and not _SERIAL.search(label) for label in stack):
        return "loader"  # JSON's own `decode` is none
    for kind, pattern in (("serial", _SERIAL), ("remote", _REMOTE)):
        if _any(pattern, stack):
            return kind
    inner = next(
        (label for label in reversed(stack) if " (" in label), ""
    )  # the last one may be a call without a frame
    return "parked" if _any(_PARKED, (inner, *stack[-1:])) else "work"


def _any(pattern: re.Pattern[str], labels: Sequence[str]) -> bool:
    return any(pattern.search(label) for label in labels)
