"""The only clock. Tests freeze it with :func:`frozen`; nothing else in the package asks the system for the time."""

import time
from collections.abc import Iterator
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


@contextmanager
def frozen(at: datetime) -> Iterator[None]:
    """Hold :func:`now` at ``at`` within the block."""
    global _frozen
    before, _frozen = _frozen, at
    try:
        yield
    finally:
        _frozen = before
