"""Which release answers a request while another one is being rolled out, and what comes of it.

The stable release runs in this process. The candidate runs in its own and is asked over a local socket; where it fails,
refuses or is late, the stable release answers, so that a bad candidate costs nobody an error. To which release a
request was assigned stands in its log record. Counts are left in a small file each second, for whoever decides.
"""

import asyncio
import hashlib
import itertools
import math
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from functools import partial
from time import perf_counter
from typing import Any, Literal, TypeVar

import msgspec
import numpy as np

from bedplate import clock, files, ids
from bedplate.errors import BedplateError, InputError
from bedplate.ids import Digest
from bedplate.records import Exposure, ModelSignature
from bedplate.serve.candidate import CandidateError, Line
from bedplate.serve.predictors import Answer
from bedplate.serve.snapshot import Route
from bedplate.serve.tensors import Arrays, Call
from bedplate.stats.canary import Rows, Tally

T = TypeVar("T")
_SHADOWS = 16
"""Shadow copies under way at once; more are dropped and counted, so that a slow candidate never becomes a queue."""
_ALIKE = 1.25
"""How many times slower than the stable release's p95 still is not called slow."""
_MEMORY = 0.97
"""What remains each second of the latencies remembered: half of them are younger than 23 s."""


class Routed(msgspec.Struct, frozen=True):
    """An answer, who gave it, and to whom the request was assigned if there is a rollout."""

    answer: Answer
    bundle: Digest
    version: str
    evidence: Digest
    exposure: Exposure | None


class Latencies:
    """The newest latencies in cells that grow by an eighth, from a microsecond on; old ones fade."""

    def __init__(self) -> None:
        self._cells = np.zeros(192)

    def add(self, seconds: float) -> None:
        """Take one in."""
        self._cells[min(191, max(0, int(math.log2(max(seconds, 1e-6) * 1e6) * 6)))] += 1

    def fade(self) -> None:
        """A second has passed."""
        self._cells *= _MEMORY

    def p95(self) -> float:
        """The upper end of the cell that holds it; infinite while fewer than 20 are known."""
        total = self._cells.sum()
        if total < 20:
            return math.inf
        cell = int(np.searchsorted(np.cumsum(self._cells), 0.95 * total))
        return float(2 ** ((cell + 1) / 6) / 1e6)


class Router:
    """The route of one endpoint in force, and the counts of its step."""

    def __init__(self, bundle: Digest, version: str, evidence: Digest, signature: ModelSignature) -> None:
        self._stable = (bundle, version, evidence)
        self._signature = signature
        self.route: Route | None = None
        self.tally = Tally()
        self.rolled_back = 0
        """Rollouts that ended while this release went on: one let in to the end takes the place of this process."""
        self._line: Line | None = None
        self._latencies = Latencies()
        self._limit = math.inf
        self._errors, self._slow = [0, 0], [0, 0]
        self._requests = 0
        self._second = 0
        self._shadows: set[asyncio.Task[None]] = set()

    def follow(self, route: Route | None) -> None:
        """Take a route into force, from the next request on. A new step begins to count at nothing."""
        if route is not None and route.bundle == self._stable[0]:
            route = None  # this replica runs the candidate as its own release: there is nothing to share
        before = self.route
        if route == before:
            return
        if before is not None and (route is None or (before.rollout, before.step) != (route.rollout, route.step)):
            self._finish(before)
            self.tally = Tally()
            self.rolled_back += route is None
        if self._line is not None and (route is None or before is None or route.socket != before.socket):
            self._line.close()
            self._line = None
        if route is not None and self._line is None:
            self._line = Line(route.socket, self._signature)
        self.route = route

    def tick(self) -> None:
        """To be called a few times a second from the event loop."""
        second = int(clock.monotonic())
        if second == self._second:
            return
        self._second = second
        self._latencies.fade()
        self._limit = self._latencies.p95()
        if self.route is not None:
            self._finish(self.route)

    def close(self) -> None:
        """Leave the counts and hang up."""
        if self.route is not None:
            self._finish(self.route)
        if self._line is not None:
            self._line.close()

    async def answer(self, route: Route, arrays: Arrays, key: str, stable: Callable[[], Awaitable[Answer]]) -> Routed:
        """Answer a request whose split key is ``key``; ``stable`` asks the release of this process.

        Raises:
            InputError: the stable release refuses the inputs.
            BedplateError: the stable release failed, on a request that no candidate answered.
        """
        exposure, tally = _exposed(route, key), self.tally
        assigned = exposure.assigned
        if assigned == "candidate" and route.mode == "split":
            answer, failure = await self._ask(route, arrays)
            if answer is not None:
                return Routed(answer, route.bundle, route.version, route.evidence, exposure)
            answer = await self._fall_back(stable, failure, tally)
        else:
            answer = await self._stay(route, stable)
            if assigned == "candidate":
                self._copy(route, partial(self._compare, route, arrays, answer.outputs))
        return Routed(answer, *self._stable, exposure)

    async def stream(
        self, route: Route, arrays: Arrays, key: str, seconds: float, stable: Callable[[], AsyncGenerator[Answer]]
    ) -> AsyncGenerator[Routed]:
        """The same for an answer in pieces, which has ``seconds``: whichever release begins goes on to the end.

        What counts as its time is that until the first piece. A shadow gets its copy when the stable release came to
        the end: what it says in all is compared, piece by piece.

        Raises:
            InputError: the stable release refuses the inputs, before the first piece.
            BedplateError: the release that began did not come to the end.
        """
        exposure, tally = _exposed(route, key), self.tally
        failure = ""
        if exposure.assigned == "candidate" and route.mode == "split":
            begun, pieces = False, self._pieces(route, arrays, seconds)
            try:
                async for piece in pieces:
                    begun = True
                    yield Routed(piece, route.bundle, route.version, route.evidence, exposure)
                return
            except CandidateError as error:
                failure = error.reason
                if begun:  # what was sent cannot be taken back: the caller sees this one
                    self._blame(tally, failure)
                    raise
            finally:
                await pieces.aclose()
        stayed, said = _First(stable()), list[Arrays]()
        try:
            await (self._fall_back(stayed.begin, failure, tally) if failure else self._stay(route, stayed.begin))
            async for piece in stayed.all():
                if exposure.assigned == "candidate" and not failure:
                    said.append(piece.outputs)
                yield Routed(piece, *self._stable, exposure)
            if said:
                self._copy(route, partial(self._compare_pieces, route, arrays, said, seconds))
        except InputError:
            raise
        except BedplateError:
            if stayed.begun and not failure:
                tally.stable.errors += 1
                self._errors[0] += 1
            raise
        finally:
            await stayed.pieces.aclose()

    # -------------------------------------------------------------------------------------------- the two releases

    async def _ask(self, route: Route, arrays: Arrays) -> tuple[Answer | None, str]:
        """The candidate's answer, or why there is none."""
        line, tally = self._line, self.tally
        assert line is not None, "a route in force has a line"
        self._requests += 1
        tally.candidate.requests += 1
        try:
            answer, seconds = await line.ask(arrays, route.patience)
        except CandidateError as error:
            return None, error.reason
        self._took(tally, route, seconds)
        return answer, ""

    async def _pieces(self, route: Route, arrays: Arrays, seconds: float) -> AsyncGenerator[Answer]:
        """The candidate's answer in pieces."""
        line, tally = self._line, self.tally
        assert line is not None, "a route in force has a line"
        self._requests += 1
        tally.candidate.requests += 1
        first, pieces = True, line.stream(arrays, route.patience, seconds)
        try:
            async for piece, took in pieces:
                if first:
                    self._took(tally, route, took)
                    first = False
                yield piece
        finally:
            await pieces.aclose()

    def _took(self, tally: Tally, route: Route, seconds: float) -> None:
        """The candidate answered in this time."""
        tally.candidate.seconds += seconds
        if seconds > self._limit * _ALIKE + route.slack:
            tally.candidate.slow += 1
            self._slow[1] += 1

    async def _fall_back(self, stable: Callable[[], Awaitable[T]], failure: str, tally: Tally) -> T:
        """The stable release's answer in the candidate's place; ``tally`` is of the step in which that was asked."""
        try:
            answer = await stable()
        except InputError:
            if failure != "refused":
                self._blame(tally, failure)
            raise  # both refuse it: the request is at fault
        except Exception:
            self._blame(tally, failure)
            raise
        self._blame(tally, failure)
        return answer

    def _blame(self, tally: Tally, failure: str) -> None:
        tally.candidate.errors += 1
        tally.reasons[failure] = tally.reasons.get(failure, 0) + 1
        if tally is self.tally:  # a step is not judged by what the one before it asked
            self._errors[1] += 1

    async def _stay(self, route: Route, stable: Callable[[], Awaitable[T]]) -> T:
        tally = self.tally
        tally.stable.requests += 1
        self._requests += 1
        started = perf_counter()
        try:
            answer = await stable()
        except InputError:
            raise
        except Exception:
            tally.stable.errors += 1
            self._errors[0] += 1
            raise
        seconds = perf_counter() - started
        tally.stable.seconds += seconds
        if seconds > self._limit:
            tally.stable.slow += 1
            self._slow[0] += 1
        if seconds > route.patience:  # what would have been an error of the candidate is one here as well
            tally.stable.errors += 1
            self._errors[0] += 1
        self._latencies.add(seconds)
        return answer

    def _copy(self, route: Route, copy: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Have the candidate answer as well, after the caller has its answer."""
        if len(self._shadows) >= _SHADOWS:
            self.tally.dropped += 1
            return

        async def later() -> None:
            now = self.route
            if now is not None and (now.rollout, now.step) == (route.rollout, route.step):  # else that has ended
                await copy()

        task = asyncio.create_task(later())
        self._shadows.add(task)
        task.add_done_callback(self._shadows.discard)

    async def _compare(self, route: Route, arrays: Arrays, outputs: Arrays) -> None:
        tally = self.tally
        answer, failure = await self._ask(route, arrays)
        if answer is None:
            self._blame(tally, failure)
        else:
            compare(tally.rows, outputs, answer.outputs, route.tolerance)

    async def _compare_pieces(self, route: Route, arrays: Arrays, said: list[Arrays], seconds: float) -> None:
        tally, pieces, others = self.tally, self._pieces(route, arrays, seconds), list[Arrays]()
        try:
            async for piece in pieces:
                others.append(piece.outputs)
                if len(others) > len(said):  # it says more: how much more does not matter
                    break
        except CandidateError as error:
            self._blame(tally, error.reason)
            return
        finally:
            await pieces.aclose()
        for mine, other in itertools.zip_longest(said, others[: len(said)], fillvalue=dict[str, Any]()):
            compare(tally.rows, mine, other, route.tolerance)
        if len(others) > len(said):
            tally.rows.compared += 1
            tally.rows.different += 1

    # ------------------------------------------------------------------------------------------------------- counts

    def _finish(self, route: Route) -> None:
        """Close the second, and leave the counts where the owner looks; what cannot be written is written next time."""
        for events, (stable, candidate) in ((self.tally.errors, self._errors), (self.tally.slow, self._slow)):
            events.second(candidate, stable + candidate, self._requests)
        self._errors, self._slow, self._requests = [0, 0], [0, 0], 0
        path = route.tallies / f"{route.step}-{os.getpid()}.json"
        temporary = path.with_suffix(".tmp")
        try:
            temporary.write_bytes(msgspec.json.encode(self.tally))
            temporary.replace(path)
        except OSError:
            files.discard(temporary)


class _First:
    """An answer in pieces whose first one is waited for apart."""

    def __init__(self, pieces: AsyncGenerator[Answer]) -> None:
        self.pieces = pieces
        self.begun = False
        self._first: Answer | None = None

    async def begin(self) -> None:
        """Wait for the first piece, if there is one."""
        self._first = await anext(self.pieces, None)
        self.begun = True

    async def all(self) -> AsyncGenerator[Answer]:
        """Every piece."""
        if self._first is not None:
            yield self._first
            async for piece in self.pieces:
                yield piece


def _exposed(route: Route, key: str) -> Exposure:
    """To which release a request of this split key is assigned."""
    split = position(route.salt, key)
    assigned: Literal["stable", "candidate"] = "candidate" if split < route.share else "stable"
    return Exposure(
        rollout=route.rollout, step=route.step, mode=route.mode, share=route.share, split=split, assigned=assigned
    )


def split_key(route: Route, call: Call) -> str:
    """What a request is assigned by: the first value of the route's key, or nothing that another request has."""
    array = call.arrays.get(route.key) if route.key else None
    return ids.new_id("split") if array is None or not array.size else str(array.ravel()[0])


def position(salt: str, key: str) -> float:
    """Where a key lies in [0, 1): the same for the same salt and key, and independent between salts."""
    digest = hashlib.blake2b(key.encode("utf-8", "replace"), digest_size=8, key=salt.encode()[:64]).digest()
    return (int.from_bytes(digest, "big") >> 11) / (1 << 53)


def compare(rows: Rows, stable: Arrays, candidate: Arrays, tolerance: float) -> None:
    """Take the difference of two answers to the same rows into ``rows``: by row, and of all numbers by value."""
    count = max((len(array) if array.ndim else 1 for array in stable.values()), default=0)
    differs = np.zeros(count, dtype=bool)
    for name, mine in stable.items():
        other = candidate.get(name)
        if other is None or other.shape != mine.shape:
            differs[:] = True
            continue
        if mine.dtype.kind in "fiub":
            a, b = mine.astype(np.float64), other.astype(np.float64)
            apart = b - a
            unequal = np.abs(apart) > tolerance * np.maximum(np.abs(a), np.abs(b))
            rows.values += apart.size
            rows.difference += float(apart.sum())
            rows.distance += float(np.abs(apart).sum())
            rows.largest = max(rows.largest, float(np.abs(apart).max(initial=0.0)))
        else:
            unequal = np.asarray(mine != other)
        by_row = unequal.reshape(len(mine), -1).any(axis=1) if mine.ndim else unequal.reshape(1)
        if by_row.size == count:
            differs |= by_row
    rows.compared += count
    rows.different += int(differs.sum())
