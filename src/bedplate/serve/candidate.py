"""A candidate release in a process of its own, and the line on which the stable replica asks it.

What travels is a frame: four bytes of length, then MessagePack. A question holds its number, its deadline on the clock
that both processes share, the checked arrays, and how they are to be answered; an answer holds the number, the seconds
the model took, and outputs. Of an answer in pieces each is asked for by the same number, without arrays.
Nothing that comes back is taken for an answer before it was checked. Only the owner of the home can open the socket.
"""

import asyncio
from collections.abc import AsyncGenerator
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
_WHOLE, _STREAM, _STOP = "whole", "stream", "stop"
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
        self._talks: set[_Talk] = set()

    @property
    def busy(self) -> bool:
        """Whether something was asked that is not answered yet, or not to the end."""
        return any(talk.busy for talk in self._talks)

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one replica until it hangs up."""
        talk = _Talk(self._batcher, writer)
        self._talks.add(talk)
        try:
            while True:
                talk.take(await _read(reader))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            await talk.close()
            self._talks.discard(talk)
            writer.close()

    async def close(self) -> None:
        """End with whatever is not answered yet."""
        for talk in tuple(self._talks):
            await talk.close()


class _Talk:
    """What one replica is being answered, by the number of the question."""

    def __init__(self, batcher: Batcher, writer: asyncio.StreamWriter) -> None:
        self._batcher, self._writer = batcher, writer
        self._answering: dict[int, asyncio.Task[None]] = {}
        self._streams: dict[int, AsyncGenerator[Answer]] = {}

    @property
    def busy(self) -> bool:
        """Whether an answer is under way, or not at its end."""
        return bool(self._answering or self._streams)

    def take(self, question: list[Any]) -> None:
        """Begin with a question, or end with a stream that nobody reads any more."""
        number, what = question[0], question[3]
        before = self._answering.pop(number, None)
        work = self._reply(*question) if what != _STOP else self._stop(number, before)
        task = self._answering[number] = asyncio.create_task(work)
        task.add_done_callback(lambda done: self._forget(number, done))

    async def close(self) -> None:
        """End with everything."""
        for task in self._answering.values():
            task.cancel()
        await asyncio.gather(*self._answering.values(), return_exceptions=True)
        for pieces in self._streams.values():
            await pieces.aclose()

    def _forget(self, number: int, done: asyncio.Task[None]) -> None:
        if self._answering.get(number) is done:
            del self._answering[number]

    async def _reply(self, number: int, deadline: float, packed: dict[str, list[Any]] | None, what: str) -> None:
        """The answer to one question: number, seconds, and outputs (None behind the last piece) or what went wrong."""
        started = perf_counter()
        said: list[Any]
        try:
            left = deadline - clock.monotonic()
            if what == _WHOLE:
                answer: Answer | None = await self._batcher.predict(_unpack(packed or {}), started + left)
            else:
                answer = await self._piece(number, left, packed)
            said = [""]
            said += [None] if answer is None else [_pack(answer.outputs), answer.features, answer.entity]
        except Exception as error:  # noqa: BLE001  whatever it is, the stable release answers and this is counted
            self._streams.pop(number, None)
            said = [_reason(error), str(error)[:300]]
        if not self._writer.is_closing():
            self._writer.write(_frame([number, perf_counter() - started, *said]))

    async def _piece(self, number: int, left: float, packed: dict[str, list[Any]] | None) -> Answer | None:
        if packed is not None:
            if not self._batcher.yields:
                raise CandidateError("unusable", "the candidate does not answer in pieces")
            until = asyncio.get_running_loop().time() + left
            self._streams[number] = self._batcher.stream(_unpack(packed), until)
        piece = await anext(self._streams[number], None)
        if piece is None:
            del self._streams[number]
        return piece

    async def _stop(self, number: int, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            before.cancel()
            await asyncio.gather(before, return_exceptions=True)
        pieces = self._streams.pop(number, None)
        if pieces is not None:
            await pieces.aclose()


class Line:
    """The asking side: one connection that carries many questions at a time, opened again when it breaks.

    Answers are held against ``signature``, that of the release which answers otherwise: callers know no other.
    """

    def __init__(self, path: Path, signature: ModelSignature) -> None:
        self._path, self._signature = path, signature
        self._writer: asyncio.StreamWriter | None = None
        self._listening: asyncio.Task[None] | None = None
        self._waiting: dict[int, asyncio.Future[list[Any]]] = {}
        self._streams = 0
        self._retired = False
        self._number = 0
        self._opening = asyncio.Lock()

    async def ask(self, arrays: Arrays, patience: float) -> tuple[Answer, float]:
        """The candidate's answer and the seconds its model took.

        Raises:
            CandidateError: there is none within ``patience`` seconds, or none that fits the signature.
        """
        number = self._begin()
        answer, seconds = await self._round([number, clock.monotonic() + patience, _pack(arrays), _WHOLE], patience)
        if answer is None:
            raise CandidateError("unusable", "it gave no answer")
        return answer, seconds

    async def stream(self, arrays: Arrays, patience: float, seconds: float) -> AsyncGenerator[tuple[Answer, float]]:
        """The candidate's answer piece by piece, each asked for when it is wanted, and the seconds that each took.

        The first must come within ``patience`` seconds, the last within ``seconds``. Closing it ends the work on it.

        Raises:
            CandidateError: there was no piece in time, or none that fits the signature.
        """
        number, end = self._begin(), clock.monotonic() + seconds
        frame: list[Any] = [number, end, _pack(arrays), _STREAM]
        self._streams += 1
        over = False
        try:
            while True:
                answer, took = await self._round(frame, min(patience, end - clock.monotonic()))
                if answer is None:
                    over = True
                    return
                yield answer, took
                frame, patience = [number, end, None, _STREAM], seconds
        finally:
            self._streams -= 1
            if self._retired:
                self.close()
            elif not over and self._writer is not None and not self._writer.is_closing():
                self._writer.write(_frame([number, end, None, _STOP]))

    def _begin(self) -> int:
        if max(len(self._waiting), self._streams) >= _MOST_WAITING or self._unsent() > _MOST_UNSENT:
            raise CandidateError("busy", "too much waits for an answer already")
        self._number += 1
        return self._number

    async def _round(self, question: list[Any], patience: float) -> tuple[Answer | None, float]:
        """The answer to one question, checked, and the seconds that it took; None where there are no more pieces."""
        number = question[0]
        waiting: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        self._waiting[number] = waiting
        try:
            async with asyncio.timeout(patience):
                writer = await self._open()
                writer.write(_frame(question))
                _, seconds, reason, *rest = await waiting
        except TimeoutError:
            raise CandidateError("late", f"no answer within {patience:g} s") from None
        except OSError as error:
            raise CandidateError("unreachable", f"the process does not answer: {error}") from error
        finally:
            self._waiting.pop(number, None)
        if reason:
            raise CandidateError(reason, rest[0])
        if rest == [None]:
            return None, seconds
        outputs, features, entity = rest
        answer = Answer(outputs=_unpack(outputs), features=features, entity=entity)
        try:
            check(answer.outputs, self._signature)
        except ModelError as error:
            raise CandidateError("unusable", error.message) from error
        return answer, seconds

    def close(self) -> None:
        """Hang up, after the last answer in pieces; whoever else waits is told that the candidate is unreachable."""
        self._retired = True
        if self._streams:
            return
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
