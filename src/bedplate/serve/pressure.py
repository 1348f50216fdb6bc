"""How much a replica has to do now, and whether one more request would be answered in time.

What would be answered too late is refused at once, while there is something to gain by asking another replica or later:
a queue that only grows makes everybody wait and helps nobody.
"""

import asyncio
import math
from time import perf_counter
from typing import Any

from bedplate.errors import UnavailableError
from bedplate.serve.batching import Batcher
from bedplate.serve.metrics import Metrics
from bedplate.serve.spec import ReplicaSpec

LEAST, TIMES = 1.0, 10.0
"""A request may take ten times what the requirement says of nearly all of them, and a second at least."""
WITHOUT_REQUIREMENT = 30.0
_SLOW = 0.5
"""Seconds after which a body that is still arriving is not counted as work to come."""
_LOOK = 0.02


class OverloadedError(UnavailableError):
    """More is asked at once than the replica answers in time; ``retry`` is in how many seconds it will be less."""

    code = "overloaded"

    def __init__(self, message: str, *, where: str | None = None, fix: str | None = None, retry: float = 1.0) -> None:
        super().__init__(message, where=where, fix=fix)
        self.retry = retry


class Pressure:
    """To be used from one event loop. ``arriving`` holds whose body is being received, and since when, oldest first."""

    def __init__(self, spec: ReplicaSpec, batcher: Batcher, metrics: Metrics) -> None:
        self.patience = WITHOUT_REQUIREMENT if spec.budget is None else max(LEAST, TIMES * spec.budget)
        self.arriving: dict[Any, float] = {}
        self.answering = 0
        self._most = spec.max_in_flight
        self._batcher, self._metrics = batcher, metrics
        self._stalled = 0
        self._lag = 0.0

    def wait(self) -> float:
        """Seconds after which a request that comes now would begin to be computed: what the loop and the model need
        for those before it, as measured."""
        return self._lag + self._batcher.wait()

    def admit(self, seconds: float) -> None:
        """Whether there is room for a request whose caller waits so long.

        Raises:
            OverloadedError: there is none.
        """
        if self._metrics.in_flight - self._stalled > self._most or self.answering > self._most:
            self._metrics.drop("queue")
            raise OverloadedError("too many requests are being answered", fix="try again in a second")
        wait = self.wait()
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
