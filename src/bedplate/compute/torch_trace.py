"""What torch's profiler saw of a training: time in inputs, copies, exchanges and kernels, and operations of products.

It reads the trace that ``torch.profiler`` exports. Operations are counted from the shapes of inputs, two to a
multiply-add; what a device does is told by events of its own, and without one there are no copies to or from it.
"""

import math
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec

from bedplate.plan.bottlenecks import Signals

_DEVICE = ("kernel", "gpu_memcpy", "gpu_memset")
_LOADER = re.compile(r"enumerate\(DataLoader\)#")
_REMOTE = re.compile(r"nccl|gloo|c10d::|all_?reduce|all_?gather|reduce_?scatter|broadcast_coalesced", re.IGNORECASE)
_BYTES = {"float": 4, "double": 8, "c10::Half": 2, "c10::BFloat16": 2}


_Span = tuple[float, float]
"""From and to, in microseconds."""


class _Event(msgspec.Struct):
    ph: str = ""
    cat: str = ""
    name: str = ""
    ts: float = 0.0
    dur: float = 0.0
    args: dict[str, Any] = {}


class _Trace(msgspec.Struct):
    traceEvents: list[_Event]  # noqa: N815 - the profiler's name


class Product(NamedTuple):
    """All products of one operator and shape: calls, seconds together, operations and bytes of each."""

    name: str
    calls: int
    seconds: float
    flops: float
    bytes: float


class Traced(NamedTuple):
    """A trace: signals of equal parts of its time, and its products, the longest first."""

    windows: tuple[Signals, ...]
    products: tuple[Product, ...]


def read(trace: bytes, windows: int, peak: float) -> Traced | None:
    """``peak``: operations a second that the cores it kept busy can do. None: nothing was traced.

    Raises:
        msgspec.DecodeError: it is no trace of torch's profiler.
    """
    decoded = msgspec.json.decode(trace, type=_Trace)
    events = [event for event in decoded.traceEvents if event.ph == "X" and event.dur > 0]
    if not events:
        return None
    first, last = min(e.ts for e in events), max(e.ts + e.dur for e in events)
    width = (last - first) / windows
    parts = [(first + i * width, first + (i + 1) * width) for i in range(windows)]
    return Traced(tuple(_signals(events, *part, peak) for part in parts), tuple(_products(events)))


def _signals(events: Sequence[_Event], low: float, high: float, peak: float) -> Signals:
    """One part of the time, in microseconds. What is hidden behind kernels of a device is waited for by nobody."""
    wall = high - low
    inside = [e for e in events if e.ts < high and e.ts + e.dur > low]

    def spans(test: Callable[[_Event], object]) -> list[_Span]:
        return _joined([(max(low, e.ts), min(high, e.ts + e.dur)) for e in inside if test(e)])

    device = spans(lambda e: e.cat in _DEVICE)
    kernels = spans(lambda e: e.cat == "kernel" and not _REMOTE.search(e.name))
    loader = spans(lambda e: _LOADER.match(e.name))
    alone: Callable[[list[_Span]], float] = lambda some: (_length(_joined([*some, *kernels])) - _length(kernels)) / wall  # noqa: E731
    short = sorted(e.dur for e in inside if e.cat == "kernel")
    return Signals(
        seconds=wall / 1e6,
        loader=alone(loader),
        communication=alone(spans(lambda e: _REMOTE.search(e.name))),
        transfer=alone(spans(lambda e: e.cat == "gpu_memcpy")) if device else None,
        launch=max(0.0, 1 - _length(_joined([*device, *loader])) / wall) if device else None,
        kernel_us=short[len(short) // 2] if short else None,
        compute=None if device else min(1.0, sum(work[0] for e in inside if (work := _work(e))) / (wall / 1e6) / peak),
    )


def _joined(spans: list[_Span]) -> list[_Span]:
    """The same moments without overlap, in order."""
    found: list[_Span] = []
    for low, high in sorted(spans):
        if found and low <= found[-1][1]:
            found[-1] = (found[-1][0], max(high, found[-1][1]))
        else:
            found.append((low, high))
    return found


def _length(spans: list[_Span]) -> float:
    return math.fsum(high - low for low, high in spans)


def _products(events: Sequence[_Event]) -> list[Product]:
    found: dict[str, Product] = {}
    for event in events:
        work = _work(event)
        if work is not None and min(work) > 0:  # tensors may be empty
            name = f"{event.name.removeprefix('aten::')} {_shapes(event)}"
            before = found.get(name, Product(name, 0, 0.0, *work))
            found[name] = before._replace(calls=before.calls + 1, seconds=before.seconds + event.dur / 1e6)
    return sorted(found.values(), key=lambda product: -product.seconds)


def _shapes(event: _Event) -> str:
    return " ".join("x".join(map(str, dims)) for dims in event.args["Input Dims"] if dims)


def _work(event: _Event) -> tuple[float, float] | None:
    """Operations and bytes, each byte touched once, of a product; None for what is none, or has other shapes."""
    count = _COUNTED.get(event.name)
    dims = event.args.get("Input Dims")
    if count is None or not dims:
        return None
    try:
        flops, written = count(dims)
    except (IndexError, TypeError, ValueError):
        return None
    kinds = event.args.get("Input type") or [""]
    size = max(_BYTES.get(kind, 0) for kind in kinds) or 4
    read = sum(math.prod(shape) for shape in dims if shape and isinstance(shape[0], int))
    return flops, size * (read + written)


def _matrix(position: int) -> Callable[[Any], tuple[float, float]]:
    """Operations, and numbers written, of (... m, k) times (... k, n), which are the inputs from ``position`` on."""

    def count(dims: Any) -> tuple[float, float]:
        one, other = dims[position], dims[position + 1]
        written = math.prod(one[:-1]) * other[-1]
        return 2.0 * written * one[-1], float(written)

    return count


def _back(dims: Any) -> tuple[float, float]:
    """A convolution backwards: towards its input, and towards its weights."""
    return 2 * 2.0 * math.prod(dims[0]) * math.prod(dims[2][1:]), float(math.prod(dims[1]) + math.prod(dims[2]))


_COUNTED: dict[str, Callable[[Any], tuple[float, float]]] = {
    "aten::mm": _matrix(0),
    "aten::bmm": _matrix(0),
    "aten::addmm": _matrix(1),
    "aten::baddbmm": _matrix(1),
    "aten::convolution_backward": _back,
}
"""Operators that call none of the others. A convolution names the shape of what it writes only backwards."""
