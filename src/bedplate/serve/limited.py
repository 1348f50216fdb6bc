"""Predictors that run code which is not ours: a user's ``@predictor`` function, or a program of ``torch.export``.

The code runs in a limited process (:mod:`bedplate.serve.inside`) that the replica starts, and is never imported here.
Arrays go over a socket pair and what comes back is treated as written by an adversary. A process that is late, holds
too much, answers nonsense or ends costs the requests that it had, and is started again; when that goes on, ever later.
"""

import logging
import time
from collections.abc import Mapping
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from bedplate.errors import InputError, IntegrityError, UnavailableError
from bedplate.isolation import wire
from bedplate.isolation.confine import available
from bedplate.isolation.worker import Worker, module
from bedplate.records import ModelSignature
from bedplate.serve.predictors import Answer, FeatureReader
from bedplate.serve.tensors import DTYPES, ModelError

_log = logging.getLogger(__name__)

Kind = Literal["python", "torch-export"]
MEMORY, SECONDS, START_SECONDS = 2 << 30, 5.0, 60.0
"""Bytes that the process may hold, seconds that it may take for an answer, and for loading its model."""
_LIMITS: dict[wire.Kind, int] = {"result": 256 << 20, "error": 1 << 16}
_FIRST_DELAY, _LONGEST_DELAY, _CALM = 0.1, 10.0, 30.0

Arrays = Mapping[str, npt.NDArray[Any]]


class Packed(msgspec.Struct, array_like=True):
    """One array between the processes: raw values in row-major order, or a list of texts."""

    name: str
    datatype: str
    shape: list[int]
    data: bytes | list[str]


class Failure(msgspec.Struct):
    """What the code raised: the type, its text, and the line of ``pipeline.py``. ``ours``: it is an InputError."""

    type: str
    message: str
    line: int = 0
    ours: bool = False


_packed = msgspec.msgpack.Decoder(list[Packed])
_failure = msgspec.json.Decoder(Failure)


def pack(arrays: Arrays, datatypes: Mapping[str, str]) -> bytes:
    """Arrays as one message; ``datatypes`` by name, in Open Inference Protocol words."""
    packed = []
    for name, array in arrays.items():
        kind = datatypes[name]
        data: Any
        if kind == "BYTES":
            data = [item.decode(errors="replace") if isinstance(item, bytes) else str(item) for item in array.flat]
        else:
            data = np.ascontiguousarray(array, np.dtype(DTYPES[kind]).newbyteorder("<")).tobytes()
        packed.append(Packed(name, kind, list(array.shape), data))
    return msgspec.msgpack.encode(packed)


def arrays_of(given: Mapping[str, Any], outputs: Mapping[str, str]) -> dict[str, npt.NDArray[Any]]:
    """What a function gave, as the arrays that it promised: datatypes by name of the output.

    Raises:
        KeyError: an output is missing.
        TypeError: one is of another kind, which would change its values.
    """
    if missing := set(outputs) - set(given):
        raise KeyError(f"no output {', '.join(sorted(missing))}")
    arrays = {}
    for name, kind in outputs.items():
        array = np.asarray(given[name], object if kind == "BYTES" else None)
        if kind != "BYTES" and not np.can_cast(array.dtype, DTYPES[kind], "same_kind"):
            raise TypeError(f"an output is {array.dtype}, not {kind}")
        arrays[name] = array if kind == "BYTES" else array.astype(DTYPES[kind], copy=False)
    return arrays


def unpack(message: bytes | bytearray) -> dict[str, npt.NDArray[Any]]:
    """The arrays of a message.

    Raises:
        ValueError: it is none.
    """
    arrays = {}
    for one in _packed.decode(message):
        if one.datatype not in DTYPES or isinstance(one.data, list) != (one.datatype == "BYTES"):
            raise ValueError(f"array {one.name[:100]!r} is no {one.datatype[:16]!r}")
        if isinstance(one.data, list):
            array = np.array(one.data, np.object_)
        else:
            array = np.frombuffer(one.data, np.dtype(DTYPES[one.datatype]).newbyteorder("<"))
        arrays[one.name] = array.reshape(one.shape)
    return arrays


class LimitedPredictor:
    """Answers by asking a limited process. ``predict`` may be called by one thread at a time, and waits.

    ``files`` are the verified files of the bundle, which the process finds in its working folder. ``function`` names
    the one of ``pipeline.py`` that answers, where it marks several with ``@predictor``.

    Raises:
        UnavailableError: this machine cannot hold code that is not ours.
        IntegrityError: the model cannot be loaded; the text says what it raised.
    """

    waits = True
    """It spends its time waiting for another process, so it must not be called from an event loop."""

    def __init__(
        self,
        kind: Kind,
        files: Mapping[str, bytes],
        signature: ModelSignature,
        *,
        threads: int = 1,
        memory: int = MEMORY,
        seconds: float = SECONDS,
        function: str = "",
    ) -> None:
        if not available().isolated:
            raise UnavailableError(
                f"this machine cannot hold a model that runs code: {available().reason}",
                fix="serve it on a Linux kernel with Landlock, or release ONNX",
            )
        self.signature = signature
        self._kind, self._files, self._threads, self._memory = kind, files, threads, memory
        self._function = function
        self.seconds = seconds
        self._datatypes = {spec.name: spec.datatype for spec in signature.inputs}
        self._delay, self._not_before, self._ended = 0.0, 0.0, -_CALM
        self._process: _Process | None = None
        self._process = self._start()

    @property
    def pid(self) -> int | None:
        """The process that answers now, if there is one."""
        return None if self._process is None else self._process.pid

    def predict(self, inputs: dict[str, npt.NDArray[Any]], features: FeatureReader) -> Answer:
        """What the code answers. It reads no online features.

        Raises:
            InputError: the code raised one, with a text for the client.
            ModelError: the code raised anything else, was late, ended, or answered something that cannot be read.
        """
        process = self._alive()
        try:
            kind, payload = process.ask(pack(inputs, self._datatypes), self.seconds)
            if kind == "error":
                raise _raised(_failure.decode(payload))
            outputs = unpack(payload)
        except (ValueError, OSError, msgspec.MsgspecError) as error:
            reason = process.end(f"its answer cannot be used: {error}")
            self._give_up()
            raise ModelError(f"the process of the model ended: {reason}", fix="see the log of the replica") from error
        return Answer(outputs=outputs)

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.end("closed")
            self._process = None

    def _alive(self) -> "_Process":
        if self._process is not None:
            if (reason := self._process.ended()) is None:
                return self._process
            self._process.end(reason)
            self._give_up()
        now = time.monotonic()
        if now < self._not_before:
            raise ModelError(
                f"the process of the model ended again and again; it is started in {self._not_before - now:.1f} s"
            )
        try:
            self._process = self._start()
        except IntegrityError as error:
            self._give_up()
            raise ModelError(f"the process of the model cannot be started again: {error.message}") from error
        return self._process

    def _give_up(self) -> None:
        """After the first end in a while the next request starts it again; after more, a growing time must go by."""
        self._process = None
        now = time.monotonic()
        calm = now - self._ended > _CALM
        self._ended = now
        self._delay = 0.0 if calm else min(max(_FIRST_DELAY, 2 * self._delay), _LONGEST_DELAY)
        self._not_before = now + self._delay

    def _start(self) -> "_Process":
        return _Process(self._kind, self._files, self.signature, self._threads, self._memory, self._function)


def _raised(failure: Failure) -> InputError | ModelError:
    if failure.ours:
        return InputError(failure.message[:500])
    line = f" (pipeline.py line {failure.line})" if failure.line else ""
    _log.warning("the model raised %s: %s%s", failure.type[:100], failure.message[:1000], line)
    return ModelError(f"the model failed: {failure.type[:100]}{line}")


class _Process:
    """One limited process: started, confined and loaded when this returns."""

    def __init__(
        self,
        kind: Kind,
        files: Mapping[str, bytes],
        signature: ModelSignature,
        threads: int,
        memory: int,
        function: str,
    ) -> None:
        header = {
            "kind": kind,
            "function": function,
            "inputs": [spec.name for spec in signature.inputs],
            "outputs": {spec.name: spec.datatype for spec in signature.outputs},
        }
        worker: Worker | None = None
        try:
            worker = Worker(
                module("bedplate.serve.inside", threads), header, files=files, memory=memory, seconds=START_SECONDS
            )
            loaded, told = worker.receive(_LIMITS, time.monotonic() + START_SECONDS)
            if loaded == "error":
                failure = _failure.decode(told)
                at = f", pipeline.py line {failure.line}" if failure.line else ""
                raise ValueError(f"{failure.type[:100]}: {failure.message[:500]}{at}")
        except (ValueError, OSError, msgspec.MsgspecError) as error:
            reason = str(error) if worker is None else worker.end(str(error))
            raise IntegrityError(f"the model cannot be loaded: {reason}", fix="try the function with pytest") from error
        self._worker = worker
        self.pid = worker.pid
        self.ended, self.end = worker.ended, worker.end

    def ask(self, message: bytes, seconds: float) -> tuple[wire.Kind, bytearray]:
        """The answer to a request.

        Raises:
            ValueError: it is no frame that is expected.
            OSError: the process ended, or took longer than ``seconds``.
        """
        deadline = time.monotonic() + seconds
        self._worker.send("request", message, deadline)
        return self._worker.receive(_LIMITS, deadline)
