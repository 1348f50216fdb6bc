"""A candidate release in a process of its own, and the line on which the stable replica asks it.

What travels is a frame: four bytes of length, then MessagePack. A question holds its number, its deadline on the clock
that both processes share, and the checked arrays; an answer holds the number, the seconds the model took, and outputs.
Nothing that comes back is taken for an answer before it was checked. Only the owner of the home can open the socket.
"""

import asyncio
from pathlib import Path
from time import perf_counter
from typing import Any

import msgspec
import numpy as np

from bedplate import clock, files
from bedplate.errors import BedplateError, DeadlineError, InputError, UnavailableError
from bedplate.records import ModelSignature
from bedplate.serve.batching import Batcher
from bedplate.serve.predictors import Answer
from bedplate.serve.tensors import Arrays, ModelError, check

_LARGEST = 256 << 20
_MOST_WAITING, _MOST_UNSENT = 64, 4 << 20
"""Questions under way and bytes not yet taken: a candidate that hangs must cost this process no memory and no queue."""
_encode, _decode = msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder().decode


class CandidateError(UnavailableError):
    """The candidate gave no answer that can be used; ``reason`` is its kind, in one word."""

    code = "candidate"

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Candidate:
    """The asked side: answers frames as the stable release answers requests, joined where that pays.

    Both times count the wait for the batch before: a guard that held a lone candidate against a stable release which
    batches, or the other way round, would find a difference that is not the release's.
    """

    def __init__(self, batcher: Batcher) -> None:
        self._batcher = batcher

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one replica until it hangs up."""
        answering: set[asyncio.Task[None]] = set()
        try:
            while True:
                task = asyncio.create_task(self._reply(await _read(reader), writer))
                answering.add(task)
                task.add_done_callback(answering.discard)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            for task in answering:
                task.cancel()
            writer.close()

    async def _reply(self, question: list[Any], writer: asyncio.StreamWriter) -> None:
        answer = await self.answer(question)
        if not writer.is_closing():
            writer.write(_frame(answer))

    async def answer(self, question: list[Any]) -> list[Any]:
        """The answer to one question: number, seconds, and outputs or what went wrong."""
        number, deadline, packed = question
        started = perf_counter()
        try:
            answer = await self._batcher.predict(_unpack(packed), started + deadline - clock.monotonic())
        except Exception as error:  # noqa: BLE001  whatever it is, the stable release answers and this is counted
            return [number, perf_counter() - started, _reason(error), str(error)[:300]]
        return [number, perf_counter() - started, "", _pack(answer.outputs), answer.features, answer.entity]


class Line:
    """The asking side: one connection that carries many questions at a time, opened again when it breaks.

    Answers are held against ``signature``, that of the release which answers otherwise: callers know no other.
    """

    def __init__(self, path: Path, signature: ModelSignature) -> None:
        self._path, self._signature = path, signature
        self._writer: asyncio.StreamWriter | None = None
        self._listening: asyncio.Task[None] | None = None
        self._waiting: dict[int, asyncio.Future[list[Any]]] = {}
        self._number = 0
        self._opening = asyncio.Lock()

    async def ask(self, arrays: Arrays, patience: float) -> tuple[Answer, float]:
        """The candidate's answer and the seconds its model took.

        Raises:
            CandidateError: there is none within ``patience`` seconds, or none that fits the signature.
        """
        if len(self._waiting) >= _MOST_WAITING or self._unsent() > _MOST_UNSENT:
            raise CandidateError("busy", "too much waits for an answer already")
        number = self._number = self._number + 1
        waiting: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        self._waiting[number] = waiting
        try:
            async with asyncio.timeout(patience):
                writer = await self._open()
                writer.write(_frame([number, clock.monotonic() + patience, _pack(arrays)]))
                _, seconds, reason, *rest = await waiting
        except TimeoutError:
            raise CandidateError("late", f"no answer within {patience:g} s") from None
        except OSError as error:
            raise CandidateError("unreachable", f"the process does not answer: {error}") from error
        finally:
            self._waiting.pop(number, None)
        if reason:
            raise CandidateError(reason, rest[0])
        outputs, features, entity = rest
        answer = Answer(outputs=_unpack(outputs), features=features, entity=entity)
        try:
            check(answer.outputs, self._signature)
        except ModelError as error:
            raise CandidateError("unusable", error.message) from error
        return answer, seconds

    def close(self) -> None:
        """Hang up; whoever still waits is told that the candidate is unreachable."""
        if self._listening is not None:
            self._listening.cancel()
        self._lost()

    def _unsent(self) -> int:
        return 0 if self._writer is None else self._writer.transport.get_write_buffer_size()

    async def _open(self) -> asyncio.StreamWriter:
        async with self._opening:
            if self._writer is None or self._writer.is_closing():
                with files.brief(self._path) as name:
                    reader, self._writer = await asyncio.open_unix_connection(name)
                self._listening = asyncio.create_task(self._listen(reader))
            return self._writer

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        try:
            while True:
                answer = await _read(reader)
                waiting = self._waiting.get(answer[0])
                if waiting is not None and not waiting.done():
                    waiting.set_result(answer)
        except (asyncio.IncompleteReadError, ConnectionError, msgspec.DecodeError):
            self._lost()

    def _lost(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(ConnectionError("hung up"))


async def _read(reader: asyncio.StreamReader) -> list[Any]:
    size = int.from_bytes(await reader.readexactly(4), "big")
    if size > _LARGEST:
        raise ConnectionError(f"a frame of {size} bytes")
    frame: list[Any] = _decode(await reader.readexactly(size))
    return frame


def _frame(values: list[Any]) -> bytes:
    body = _encode(values)
    return len(body).to_bytes(4, "big") + body


def _pack(arrays: Arrays) -> dict[str, list[Any]]:
    return {
        name: ["O", list(array.shape), array.ravel().tolist()]
        if array.dtype.kind in "OUS"
        else [array.dtype.str, list(array.shape), array.tobytes()]
        for name, array in arrays.items()
    }


def _unpack(packed: dict[str, list[Any]]) -> Arrays:
    return {
        name: (np.array(data, dtype=object) if kind == "O" else np.frombuffer(data, dtype=kind)).reshape(shape)
        for name, (kind, shape, data) in packed.items()
    }


def _reason(error: Exception) -> str:
    if isinstance(error, CandidateError):
        return error.reason
    if isinstance(error, DeadlineError):
        return "late"
    if isinstance(error, InputError):
        return "refused"
    return "unusable" if isinstance(error, BedplateError) and error.__cause__ is None else "failed"
