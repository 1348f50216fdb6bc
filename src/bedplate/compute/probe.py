"""A short measurement of this machine: the rates that the planner scales everything from. Nothing is kept here."""

import contextlib
import os
import platform
import struct
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import numpy as np
import onnxruntime
import threadpoolctl

from bedplate import clock, ids
from bedplate.bundle.protobuf import field, varint
from bedplate.compute import accelerator
from bedplate.compute.onnx_model import OnnxModel
from bedplate.plan.types import BatchTime, MatrixRate, ModelProbe, Probe

_TREES, _DEPTH, _FEATURES = 50, 6, 30
_SIZES = (64, 256, 384, 1024)
_ROWS = (1, 8, 64)
_FILE_BYTES = 32 << 20

OnStep = Callable[[str, int, int], None]
"""Told what is measured next, how many steps are done, and of how many."""

_STEPS = ("models of trees", "vectors", "requests", "matrix products", "memory", "steadiness", "disk", "accelerators")


def _untold(what: str, done: int, total: int) -> None:
    """Show no progress."""


def measure(
    seconds: float = 2.0, folder: Path | None = None, *, model: OnnxModel | None = None, on_step: OnStep = _untold
) -> Probe:
    """Measure for about ``seconds``, and ``model`` if there is one; files are written in ``folder``, or where temporary
    ones go.

    What else runs meanwhile is kept out as far as it can be: the quieter tenth of each measurement counts, and
    numerical libraries get one thread, so that none waits for another.

    Raises:
        InputError: the model cannot be opened or fed.
    """
    with threadpoolctl.threadpool_limits(1):
        return _measure(seconds, folder, model, on_step)


def code() -> ids.Digest:
    """The digest of what measures: figures of another version are not the same figures."""
    return ids.digest_of([ids.digest_file(Path(path)) for path in (__file__, accelerator.__file__)])


def _measure(seconds: float, folder: Path | None, model: OnnxModel | None, on_step: OnStep) -> Probe:
    began, others = time.perf_counter(), _Others()
    part = seconds / len(_STEPS)
    random = np.random.default_rng(7)
    steps = (*_STEPS, model.name) if model is not None else _STEPS

    def step(number: int) -> None:
        on_step(steps[number], number, len(steps))

    step(0)
    onnx = _onnx(part, random)
    step(1)
    score, select = _score(part, random)
    step(2)
    request = _quiet(_request(), part)
    step(3)
    rates = tuple(MatrixRate(rows=n, gflops=_matmul(n, part / 6, random)) for n in _SIZES)
    every = _everywhere(lambda: _matmul(_SIZES[-1], part / 6, np.random.default_rng(7)))
    step(4)
    copied, copied_by_all = _copy(part / 2), _everywhere(lambda: _copy(part / 2))
    step(5)
    unsteady = _unsteadiness(part, random)
    step(6)
    written, read = _disk(folder)
    synced = _fsync(part, folder)
    step(7)
    devices = accelerator.measure(part)
    if model is not None:
        step(8)
    return Probe(
        cpu=_cpu_name(),
        cores=_cores(),
        memory=_memory(),
        clock_ghz=_clock_ghz(),
        matmul_gflops=next(rate.gflops for rate in rates if rate.rows == 384),
        copy_gbps=copied,
        score_gbps=score,
        select_ns=select * 1e9,
        request_us=request * 1e6,
        service_cs2=unsteady,
        onnx_call_us=onnx[0] * 1e6 if onnx else None,
        onnx_tree_ns=onnx[1] * 1e9 if onnx else None,
        fsync_ms=synced * 1e3,
        matmul_sizes=rates,
        matmul_all_gflops=every,
        copy_all_gbps=copied_by_all,
        disk_write_gbps=written,
        disk_read_gbps=read,
        accelerators=devices,
        models=(model_times(model, seconds),) if model is not None else (),
        crowded=others.share(),
        made=clock.timestamp(),
        seconds=time.perf_counter() - began,
        code=code(),
    )


class _Others:
    """What others take of the processors of this process from now on, the hypervisor's other guests among them."""

    def __init__(self) -> None:
        self._before = self._now()

    @staticmethod
    def _now() -> tuple[float, float, float]:
        """Seconds at work of all these processors and of this process, and of the clock."""
        mine = {f"cpu{number}" for number in os.sched_getaffinity(0)} if hasattr(os, "sched_getaffinity") else set()
        busy = 0.0
        with contextlib.suppress(OSError):
            for line in Path("/proc/stat").read_text().splitlines():
                name, *ticks = line.split()
                if name in mine:
                    user, nice, system, _idle, _waiting, *more = (int(tick) for tick in ticks[:8])
                    busy += (user + nice + system + sum(more)) / os.sysconf("SC_CLK_TCK")
        return busy, time.process_time(), time.perf_counter()

    def share(self) -> float:
        """Of the processors, since this was made; 0 where the system does not tell."""
        busy, own, passed = (now - before for now, before in zip(self._now(), self._before, strict=True))
        return min(0.9, max(0.0, (busy - own) / (_cores() * passed)))


def _times(work: Callable[[], object], seconds: float, least: int = 5) -> list[float]:
    """Durations of repeated calls, the first left out: it pays for cold caches."""
    work()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < least or (time.perf_counter() < end and len(times) < 20_000):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return times


def _quiet(work: Callable[[], object], seconds: float) -> float:
    """What one call takes when nothing else wants the processor: the quieter tenth of the calls."""
    return float(np.quantile(_times(work, seconds), 0.1))


def model_times(model: OnnxModel, seconds: float) -> ModelProbe:
    """What one call of a model takes on one thread, for 1, 8 and 64 rows where it takes rows together.

    Raises:
        InputError: it cannot be opened or fed.
    """
    session = model.session()
    times = []
    for rows in _ROWS if model.batches(session) else _ROWS[:1]:
        feed = model.feed(session, rows)
        taken = _quiet(lambda feed=feed: session.run(None, feed), seconds / len(_ROWS))  # type: ignore[misc]
        times.append(BatchTime(rows=rows, seconds=taken))
    return ModelProbe(name=model.name, digest=model.digest, times=tuple(times))


def _everywhere(rate: Callable[[], float]) -> float:
    """The sum of the rates of one thread for each core, all at once; NumPy lets go of the interpreter's lock."""
    cores = _cores()
    with ThreadPoolExecutor(cores) as pool:
        return sum(pool.map(lambda _: rate(), range(cores)))


def _disk(folder: Path | None) -> tuple[float, float]:
    """10^9 bytes a second of a file written and synced, then read again."""
    block = np.random.default_rng(7).bytes(1 << 20)
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        start = time.perf_counter()
        for _ in range(_FILE_BYTES >> 20):
            file.write(block)
        os.fsync(file.fileno())
        written = time.perf_counter() - start
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        file.seek(0)
        start = time.perf_counter()
        while file.read(1 << 20):
            pass
        return _FILE_BYTES / written / 1e9, _FILE_BYTES / (time.perf_counter() - start) / 1e9


def _matmul(n: int, seconds: float, random: np.random.Generator) -> float:
    """GFLOP/s of one core in NumPy's product."""
    a, b = random.random((2, n, n), dtype=np.float32)
    return 2 * n**3 / _quiet(lambda: a @ b, seconds) / 1e9


def _copy(seconds: float) -> float:
    source = np.ones(32 << 20, np.uint8)
    target = np.empty_like(source)
    return 2 * source.nbytes / _quiet(lambda: np.copyto(target, source), seconds) / 1e9


def _score(seconds: float, random: np.random.Generator) -> tuple[float, float]:
    """10^9 bytes a second of scoring 100,000 items, and seconds per score of picking the best 100."""
    items, vector = random.random((100_000, 64), dtype=np.float32), random.random(64, dtype=np.float32)
    scores = items @ vector
    scoring = _quiet(lambda: items @ vector, seconds)
    return items.nbytes / scoring / 1e9, _quiet(lambda: np.argpartition(scores, -100), seconds) / len(scores)


def _request() -> Callable[[], object]:
    """Decode one Open Inference Protocol request and encode an answer of 20 ids with scores."""
    body = b'{"id":"1","inputs":[{"name":"household_id","datatype":"INT64","shape":[1],"data":[1234]}]}'
    outputs = [
        {"name": "product_id", "datatype": "INT64", "shape": [1, 20], "data": list(range(900_000, 900_020))},
        {"name": "score", "datatype": "FP32", "shape": [1, 20], "data": [i / 21 for i in range(20)]},
    ]
    decoder, encoder = msgspec.json.Decoder(), msgspec.json.Encoder()

    def once() -> object:
        return encoder.encode({"id": decoder.decode(body)["id"], "model_name": "m", "outputs": outputs})

    return once


def _unsteadiness(seconds: float, random: np.random.Generator) -> float:
    """Squared coefficient of variation of about a millisecond of work like that of a request.

    From the distance between quartiles: what another process does to a few calls is no property of the work.
    """
    matrix, vector = random.random((20_000, 64), dtype=np.float32), random.random(64, dtype=np.float32)
    once = _request()

    def work() -> None:
        scores = matrix @ vector
        np.argpartition(scores, -100)
        once()

    low, middle, high = np.quantile(_times(work, seconds, least=30), (0.25, 0.5, 0.75))
    return float(((high - low) / 1.349 / middle) ** 2)


def _fsync(seconds: float, folder: Path | None) -> float:
    with tempfile.TemporaryFile(dir=folder) as file:

        def work() -> None:
            file.seek(0)
            file.write(b"\0" * 4096)
            file.flush()
            os.fsync(file.fileno())

        return _quiet(work, min(seconds, 0.3))


def _onnx(seconds: float, random: np.random.Generator) -> tuple[float, float] | None:
    """Seconds of one call, and of one row through one tree; from batches of 1 and 256. None: no such operator here."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(_tree_model(random), options, providers=["CPUExecutionProvider"])
    except Exception:  # noqa: BLE001 -- its error classes are made at run time; without a session there is no number
        return None

    def timed(rows: int) -> float:
        batch = {"x": random.random((rows, _FEATURES), dtype=np.float32)}
        return _quiet(lambda: session.run(None, batch), seconds / 2)

    one, many = timed(1), timed(256)
    tree = max(0.0, (many - one) / (255 * _TREES))
    return max(0.0, one - _TREES * tree), tree


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cpu_name() -> str:
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def _clock_ghz() -> float | None:
    """The clock that the system reports; None where it reports none (most ARM machines)."""
    text = _cpuinfo("cpu MHz")
    try:
        return float(text) / 1000 if text else None
    except ValueError:
        return None


def _cpuinfo(name: str) -> str | None:
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        return None
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), None)


def _memory() -> int:
    """Bytes this process may use: of the machine, or of its control group where that is less."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
    except OSError:
        return total
    return min(total, int(limit)) if limit.isdigit() else total


# ----------------------------------------------------------------- a model of trees in the bytes of the ONNX format


def _tree_model(random: np.random.Generator) -> bytes:
    """Full trees of random splits, as one TreeEnsembleRegressor.

    Written as protocol buffer bytes, because the ``onnx`` package is no dependency: fields of onnx.proto3.
    """
    inner, total = 2**_DEPTH - 1, 2 ** (_DEPTH + 1) - 1
    node = np.arange(total)
    leaf = node >= inner
    tree_ids = np.repeat(np.arange(_TREES), total)
    node_ids = np.tile(node, _TREES)
    leaves = np.tile(node[leaf], _TREES)
    attributes = [
        _ints("nodes_treeids", tree_ids),
        _ints("nodes_nodeids", node_ids),
        _ints("nodes_featureids", random.integers(0, _FEATURES, len(node_ids))),
        _floats("nodes_values", random.random(len(node_ids))),
        _ints("nodes_truenodeids", np.tile(np.where(leaf, 0, 2 * node + 1), _TREES)),
        _ints("nodes_falsenodeids", np.tile(np.where(leaf, 0, 2 * node + 2), _TREES)),
        _strings("nodes_modes", [b"LEAF" if is_leaf else b"BRANCH_LEQ" for is_leaf in np.tile(leaf, _TREES)]),
        _ints("target_treeids", np.repeat(np.arange(_TREES), int(leaf.sum()))),
        _ints("target_nodeids", leaves),
        _ints("target_ids", np.zeros(len(leaves), int)),
        _floats("target_weights", random.random(len(leaves))),
        field(1, b"n_targets") + field(3, 1) + field(20, 2),
    ]
    operator = field(1, b"x") + field(2, b"y") + field(4, b"TreeEnsembleRegressor")
    operator += b"".join(field(5, attribute) for attribute in attributes) + field(7, b"ai.onnx.ml")
    graph = field(1, operator) + field(2, b"probe") + field(11, _tensor(b"x", _FEATURES)) + field(12, _tensor(b"y", 1))
    opsets = field(8, field(1, b"") + field(2, 17)) + field(8, field(1, b"ai.onnx.ml") + field(2, 3))
    return field(1, 8) + field(7, graph) + opsets


def _tensor(name: bytes, width: int) -> bytes:
    """A ValueInfoProto: 32-bit floats of shape (n, width)."""
    shape = field(1, field(2, b"n")) + field(1, field(1, width))
    return field(1, name) + field(2, field(1, field(1, 1) + field(2, shape)))


def _ints(name: str, values: np.ndarray) -> bytes:
    return field(1, name.encode()) + field(8, b"".join(varint(int(v)) for v in values)) + field(20, 7)


def _floats(name: str, values: np.ndarray) -> bytes:
    return field(1, name.encode()) + field(7, struct.pack(f"<{len(values)}f", *values)) + field(20, 6)


def _strings(name: str, values: list[bytes]) -> bytes:
    return field(1, name.encode()) + b"".join(field(9, value) for value in values) + field(20, 8)
