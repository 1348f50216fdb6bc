"""Adaptive batching: requests that wait while the model computes are computed together.

Nothing ever waits to be joined. A lone request is computed at once, and what arrives meanwhile makes the next batch, so
batches grow with the load and only then. Whether that pays, and up to how many rows, is measured once at the start.

A model that computes for long does so in a thread, and the loop goes on reading. One that is quicker than the hand-over
to a thread computes in the loop, and what arrived in the same turn of the loop is one batch.
"""

import asyncio
import math
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from statistics import median
from time import perf_counter
from typing import Any, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

from bedplate.errors import BedplateError, DeadlineError
from bedplate.http.deadlines import Deadline
from bedplate.http.turns import Queue
from bedplate.records import ModelSignature
from bedplate.serve.predictors import Answer, FeatureReader, Predictor, Streams
from bedplate.serve.tensors import DTYPES, Arrays, ModelError

MOST_ROWS = 256
_SWEEP_SECONDS = 0.1
_REPEATS = 5
_WORTH = 0.05  # a doubling that makes a row cheaper by less than this is not worth the wait of the rows before it
_HANDOVERS = 10  # batching has to save so many times what handing a request to the thread and back costs
_JOINING = 4e-6  # seconds that joining requests and parting answers takes for each of them, at most
_TURN_SECONDS = 0.0005  # how long the loop may compute for one batch: others wait for it
_LONE = 16  # so many requests in a row of one connection, none while another was computed, and it is alone
_LONE_SECONDS = 0.01  # how long the loop may compute for one that is alone: one that comes meanwhile waits for it
_BUDGET_SHARE = 0.25  # of the time a request may take: it may wait for one batch before its own


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What the sweep found: the most rows to compute together (1: batching is off), why, and the seconds by rows.

    ``thread`` says whether they are computed in a thread; else it is done in the event loop.
    """

    rows: int
    reason: str
    seconds: dict[int, float] = {}
    thread: bool = True


OFF = Plan(rows=1, reason="it was not asked for")


class _Waiting(msgspec.Struct, eq=False):
    """A request that waits; only requests of one ``kind`` are joined, and one without is computed alone."""

    kind: tuple[Any, ...] | None
    rows: int
    inputs: Arrays
    until: float
    answer: "asyncio.Future[Answer]"


Settle = Callable[[Answer | BedplateError], None]
"""Takes the answer to one request, or why there is none; never raises."""


class _Turn(msgspec.Struct, eq=False):
    """A request of this turn of the loop."""

    kind: tuple[Any, ...] | None
    rows: int
    inputs: Arrays
    settle: Settle


class Batcher:
    """Answers like its predictor, joining requests up to ``plan.rows`` rows. To be used from one event loop.

    Where the plan says that batching is on, or the predictor waits for another process, it runs in a thread of its own,
    so that the loop reads what comes next while the model computes; else it runs in the loop.
    """

    def __init__(self, predictor: Predictor, features: FeatureReader, plan: Plan) -> None:
        self.plan = plan
        self._predictor, self._features = predictor, features
        self._waiting = Queue[_Waiting]()
        self._busy = False
        self._rows = 0  # that wait
        self._begun = 0.0  # when the present batch was begun
        self._took = 0.0  # what the last ones took, each with half the weight of the next
        # A step of a stream may take long, and so may another process; the loop does other things meanwhile.
        waits = isinstance(predictor, Streams) or getattr(predictor, "waits", False)
        self._thread = ThreadPoolExecutor(1, "model") if waits or (plan.rows > 1 and plan.thread) else None
        self._quick = not waits and plan.seconds.get(1, math.inf) <= _LONE_SECONDS
        self._alike = 0  # requests of one caller after each other
        self._turn: list[_Turn] = []
        self.together: AbstractContextManager[None] = nullcontext()
        """Around the answers to several requests: whoever sends them may do that at its end."""
        self._last: object = None  # who asked last

    @property
    def yields(self) -> bool:
        """Whether the predictor also answers in pieces."""
        return isinstance(self._predictor, Streams)

    @property
    def queues(self) -> bool:
        """Whether requests wait for the model while the loop goes on."""
        return self._thread is not None

    def wait(self, who: str = "") -> float:
        """Seconds until the model would come to a request of this principal that comes now, by what the last batches
        took."""
        if not self._busy:
            return 0.0
        before, waiting = self._waiting.before(who)
        batches = self._rows * before // max(1, waiting) // self.plan.rows
        return max(0.0, self._took - (perf_counter() - self._begun)) + batches * self._took

    async def predict(self, inputs: Arrays, until: float = math.inf, who: str = "") -> Answer:
        """The answer to checked inputs, as the predictor alone would give it but for the rounding of floats.

        ``who`` asks: where several principals wait, each has its turn. It is not computed when it is not begun at
        ``until``, or when the caller's task was cancelled.

        Raises:
            DeadlineError: it was not.
            InputError: the predictor refuses these inputs; those of neighbours in a batch do not show.
            ModelError: the predictor failed on these inputs.
        """
        left = until - perf_counter()
        if left <= 0:
            raise too_late()
        if self._thread is None:
            answer = self._alone(inputs)
            if isinstance(answer, BedplateError):
                raise answer
            return answer
        loop = asyncio.get_running_loop()
        one = _Waiting(*_kind(inputs), inputs, until, loop.create_future())
        self._waiting.add(who, one)
        self._rows += one.rows
        if not self._busy:
            self._busy = True
            loop.call_soon(self._compute, loop)  # after every request that is ready now has come this far
        if left == math.inf:
            return await one.answer
        try:
            with Deadline(left):
                return await one.answer
        except TimeoutError as error:
            raise too_late() from error

    def lone(self, caller: object) -> bool:
        """Whether the next request is computed in the loop although there is a thread: nobody but this caller asks.

        A hand-over to the thread and back would be for nothing. To be asked once for each request, before :meth:`soon`.
        """
        self._alike = self._alike + 1 if self._last is caller and not self._busy else 0
        self._last = caller
        return self._quick and self._alike >= _LONE

    def soon(self, inputs: Arrays, until: float, caller: object, settle: Settle) -> None:
        """:meth:`predict` where :attr:`queues` is false, or the caller :meth:`lone`. ``settle`` gets the answer.

        That is before this returns, or at the end of this turn of the loop, where others may ask in it as well:
        requests of one ``caller`` come one after the other, those of several together. To wait for the end costs some
        microseconds; not to, after a stall in which many came, a run of the model for each.
        """
        now = perf_counter()
        last, self._last = self._last, caller
        if until <= now:
            settle(too_late())
        elif self.plan.rows > 1 and (self._turn or last is not caller):
            self._turn.append(_Turn(*_kind(inputs), inputs, settle))
            if len(self._turn) == 1:
                asyncio.get_running_loop().call_soon(self._end_turn)
        else:
            answer = self._alone(inputs)
            self.took = perf_counter() - now
            settle(answer)

    def _end_turn(self) -> None:
        """Compute what was asked in this turn, and only then answer it: work of one kind at a time finds its code in
        the caches, which a run of the model empties. Where the model is slow nobody waits for a whole turn of it."""
        turn, self._turn = self._turn, []
        computed: list[tuple[list[_Turn], list[Answer | BedplateError]]] = []
        until = perf_counter() + _LONE_SECONDS
        while turn:
            kind, rows, batch = turn[0].kind, 0, list[_Turn]()
            for one in turn:
                if batch and (kind is None or one.kind != kind or rows + one.rows > self.plan.rows):
                    break
                batch.append(one)
                rows += one.rows
            del turn[: len(batch)]
            computed.append((batch, self._answers([one.inputs for one in batch], [one.rows for one in batch])))
            if turn and perf_counter() < until:
                continue
            with self.together:
                for asked, answers in computed:
                    for one, answer in zip(asked, answers, strict=True):
                        one.settle(answer)
            computed.clear()
            until = perf_counter() + _LONE_SECONDS

    async def stream(self, inputs: Arrays, until: float) -> AsyncGenerator[Answer]:
        """The pieces of an answer, each computed when it is asked for; between two, others get their turn.

        ``until`` is the time of the loop at which it must be whole. Closing it closes the predictor's own iterator.

        Raises:
            InputError: the predictor refuses these inputs.
            ModelError: the predictor failed.
            DeadlineError: it was not whole in time.
        """
        predictor, thread = self._predictor, self._thread
        assert isinstance(predictor, Streams), "only a predictor that yields is asked to"
        assert thread is not None, "a predictor that yields has a thread"
        loop = asyncio.get_running_loop()
        pieces = predictor.stream(inputs, self._features)
        try:
            while True:
                step = loop.run_in_executor(thread, _step, pieces)
                try:
                    piece = await asyncio.wait_for(step, max(0.0, until - loop.time()))
                except TimeoutError as error:
                    raise DeadlineError("the answer was not whole in time", fix="ask for less") from error
                if piece is None:
                    return
                if isinstance(piece, BedplateError):
                    raise piece
                yield piece
        finally:
            thread.submit(_close, pieces)  # after the step that it may be in

    def close(self) -> None:
        """End the thread, after what it computes now."""
        if self._thread is not None:
            self._thread.shutdown()

    def _compute(self, loop: asyncio.AbstractEventLoop) -> None:
        batch = self._take()
        if not batch:
            self._busy = False
            return
        self._begun = perf_counter()
        inputs, rows = [one.inputs for one in batch], [one.rows for one in batch]
        computing = loop.run_in_executor(self._thread, self._answers, inputs, rows)
        computing.add_done_callback(lambda done: self._settle(loop, batch, done.result()))

    def _settle(
        self, loop: asyncio.AbstractEventLoop, batch: list[_Waiting], answers: list[Answer | BedplateError]
    ) -> None:
        self.took = took = perf_counter() - self._begun
        self._took = took if not self._took else (self._took + took) / 2
        for one, answer in zip(batch, answers, strict=True):
            if one.answer.done():  # its client went away
                continue
            if isinstance(answer, BedplateError):
                one.answer.set_exception(answer)
            else:
                one.answer.set_result(answer)
        self._compute(loop)

    def _take(self) -> list[_Waiting]:
        """The request whose turn it is and those of its kind behind it, in order, up to the plan's rows."""
        batch: list[_Waiting] = []
        others: list[tuple[str, _Waiting]] = []
        total = 0
        now = perf_counter()
        while self._waiting and total < self.plan.rows:
            who, one = self._waiting.next()
            if one.answer.done():  # its client went away, or it waited too long
                self._rows -= one.rows
                continue
            if one.until <= now:
                self._rows -= one.rows
                one.answer.set_exception(too_late())
                continue
            joins = one.kind is not None and one.kind == batch[0].kind if batch else True
            if batch and not (joins and total + one.rows <= self.plan.rows):
                others.append((who, one))
                continue
            batch.append(one)
            total += one.rows
        self._waiting.again(others)
        self._rows -= total
        return batch

    def _answers(self, inputs: list[Arrays], rows: list[int]) -> list[Answer | BedplateError]:
        together = self._together(inputs, rows) if len(inputs) > 1 else None
        return [*together] if together is not None else [self._alone(one) for one in inputs]

    def _together(self, inputs: list[Arrays], rows: list[int]) -> list[Answer] | None:
        """The answers from one call of the model; None when it does not take the batch, or cannot be parted."""
        joined = {name: np.concatenate([one[name] for one in inputs]) for name in inputs[0]}
        try:
            answer = self._predictor.predict(joined, self._features)
        except Exception:  # noqa: BLE001  one bad request: each is asked alone, and gets what is its own
            return None
        return _part(answer, rows)

    def _alone(self, inputs: Arrays) -> Answer | BedplateError:
        return _guarded(lambda: self._predictor.predict(inputs, self._features))


T = TypeVar("T")


def _guarded(ask: Callable[[], T]) -> T | BedplateError:
    """What the model says, or why it says nothing."""
    try:
        return ask()
    except BedplateError as error:
        return error
    except Exception as error:  # noqa: BLE001  a model may raise anything
        failure = ModelError(f"the model failed: {type(error).__name__}")
        failure.__cause__ = error
        return failure


def _step(pieces: Iterator[Answer]) -> Answer | BedplateError | None:
    """The next piece, None after the last."""
    return _guarded(lambda: next(pieces, None))


def _close(pieces: Iterator[Answer]) -> None:
    closer = getattr(pieces, "close", None)
    if closer is not None:
        closer()


def too_late() -> DeadlineError:
    """The error of a request whose time is over."""
    return DeadlineError("there was no time left to compute an answer", fix="wait longer, or ask less at once")


def _kind(inputs: Arrays) -> tuple[tuple[Any, ...] | None, int]:
    """What requests must share to be joined, and the rows; None when this one cannot be."""
    rows = -1
    kind = []
    for name, array in inputs.items():
        shape = array.shape
        if not shape or rows not in (-1, shape[0]):
            return None, 1
        rows = shape[0]
        kind.append((name, shape[1:]))
    return (tuple(sorted(kind)), rows) if rows > 0 else (None, 1)


def _part(answer: Answer, rows: list[int]) -> list[Answer] | None:
    """An answer to joined requests as one for each; None when it is about all of them at once."""
    total = sum(rows)
    if answer.features or answer.entity or any(not a.shape or a.shape[0] != total for a in answer.outputs.values()):
        return None
    parts, start = [], 0
    for count in rows:
        outputs = {name: a[start : start + count] for name, a in answer.outputs.items()}
        parts.append(Answer(outputs=outputs, steps=answer.steps))
        start += count
    return parts


# ---------------------------------------------------------------------------------------------------------- the sweep


def sweep(predictor: Predictor, features: FeatureReader, signature: ModelSignature, budget: float | None) -> Plan:
    """Measure what 1, 2, 4 ... rows cost and choose; takes some tenths of a second at most.

    ``budget`` is the time in which a request must be answered, in seconds. Batching stays off where a first
    dimension is fixed, where an answer depends on the neighbours in its batch, and where it saves too little.
    """
    tensors = (*signature.inputs, *signature.outputs)
    if not signature.inputs or any(not tensor.shape or tensor.shape[0] != -1 for tensor in tensors):
        return Plan(rows=1, reason="an input or output of the model has a fixed first dimension")
    seconds: dict[int, float] = {}
    rows, best = 1, 1
    try:
        if not _independent(predictor, features, signature):
            return Plan(rows=1, reason="an answer of the model depends on the other rows of a batch")
        started = perf_counter()
        while rows == 1 or (rows <= MOST_ROWS and perf_counter() - started < _SWEEP_SECONDS):
            seconds[rows] = _cost(predictor, features, probe(signature, rows))
            if budget is not None and rows > 1 and seconds[rows] > budget * _BUDGET_SHARE:
                break
            if seconds[rows] / rows < (1 - _WORTH) * seconds[best] / best:
                best = rows
            elif rows >= 4 * best:  # two doublings without a gain: there is none to come
                break
            rows *= 2
    except BedplateError as error:
        return Plan(rows=1, reason=f"the model refuses made-up inputs: {error.message}", seconds=seconds)
    except Exception as error:  # noqa: BLE001  whatever it is, it answers requests one by one as well as it can
        return Plan(rows=1, reason=f"the model fails on made-up inputs: {type(error).__name__}", seconds=seconds)
    saved, handover = _saved(seconds, best), _handover()
    if saved >= _HANDOVERS * handover:
        return Plan(rows=best, reason=f"{best} rows together save {saved * 1e6:.0f} µs of each", seconds=seconds)
    told = f"{saved * 1e6:.0f} µs saved of a row, {handover * 1e6:.0f} µs to hand it to a thread"
    most = max((count for count in seconds if count <= best and seconds[count] <= _TURN_SECONDS), default=1)
    if (quick := _saved(seconds, most)) > _JOINING:
        reason = f"{most} rows together save {quick * 1e6:.0f} µs of each; no thread: {told}"
        return Plan(rows=most, reason=reason, seconds=seconds, thread=False)
    return Plan(rows=1, reason=f"it does not pay: {told}", seconds=seconds)


def _saved(seconds: dict[int, float], rows: int) -> float:
    return seconds[1] - seconds[rows] / rows


def _cost(predictor: Predictor, features: FeatureReader, inputs: Arrays) -> float:
    times: list[float] = []
    while len(times) < _REPEATS and sum(times) < _SWEEP_SECONDS / _REPEATS:
        started = perf_counter()
        predictor.predict(inputs, features)
        times.append(perf_counter() - started)
    return median(times)


def _handover() -> float:
    """What it costs to have something done in a thread and wait for it."""
    times = []
    with ThreadPoolExecutor(1) as thread:
        for _ in range(20):
            started = perf_counter()
            thread.submit(int).result()
            times.append(perf_counter() - started)
    return median(times)


def probe(signature: ModelSignature, rows: int, seed: int = 0) -> Arrays:
    """Made-up inputs of so many rows: small numbers and texts of a few words, which most models take."""
    random = np.random.default_rng(seed)
    inputs: Arrays = {}
    for tensor in signature.inputs:
        shape = (rows, *(1 if size == -1 else size for size in tensor.shape[1:]))
        if tensor.datatype == "BYTES":
            words = random.integers(0, 10, shape)
            inputs[tensor.name] = np.frompyfunc(lambda count: " ".join(["word"] * count), 1, 1)(words)
        elif tensor.datatype.startswith("FP"):
            inputs[tensor.name] = random.standard_normal(shape).astype(DTYPES[tensor.datatype])
        else:
            inputs[tensor.name] = random.integers(0, 2, shape).astype(DTYPES[tensor.datatype])
    return inputs


def _independent(predictor: Predictor, features: FeatureReader, signature: ModelSignature) -> bool:
    """Whether rows asked together get what they get alone."""
    inputs = probe(signature, 4, seed=1)
    counts = [1, 2, 1]
    parts = _part(predictor.predict(inputs, features), counts)
    if parts is None:
        return False
    start = 0
    for count, part in zip(counts, parts, strict=True):
        alone = predictor.predict({name: array[start : start + count] for name, array in inputs.items()}, features)
        start += count
        for name, array in alone.outputs.items():
            if array.shape != part.outputs[name].shape or not _same(array, part.outputs[name]):
                return False
    return True


def _same(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> bool:
    if one.dtype.kind != "f":
        return bool((one == other).all())
    rough = 1e-2 if one.dtype == np.float16 else 1e-4
    return np.allclose(one.astype(np.float64), other.astype(np.float64), rtol=rough, atol=rough, equal_nan=True)
