"""ONNX Runtime, opened in one way: every graph of a replica computes with the threads that the replica was given."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from bedplate.errors import InputError, IntegrityError

Session = Any
"""An ``onnxruntime.InferenceSession``, which has no types."""


def open_session(model: bytes, threads: int = 1) -> Session:
    """A session for one graph.

    Raises:
        IntegrityError: ONNX Runtime does not take the graph.
    """
    import onnxruntime  # 0.2 s: only a process that predicts pays it

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = max(1, threads)
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Threads that spin between requests take the processor from whoever shares the machine.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise IntegrityError(f"ONNX Runtime does not take the model: {error}") from error


def run(session: Session, outputs: Sequence[str], inputs: Mapping[str, npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
    """The values of ``outputs``.

    Raises:
        InputError: the graph refuses the values (an index out of range, shapes that do not fit each other).
    """
    try:
        values: list[np.ndarray] = session.run(outputs, inputs)
    except Exception as error:  # ONNX Runtime's own errors have no common type of their own
        first = str(error).splitlines()[0][:300]
        raise InputError(f"the model refuses these inputs: {first}") from error
    return values
