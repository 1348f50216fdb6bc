"""How much a replica has to do now, and whether one more request would be answered in time.

What would be answered too late is refused at once, while there is something to gain by asking another replica or later:
a queue that only grows makes everybody wait and helps nobody.
"""

import asyncio
import math
from time import perf_counter
from typing import Any

from bedplate.errors import UnavailableError
from bedplate.http.turns import Turns
from bedplate.serve.batching import Batcher
from bedplate.serve.metrics import Metrics
from bedplate.serve.spec import ReplicaSpec

LEAST, TIMES = 1.0, 10.0
"""A request may take ten times what the requirement says of nearly all of them, and a second at least."""
WITHOUT_REQUIREMENT = 30.0
_SLOW = 0.5
"""Seconds after which a body that is still arriving is not counted as work to come."""
_LOOK = 0.02
_TIMES_FREE = 4
"""How many times what is free one principal may hold."""


class OverloadedError(UnavailableError):
    """More is asked at once than the replica answers in time; ``retry`` is in how many seconds it will be less."""

    code = "overloaded"

    def __init__(self, message: str, *, where: str | None = None, fix: str | None = None, retry: float = 1.0) -> None:
        super().__init__(message, where=where, fix=fix)
        self.retry = retry


class Share:
    """Places that principals share: who holds much leaves some to others, who holds little finds one.

    Nobody takes another place who holds four times as many as are free (the threshold of Choudhury & Hahne, *Dynamic
    Queue Length Thresholds for Shared-Memory Packet Switches*, 1998): one that asks alone has four fifths of them.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._held: dict[str, int] = {}
        self.total = 0

    def free(self, who: str, *, taken: int = 0, more: int = 0) -> bool:
        """Whether this principal may take one more, where ``taken`` are taken at least, and holds ``more`` beside."""
        return self._held.get(who, 0) + more < _TIMES_FREE * (self._most - max(taken, self.total))

    def take(self, who: str) -> None:
        """One more is this principal's."""
        self._held[who] = self._held.get(who, 0) + 1
        self.total += 1

    def give(self, who: str) -> None:
        """One less is."""
        left = self._held.pop(who) - 1
        if left:
            self._held[who] = left
        self.total -= 1


class Pressure:
    """To be used from one event loop. ``arriving`` holds whose body is being received, and since when, oldest first;
    ``answering`` counts whose requests are computed or wait for that."""

    def __init__(self, spec: ReplicaSpec, batcher: Batcher, metrics: Metrics, turns: Turns) -> None:
        self.patience = WITHOUT_REQUIREMENT if spec.budget is None else max(LEAST, TIMES * spec.budget)
        self.arriving: dict[Any, float] = {}
        self.answering = Share(spec.max_in_flight)
        self._batcher, self._metrics, self._turns = batcher, metrics, turns
        self._stalled = 0
        self._lag = 0.0

    def wait(self, who: str = "") -> float:
        """Seconds after which a request of this principal that comes now would begin to be computed: what the loop and
        the model need for those before it, as measured."""
        return self._lag + self._batcher.wait(who)

    def admit(self, seconds: float, who: str) -> None:
        """Whether there is room for a request of this principal, which waits so long.

        Raises:
            OverloadedError: there is none.
        """
        others = self._metrics.in_flight - 1 - self._stalled
        if not self.answering.free(who, taken=others, more=self._turns.held(who)):
            self._metrics.drop("queue")
            raise OverloadedError("too many requests are being answered", fix="try again in a second")
        wait = self.wait(who)
        if wait > seconds or wait > self.patience:
            self._metrics.drop("wait")
            raise OverloadedError(
                f"the answer would come too late: {wait * 1e3:.0f} ms to wait for others",
                fix=f"try again in {math.ceil(wait)} s",
                retry=wait,
            )

    async def watch(self) -> None:
        """Look fifty times a second at how late the loop is, and whose body does not come; until cancelled."""
        while True:
            before = perf_counter()
            await asyncio.sleep(_LOOK)
            now = perf_counter()
            self._lag = max(0.0, now - before - 2 * _LOOK)  # a timer that is late by less says nothing
            stalled = 0
            for since in self.arriving.values():
                if now - since < _SLOW:
                    break
                stalled += 1
            self._stalled = stalled
