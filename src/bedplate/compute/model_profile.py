"""Where the time of one call of an ONNX model goes: ONNX Runtime's own profile, against what this machine can do."""

import contextlib
import math
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnxruntime

from bedplate.compute import counters
from bedplate.compute.onnx_model import OnnxModel
from bedplate.plan.bottlenecks import Remedy, Signals
from bedplate.plan.types import Probe

_FLOAT = 4
_WINDOWS = 3
_BATCHES = (1, 2, 8, 64)
_LARGE = 50e-6
"""Seconds of a kernel beside which what the profiler adds to it is nothing."""
TRUSTED = 0.05
"""What the profiler may add to a call before its times of single kernels are no longer believed."""


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One node of the graph: seconds of a call, and what it works on."""

    name: str
    operator: str
    seconds: float
    flops: float | None
    """None: not counted for this operator."""
    bytes: float


class ModelProfile(msgspec.Struct, frozen=True, kw_only=True):
    """One model measured: windows for the classes, its nodes, what it takes by rows, and what profiling cost."""

    windows: tuple[Signals, ...]
    steps: tuple[Step, ...]
    """The slowest first."""
    seconds: float
    """One call with ``rows`` rows, without the profiler."""
    rows: int
    by_rows: tuple[tuple[int, float], ...]
    overhead: float
    """What the profiler added, as a share."""
    tried: tuple[Remedy, ...]
    counted: str
    """What the processor's own counters say of its calls, or why they say nothing."""


def profile(model: OnnxModel, probe: Probe, *, seconds: float = 2.0, rows: int = 1) -> ModelProfile:
    """Measure one call of ``rows`` rows in three windows, warm-up left out, and other numbers of rows beside it.

    Raises:
        InputError: the model cannot be opened or fed.
    """
    plain = model.session()
    together = model.batches(plain)
    by_rows = tuple(
        (count, _quiet(_times(plain, model.feed(plain, count), seconds / 8)))
        for count in (sorted({*_BATCHES, rows, 2 * rows}) if together else (rows,))
    )
    taken = dict(by_rows)
    counted = _counts(model, rows)
    windows, nodes, walls, overheads = [], [], [], []
    for _ in range(_WINDOWS):
        walls.append(_quiet(_times(plain, model.feed(plain, rows), seconds / 8)))
        double = _quiet(_times(plain, model.feed(plain, 2 * rows), seconds / 8)) if together else None
        calls, events = _profiled(model, rows, seconds / 4)
        overheads.append(max(0.0, _quiet(calls) / walls[-1] - 1))
        nodes.append(_steps(events, counted))
        windows.append(_signals(nodes[-1], walls[-1], overheads[-1], double, probe))
    return ModelProfile(
        windows=tuple(windows),
        steps=tuple(sorted(nodes[_WINDOWS // 2], key=lambda step: -step.seconds)),
        seconds=_median(walls),
        rows=rows,
        by_rows=by_rows,
        overhead=_median(overheads),
        tried=tuple(_tried(model, rows, taken, seconds / 8)),
        counted=str(counters.count(lambda: _times(plain, model.feed(plain, rows), seconds / 8))),
    )


def _tried(model: OnnxModel, rows: int, taken: dict[int, float], seconds: float) -> list[Remedy]:
    """What can be tried here and now: rows together, and two threads. Only what helps is a remedy."""
    found = []
    for count in sorted(taken):
        gain = taken[rows] / rows / (taken[count] / count)
        if count > rows and gain > 1.2:
            found.append(Remedy(what=f"{count} rows a call", gain=gain, why="measured here, for each row"))
    two = model.session(threads=2)
    gain = taken[rows] / _quiet(_times(two, model.feed(two, rows), seconds))
    if gain > 1.2:
        found.append(Remedy(what="two threads a call", gain=gain, why="measured here, while a second core was free"))
    return sorted(found, key=lambda remedy: -remedy.gain)[:2]


def _signals(steps: Sequence[Step], wall: float, overhead: float, double: float | None, probe: Probe) -> Signals:
    kernels = sum(step.seconds for step in steps)
    moved, flops = sum(step.bytes for step in steps), sum(step.flops or 0.0 for step in steps)
    flat = double / wall if double is not None else None
    small = bool(steps) and _median([step.seconds for step in steps]) < _LARGE
    if overhead <= TRUSTED or not small:
        around: float | None = max(0.0, 1 - kernels / (wall * (1 + overhead)))
    else:  # the profiler took longer than the kernels: what a second row does not cost is around them
        around = None if flat is None else min(1.0, max(0.0, 2 - flat))
    peak, rate = max(r.gflops for r in probe.matmul_sizes) * 1e9, max(probe.copy_gbps, probe.score_gbps) * 1e9
    kept = _cache_bytes()
    from_memory = kept is None or moved > kept  # what stays in the caches does not wait for memory, however much it is
    return Signals(
        seconds=wall,
        launch=around,
        flat=flat,
        kernel_us=_median([step.seconds for step in steps]) * 1e6 if steps else None,
        bandwidth=min(1.0, moved / wall / rate) if from_memory else None,
        intensity=flops / moved if moved else None,
        ridge=peak / rate,
        compute=min(1.0, flops / wall / peak),
    )


def _cache_bytes() -> int | None:
    """Bytes of the largest cache of a core, as Linux tells; None where nobody tells."""
    found = []
    for file in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        with contextlib.suppress(OSError, ValueError):
            text = file.read_text(encoding="ascii").strip()
            found.append(int(text.rstrip("KM")) << (20 if text.endswith("M") else 10 if text.endswith("K") else 0))
    return max(found, default=None)


def _times(session: Any, feed: dict[str, Any], seconds: float) -> list[float]:
    session.run(None, feed)
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < 5 or (time.perf_counter() < end and len(times) < 5_000):
        start = time.perf_counter()
        session.run(None, feed)
        times.append(time.perf_counter() - start)
    return times


def _profiled(model: OnnxModel, rows: int, seconds: float) -> tuple[list[float], list[dict[str, Any]]]:
    """Times of calls under ONNX Runtime's profiler, and its events; those of the first call are left out."""
    with tempfile.TemporaryDirectory() as folder:
        session = model.session(profile=Path(folder, "run"))
        try:
            times = _times(session, model.feed(session, rows), seconds)
        finally:
            written = Path(session.end_profiling())
        events: list[dict[str, Any]] = msgspec.json.decode(written.read_bytes())
    starts = sorted(event["ts"] for event in events if event.get("name") == "model_run")
    warm = starts[1] if len(starts) > 1 else 0
    return times, [e for e in events if e.get("cat") == "Node" and e["ts"] >= warm and "kernel_time" in e["name"]]


def _steps(events: Sequence[dict[str, Any]], counted: dict[str, tuple[float | None, float]]) -> list[Step]:
    durations: dict[str, list[float]] = {}
    operators: dict[str, str] = {}
    for event in events:
        name = event["name"].removesuffix("_kernel_time")
        durations.setdefault(name, []).append(event["dur"] * 1e-6)
        operators[name] = event["args"].get("op_name", "")
    return [
        Step(
            name=name,
            operator=operators[name],
            seconds=_quiet(times),
            flops=counted.get(name, (None, 0.0))[0],
            bytes=counted.get(name, (None, 0.0))[1],
        )
        for name, times in durations.items()
    ]


def _counts(model: OnnxModel, rows: int) -> dict[str, tuple[float | None, float]]:
    """Operations and bytes of each node, from the shapes that a session tells which packs no weights."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.add_session_config_entry("session.disable_prepacking", "1")
    options.enable_profiling = True
    with tempfile.TemporaryDirectory() as folder:
        options.profile_file_prefix = str(Path(folder, "shapes"))
        session = onnxruntime.InferenceSession(model.data, options, providers=["CPUExecutionProvider"])
        session.run(None, model.feed(session, rows))
        events = msgspec.json.decode(Path(session.end_profiling()).read_bytes())
    found: dict[str, tuple[float | None, float]] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            found[event["name"].removesuffix("_kernel_time")] = _work(event["args"])
    return found


def _work(arguments: dict[str, Any]) -> tuple[float | None, float]:
    """Operations (two to a multiply-add) and bytes read and written, as if each were touched once."""
    reads = [shape for entry in arguments.get("input_type_shape", ()) for shape in entry.values()]
    writes = [shape for entry in arguments.get("output_type_shape", ()) for shape in entry.values()]
    moved = float(_FLOAT * sum(math.prod(shape) for shape in (*reads, *writes)))
    written = sum(math.prod(shape) for shape in writes)
    with contextlib.suppress(IndexError):
        operator = arguments.get("op_name", "")
        if operator in ("Conv", "FusedConv", "NhwcFusedConv"):
            return 2.0 * written * math.prod(reads[1][1:]), moved
        if operator in ("MatMul", "Gemm", "FusedMatMul", "FusedGemm"):
            # of a, b and their product: (m k)(k n)(m n) = (m k n)^2 for each of the products that are stacked
            stacked = math.prod(writes[0][:-2]) or 1
            a, b = math.prod(reads[0]) / stacked, math.prod(reads[1][-2:])
            return 2.0 * stacked * math.sqrt(a * b * math.prod(writes[0][-2:])), moved
        if operator.startswith("Reorder"):
            return 0.0, moved
    return (float(written) if operator in _ELEMENTWISE else None), moved


_ELEMENTWISE = frozenset(("Relu", "Add", "Mul", "Sub", "Div", "Sin", "Cos", "Sigmoid", "Tanh", "Exp", "Sqrt", "Clip"))


def _median(values: Sequence[float]) -> float:
    return statistics.median(values)


def _quiet(values: Sequence[float]) -> float:
    """The quieter tenth: what another process does to a call is no property of the model."""
    return float(np.quantile(values, 0.1))
