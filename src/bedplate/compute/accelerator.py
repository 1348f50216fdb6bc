"""What the accelerators of this machine do: matrix products, their memory, and the way to them.

Through PyTorch, CuPy or ONNX Runtime's CUDA provider, whichever is installed and finds a device. Without one: nothing.
"""

import importlib
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime

from bedplate.bundle.protobuf import field
from bedplate.plan.types import AcceleratorProbe

_SIZE = 4096
_COPY_BYTES = 256 << 20


def measure(seconds: float) -> tuple[AcceleratorProbe, ...]:
    """Every accelerator that a library here can use, each for about ``seconds``; empty without one."""
    for found in (_torch, _cupy, _onnxruntime):
        try:
            devices = found(seconds)
        except (ImportError, RuntimeError, OSError):
            continue  # a library without its driver says so in many ways; the next one may do
        if devices:
            return devices
    return ()


def _torch(seconds: float) -> tuple[AcceleratorProbe, ...]:
    torch = importlib.import_module("torch")
    if not torch.cuda.is_available():
        return ()
    return tuple(_torch_device(torch, index, seconds) for index in range(torch.cuda.device_count()))


def _torch_device(torch: Any, index: int, seconds: float) -> AcceleratorProbe:
    device = torch.device("cuda", index)
    known = torch.cuda.get_device_properties(device)
    wait = lambda: torch.cuda.synchronize(device)  # noqa: E731  one expression, named for its use
    rates = {}
    for name in ("float32", "bfloat16", "float16"):
        a, b = torch.rand((2, _SIZE, _SIZE), device=device).to(getattr(torch, name))
        rates[name] = 2 * _SIZE**3 / _best(lambda a=a, b=b: torch.mm(a, b), wait, seconds / 6) / 1e12  # type: ignore[misc]
    source = torch.ones(_COPY_BYTES, dtype=torch.uint8, device=device)
    target, host = torch.empty_like(source), torch.ones(_COPY_BYTES, dtype=torch.uint8).pin_memory()
    return AcceleratorProbe(
        name=known.name,
        framework=f"torch {torch.__version__}",
        memory=int(known.total_memory),
        matmul_tflops=rates,
        copy_gbps=2 * _COPY_BYTES / _best(lambda: target.copy_(source), wait, seconds / 4) / 1e9,
        upload_gbps=_COPY_BYTES / _best(lambda: target.copy_(host), wait, seconds / 4) / 1e9,
        launch_us=_best(lambda: target[:1].add_(0), wait, seconds / 8) * 1e6,
    )


def _cupy(seconds: float) -> tuple[AcceleratorProbe, ...]:
    cupy = importlib.import_module("cupy")
    found = []
    for index in range(cupy.cuda.runtime.getDeviceCount()):
        with cupy.cuda.Device(index):
            known = cupy.cuda.runtime.getDeviceProperties(index)
            found.append(
                arrays(
                    cupy,
                    cupy.cuda.Stream.null.synchronize,
                    seconds,
                    name=known["name"].decode(),
                    memory=int(known["totalGlobalMem"]),
                    framework=f"cupy {cupy.__version__}",
                )
            )
    return tuple(found)


def arrays(
    module: Any,
    wait: Callable[[], object],
    seconds: float,
    *,
    name: str,
    memory: int,
    framework: str,
    size: int = _SIZE,
) -> AcceleratorProbe:
    """The figures of a device that a module with NumPy's interface computes on; ``wait`` returns when it is done."""
    rates = {}
    for kind in ("float32", "float16"):
        a, b = (module.ones((size, size), dtype=kind) for _ in range(2))
        rates[kind] = 2 * size**3 / _best(lambda a=a, b=b: module.matmul(a, b), wait, seconds / 4) / 1e12  # type: ignore[misc]
    source, host = module.ones(_COPY_BYTES, dtype="uint8"), np.ones(_COPY_BYTES, dtype="uint8")
    target, small = module.empty_like(source), module.ones(1)
    return AcceleratorProbe(
        name=name,
        framework=framework,
        memory=memory,
        matmul_tflops=rates,
        copy_gbps=2 * _COPY_BYTES / _best(lambda: module.copyto(target, source), wait, seconds / 4) / 1e9,
        upload_gbps=_COPY_BYTES / _best(lambda: module.asarray(host), wait, seconds / 4) / 1e9,
        launch_us=_best(lambda: module.add(small, 0, out=small), wait, seconds / 8) * 1e6,
    )


def _onnxruntime(seconds: float) -> tuple[AcceleratorProbe, ...]:
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        return ()
    return (onnx_device("CUDAExecutionProvider", "cuda", seconds),)


def onnx_device(provider: str, device: str, seconds: float, size: int = _SIZE) -> AcceleratorProbe:
    """The figures that ONNX Runtime can tell of a device: its products and the way to it, not its memory.

    Raises:
        RuntimeError: the provider is installed but has no device.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(_product(size), options, providers=[provider])
    if provider not in session.get_providers():
        raise RuntimeError(f"{provider} has no device")  # ONNX Runtime would go on with the processor in silence
    host = np.ones((size, size), np.float32)
    value = onnxruntime.OrtValue.ortvalue_from_numpy(host, device, 0)
    bound = session.io_binding()
    bound.bind_ortvalue_input("a", value)
    bound.bind_output("c", device)
    product = _best(lambda: session.run_with_iobinding(bound), bound.synchronize_outputs, seconds / 2)
    upload = _best(lambda: value.update_inplace(host), lambda: None, seconds / 4)
    return AcceleratorProbe(
        name=f"{provider.removesuffix('ExecutionProvider')} device",
        framework=f"onnxruntime {onnxruntime.__version__}",
        memory=None,
        matmul_tflops={"float32": 2 * size**3 / product / 1e12},
        copy_gbps=None,
        upload_gbps=host.nbytes / upload / 1e9,
        launch_us=None,
    )


def _best(work: Callable[[], object], wait: Callable[[], object], seconds: float) -> float:
    """Seconds of one call, the quieter tenth, each waited for; the first one, which compiles, is left out."""
    work()
    wait()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < 3 or (time.perf_counter() < end and len(times) < 10_000):
        start = time.perf_counter()
        work()
        wait()
        times.append(time.perf_counter() - start)
    return float(np.quantile(times, 0.1))


def _product(size: int) -> bytes:
    """``c = a a`` of two dimensions, in the bytes of the ONNX format (fields of onnx.proto3)."""

    def tensor(name: bytes) -> bytes:
        shape = field(1, field(1, size)) * 2
        return field(1, name) + field(2, field(1, field(1, 1) + field(2, shape)))

    node = field(1, b"a") + field(1, b"a") + field(2, b"c") + field(4, b"MatMul")
    graph = field(1, node) + field(2, b"product") + field(11, tensor(b"a")) + field(12, tensor(b"c"))
    return field(1, 8) + field(7, graph) + field(8, field(1, b"") + field(2, 17))
