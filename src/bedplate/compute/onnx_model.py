"""An ONNX model of the user, opened to be measured: checked as a bundle is, fed with numbers of the right shape."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from bedplate import ids
from bedplate.bundle import formats
from bedplate.errors import InputError
from bedplate.ids import Digest

_TYPES: dict[str, Any] = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(uint8)": np.uint8,
    "tensor(bool)": np.bool_,
}


class OnnxModel:
    """One model: its bytes, its inputs, and how a session of it is opened."""

    def __init__(self, path: Path, shapes: Mapping[str, Sequence[int]] | None = None) -> None:
        """Read and check ``path``; ``shapes`` gives whole shapes of inputs whose inner dimensions are left open.

        Raises:
            InputError: there is no such file, it is no ONNX model, or it holds what could run code or read files.
        """
        try:
            self.data = path.read_bytes()
        except OSError as error:
            raise InputError(f"cannot read the model: {error.strerror}", where=str(path), fix="name a file") from error
        if formats.identify(path.name, self.data) != "onnx":
            raise InputError("it is no ONNX model", where=str(path), fix="give the .onnx file that would be served")
        self.path, self.name = path, path.name
        self.digest: Digest = ids.digest_bytes(self.data)
        self._shapes = dict(shapes or {})

    def session(self, *, provider: str = "CPUExecutionProvider", threads: int = 1, profile: Path | None = None) -> Any:
        """A session of ``threads`` threads; ``profile`` is the beginning of the name of ONNX Runtime's own profile.

        Raises:
            InputError: ONNX Runtime refuses the model.
        """
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 4
        if profile is not None:
            options.enable_profiling, options.profile_file_prefix = True, str(profile)
        try:
            session = onnxruntime.InferenceSession(self.data, options, providers=[provider])
        except Exception as error:  # its error classes are made at run time
            raise InputError(
                f"ONNX Runtime cannot open it: {str(error).splitlines()[0]}", where=str(self.path),
                fix="export it for an operator set that the installed ONNX Runtime knows",
            ) from error  # fmt: skip
        self._check_shapes(session)
        return session

    def feed(self, session: Any, batch: int) -> dict[str, np.ndarray]:
        """Inputs of ``batch`` rows: numbers between 0 and 1, ids of 0 and 1, masks of ones.

        Raises:
            InputError: a dimension is open and no shape was given for it, or a type cannot be made up.
        """
        random = np.random.default_rng(7)
        return {item.name: self._values(item, batch, random) for item in session.get_inputs()}

    def batches(self, session: Any) -> bool:
        """Whether the first dimension of every input is open, so that rows can be answered together."""
        return all(item.shape and not isinstance(item.shape[0], int) for item in session.get_inputs())

    def _values(self, item: Any, batch: int, random: np.random.Generator) -> np.ndarray:
        kind = _TYPES.get(item.type)
        if kind is None:
            raise InputError(
                f"numbers for an input of {item.type} cannot be made up",
                where=f"{self.name}: {item.name}", fix="serve it and profile its endpoint instead",
            )  # fmt: skip
        shape = self.shape(item, batch)
        if kind is np.bool_:
            return np.ones(shape, np.bool_)
        if np.issubdtype(kind, np.integer):
            return np.ones(shape, kind) if "mask" in item.name else random.integers(0, 2, shape).astype(kind)
        return random.random(shape).astype(kind)

    def shape(self, item: Any, batch: int) -> tuple[int, ...]:
        """The shape of one input for ``batch`` rows."""
        given = self._shapes.get(item.name)
        if given is not None:
            return (batch if not isinstance(item.shape[0], int) else given[0], *given[1:])
        found = []
        for place, size in enumerate(item.shape):
            if isinstance(size, int) and size > 0:
                found.append(size)
            elif place == 0:
                found.append(batch)
            else:
                raise InputError(
                    f"dimension {place} ({size or '?'}) of input {item.name} is open", where=self.name,
                    fix=f"give the whole shape: --shape {item.name}=1x...",
                )  # fmt: skip
        return tuple(found)

    def _check_shapes(self, session: Any) -> None:
        inputs = {item.name: item for item in session.get_inputs()}
        for name, given in self._shapes.items():
            if name not in inputs or len(given) != len(inputs[name].shape):
                raise InputError(
                    f"{name} is no input of {len(given)} dimensions", where=f"{self.name}: --shape",
                    fix="its inputs are " + ", ".join(f"{n} {item.shape}" for n, item in inputs.items()),
                )  # fmt: skip


def parse_shapes(texts: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Shapes written as ``NAME=1x3x224x224``.

    Raises:
        InputError: one is not written so.
    """
    found = {}
    for text in texts:
        name, _, sizes = text.partition("=")
        parts = sizes.split("x")
        if not name or not all(part.isdecimal() and int(part) > 0 for part in parts):
            raise InputError(f"{text!r} is no shape", where="--shape", fix="write NAME=1x3x224x224")
        found[name] = tuple(int(part) for part in parts)
    return found
