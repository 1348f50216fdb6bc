"""ONNX Runtime, opened in one way: every graph of a replica computes with the threads that the replica was given."""

import ctypes
import math
from collections.abc import Mapping, Sequence, Set
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from bedplate.errors import InputError, IntegrityError, UnavailableError
from bedplate.serve.tensors import bfloat, of_bfloat

_BFLOAT16 = 16
"""What ONNX calls BF16."""
Session = Any
"""An ``onnxruntime.InferenceSession``, which has no types."""


Provider = Literal["cpu", "cuda"]
_PROVIDERS: dict[Provider, str] = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


def open_session(model: bytes, threads: int = 1, provider: Provider = "cpu") -> Session:
    """A session for one graph, which computes where ``provider`` says and nowhere else.

    Raises:
        UnavailableError: this machine, or the ONNX Runtime that is installed, has no such provider.
        IntegrityError: ONNX Runtime does not take the graph.
    """
    import onnxruntime  # 0.2 s: only a process that predicts pays it

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = max(1, threads)
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Threads that spin between requests take the processor from whoever shares the machine.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    wanted = _PROVIDERS[provider]
    if wanted not in onnxruntime.get_available_providers():
        raise _unavailable(provider, "the ONNX Runtime that is installed has no such provider")
    try:
        # Operators that a GPU does not have stay on the processor, which is no fallback of the graph.
        session = onnxruntime.InferenceSession(
            model, options, providers=list(dict.fromkeys([wanted, _PROVIDERS["cpu"]]))
        )
    except Exception as error:
        raise IntegrityError(f"ONNX Runtime does not take the model: {error}") from error
    if (
        session.get_providers()[0] != wanted
    ):  # without its libraries or a device it takes the processor, and says nothing
        raise _unavailable(provider, "its libraries or a device are missing")
    return session


def _unavailable(provider: Provider, reason: str) -> UnavailableError:
    return UnavailableError(
        f"the model cannot compute on {provider}: {reason}",
        fix="install onnxruntime-gpu and its CUDA libraries on a machine with a GPU, or plan for the CPU",
    )


def run(session: Session, outputs: Sequence[str], inputs: Mapping[str, npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
    """The values of ``outputs``.

    Raises:
        InputError: the graph refuses the values (an index out of range, shapes that do not fit each other).
    """
    try:
        # What `session.run` calls after looking at what is settled here: that costs a fifth of a small model's time.
        values: list[np.ndarray] = session._sess.run(outputs, inputs, None)
    except Exception as error:  # ONNX Runtime's own errors have no common type of their own
        raise _refused(error) from error
    return values


def run_bfloat(
    halves: Set[str], session: Session, outputs: Sequence[str], inputs: Mapping[str, npt.NDArray[Any]]
) -> list[npt.NDArray[Any]]:
    """:func:`run` for a graph in which ``halves`` are tensors of BF16, for which NumPy has no type.

    Raises:
        InputError: the graph refuses the values.
    """
    from onnxruntime import OrtValue

    feed = {
        name: OrtValue.ortvalue_from_numpy_with_onnx_type(bfloat(array), _BFLOAT16)
        if name in halves
        else OrtValue.ortvalue_from_numpy(array)
        for name, array in inputs.items()
    }
    try:
        values = session.run_with_ort_values(outputs, feed)
    except Exception as error:
        raise _refused(error) from error
    return [_of_bfloat(value) if name in halves else value.numpy() for name, value in zip(outputs, values, strict=True)]


def _of_bfloat(value: Any) -> npt.NDArray[Any]:
    shape = value.shape()
    bits = ctypes.string_at(value.data_ptr(), 2 * math.prod(shape))
    return of_bfloat(np.frombuffer(bits, np.uint16)).reshape(shape)


def _refused(error: Exception) -> InputError:
    return InputError(f"the model refuses these inputs: {str(error).splitlines()[0][:300]}")
