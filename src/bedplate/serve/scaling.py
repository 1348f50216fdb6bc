"""How many replicas an endpoint needs: a law of what its replicas tell, of the clock, and of nothing else.

More at once, fewer slowly. A replica too many costs memory for a minute; one too few costs everybody the queue.
"""

import math
import time
from collections import deque
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Annotated, Literal
from zoneinfo import ZoneInfo

import msgspec

from bedplate import clock

Count = Annotated[int, msgspec.Meta(ge=0)]
Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
DAYS: tuple[Day, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")

FULL, EASED = 0.7, 0.5
"""Share of its processor time, or of :data:`TOGETHER`, above which a replica has too much; and below which the others
would have to stay if it went. The gap keeps a steady load from adding and removing the same replica for ever."""
TOGETHER = 16.0
"""Requests that one replica may have in flight on average."""
LATE = 0.05
"""Seconds that a busy replica may keep a request waiting before it is read."""
UP_SECONDS, DOWN_SECONDS = 1.0, 60.0
"""How long the load must ask for more, and how long nothing may have asked for as many as there are."""
_SMOOTH = 0.3


class Shift(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """At least ``min`` replicas on ``days`` from ``start`` to ``end``: ``HH:MM``, the next day if not later."""

    start: str = msgspec.field(name="from")
    end: str = msgspec.field(name="to")
    min: Count
    days: tuple[Day, ...] = DAYS

    def holds(self, moment: datetime) -> bool:
        """Whether ``moment``, on the clock of the schedule, lies within. A night belongs to the day it begins on."""
        hour = moment.strftime("%H:%M")
        today = DAYS[moment.weekday()] in self.days
        if self.start < self.end:
            return today and self.start <= hour < self.end
        yesterday = DAYS[(moment - timedelta(days=1)).weekday()] in self.days
        return (today and hour >= self.start) or (yesterday and hour < self.end)


class Scale(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How many replicas an endpoint has; with ``min`` 0 it has none after ``idle`` seconds without a request."""

    min: Count = 1
    max: Annotated[int, msgspec.Meta(ge=1)] = 1
    idle: float = 300.0
    zone: str = "UTC"
    schedule: tuple[Shift, ...] = ()

    def least(self, moment: datetime) -> int:
        """The fewest replicas at a moment (aware of its zone): the most that ``min`` and the schedule ask for."""
        local = moment.astimezone(ZoneInfo(self.zone)) if self.schedule else moment
        return min(self.max, max(self.min, *(shift.min for shift in self.schedule if shift.holds(local)), 0))


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """What one replica tells a few times a second.

    ``in_flight``: requests being answered. ``busy``: seconds of processor time per second. ``waited``: how many seconds
    late its event loop was, which is what a request waits before it is read. Since its start: ``predictions`` answered,
    ``late`` ones among them that took longer than the use case allows, and ``faults``, which got no answer but a status
    of 500 or above.
    """

    in_flight: float
    busy: float
    waited: float
    predictions: int
    late: int = 0
    faults: int = 0


class Meter:
    """The load of this process, over about the last second; to be asked a few times a second."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, float]] = deque([(clock.monotonic(), time.process_time())], maxlen=6)
        self._in_flight = 0.0

    def read(self, in_flight: int, waited: float, predictions: int, late: int = 0, faults: int = 0) -> Load:
        """The load now, from what happens now: requests in flight, and how late the event loop was."""
        now, used = clock.monotonic(), time.process_time()
        then, before = self._seen[0]
        self._seen.append((now, used))
        self._in_flight += _SMOOTH * (in_flight - self._in_flight)
        busy = (used - before) / max(now - then, 1e-3)
        return Load(
            in_flight=self._in_flight, busy=busy, waited=waited, predictions=predictions, late=late, faults=faults
        )


class Scaler:
    """The law for one endpoint, with the memory that keeps it from flapping."""

    def __init__(self) -> None:
        self._asked_since: float | None = None
        self._needs: deque[tuple[float, int]] = deque()

    def forget(self) -> None:
        """Begin anew: what was seen was seen of other replicas."""
        self._asked_since = None
        self._needs.clear()

    def wanted(self, scale: Scale, now: float, moment: datetime, have: int, loads: Sequence[Load], idle: float) -> int:
        """How many replicas there should be, where ``have`` are wanted until now and the ready ones tell ``loads``.

        ``now`` is a monotonic time and ``moment`` the time of day; nothing was asked for ``idle`` seconds.
        """
        least = scale.least(moment)
        if least == 0 and (have == 0 or idle >= scale.idle):
            self.forget()
            return 0
        up, stay = _needed(loads, FULL), _needed(loads, EASED)
        if loads and max(load.waited for load in loads) > LATE and _busy(loads) > EASED * len(loads):
            up = max(up, have + 1)
        self._needs.append((now, max(up, stay)))
        while now - self._needs[0][0] > DOWN_SECONDS:
            self._needs.popleft()
        target = have
        if up > have:
            self._asked_since = now if self._asked_since is None else self._asked_since
            if now - self._asked_since >= UP_SECONDS and len(loads) >= have:  # those on their way have to count first
                target, self._asked_since = up, None
        else:
            self._asked_since = None
            recent = max(need for _, need in self._needs)
            if recent < have and self._watched(now):
                target = recent
        return min(scale.max, max(1, least, target))

    def _watched(self, now: float) -> bool:
        """Whether the load was watched long enough to take a replica away."""
        return now - self._needs[0][0] >= DOWN_SECONDS * 0.9


def _needed(loads: Sequence[Load], share: float) -> int:
    together = sum(load.in_flight for load in loads) / TOGETHER
    return math.ceil(max(_busy(loads), together) / share - 1e-9)


def _busy(loads: Sequence[Load]) -> float:
    return sum(load.busy for load in loads)
