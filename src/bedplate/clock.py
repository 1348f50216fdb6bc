"""The only clock. Tests freeze it with :func:`frozen`; nothing else in the package asks the system for the time."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_frozen: datetime | None = None
_second = (0, "")


def now() -> datetime:
    """The current time, in UTC and aware of it."""
    return _frozen if _frozen is not None else datetime.now(UTC)


def timestamp() -> str:
    """:func:`now` as RFC 3339 text with microseconds and ``Z``."""
    global _second
    if _frozen is not None:
        return text(_frozen)
    # Written for every prediction: most of the text is that of the one before it.
    number, microseconds = divmod(time.time_ns() // 1000, 1_000_000)
    second, start = _second
    if number != second:
        start = text(datetime.fromtimestamp(number, UTC))[:20]
        _second = number, start
    return f"{start}{microseconds:06d}Z"


def milliseconds(moment: datetime | None = None) -> int:
    """A moment, or :func:`now`, in whole milliseconds since 1970."""
    return ((now() if moment is None else moment) - _EPOCH) // timedelta(milliseconds=1)


def microseconds() -> int:
    """:func:`now` in whole microseconds since 1970, at a fifth of what a date costs: every read of features asks."""
    return time.time_ns() // 1000 if _frozen is None else (_frozen - _EPOCH) // timedelta(microseconds=1)


def of_milliseconds(milliseconds: int) -> datetime:
    """The moment so many milliseconds after the beginning of 1970."""
    return _EPOCH + timedelta(milliseconds=milliseconds)


def text(moment: datetime) -> str:
    """A moment in UTC as :func:`timestamp` writes it."""
    return f"{moment.replace(tzinfo=None).isoformat(timespec='microseconds')}Z"  # a sixth of what strftime costs


def parse(written: str) -> datetime:
    """The time that :func:`timestamp` wrote."""
    return datetime.strptime(written, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)


def monotonic() -> float:
    """Seconds from an arbitrary start that never go backwards: for durations and leases."""
    return time.monotonic()


def running() -> float:
    """Seconds that this machine has run since an arbitrary start, asleep or awake, whatever its clock was set to."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Reckoned:
    """The time for what cannot be undone: a clock that is set ahead is not believed at once.

    What the clock says, but no more than what it said plus the time that has run since. A clock that is set back is
    believed; one that is set ahead is, once it has kept to that for ``settle`` seconds, while one that runs fast never
    does. Not for several threads.
    """

    _SLACK = timedelta(seconds=60)
    """What clocks may drift meanwhile."""

    def __init__(self, settle: float = 6 * 3600, running: Callable[[], float] = running) -> None:
        self._settle, self._running = settle, running
        self._at, self._since = now(), running()
        self._ahead: tuple[timedelta, float] | None = None

    def now(self) -> datetime:
        """The time, in UTC and aware of it."""
        wall, passed = now(), self._running()
        by_length = self._at + timedelta(seconds=passed - self._since)
        ahead = wall - by_length
        if ahead > self._SLACK:
            if self._ahead is None or abs(ahead - self._ahead[0]) > self._SLACK:
                self._ahead = (ahead, passed)
            if passed - self._ahead[1] < self._settle:
                return by_length
        else:
            self._ahead = None
            if ahead > timedelta(0):
                return wall
        self._at, self._since, self._ahead = wall, passed, None
        return wall


@contextmanager
def frozen(at: datetime) -> Iterator[None]:
    """Hold :func:`now` at ``at`` within the block."""
    global _frozen
    before, _frozen = _frozen, at
    try:
        yield
    finally:
        _frozen = before
