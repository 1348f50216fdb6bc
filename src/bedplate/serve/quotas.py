"""How much one principal may ask of an endpoint, counted together by all of its replicas.

What was asked stands in one small memory-mapped file of the endpoint, which all of its replicas share. Locking it for
each request would cost more than the whole check of a key, so a replica takes some requests out of it at a time, grants
them from memory, and gives back what it did not grant a fifth of a second later. What was taken out is gone for the
others: together they never grant more than the quota, and at worst an eighth of what is left is held where nobody asks.
"""

import datetime
import fcntl
import hashlib
import math
import mmap
import os
import struct
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

from bedplate import clock, files
from bedplate.errors import InputError, QuotaError, StorageError, UnavailableError
from bedplate.policy.values import Principal
from bedplate.records import Quota, Unit
from bedplate.serve.snapshot import Quotas

N = TypeVar("N", int, float)

FILE = "quotas.counts"
"""The name of the file, which lies beside the prediction log of the endpoint."""
SLOTS = 16_384
"""Principals that one file has room for. Who asked for nothing in this month makes room for others."""
WINDOWS = ("rate", "day", "month")
_MOST = 256
"""The most requests that a replica takes out at a time."""
_PART = 8
_SECONDS = {"day": 86_400, "month": 30 * 86_400}

# Who (a hash), tokens and when they were that many, then the number of the day and of the month with their counts.
_SLOT = struct.Struct("<16sddQQQQ")
_EMPTY = bytes(16)


class Used(msgspec.Struct, frozen=True):
    """Requests that a principal was granted in this day and month of UTC."""

    day: int
    month: int


class Counts:
    """The shared file of one endpoint. To be used from one thread; ``monotonic`` is for tests.

    Raises:
        StorageError: the disk is full or refuses.
    """

    def __init__(self, path: Path, monotonic: Callable[[], float] = clock.monotonic) -> None:
        self.monotonic = monotonic
        size = SLOTS * _SLOT.size
        try:
            files.make_folder(path.parent)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                if os.fstat(self._file).st_size < size:
                    os.posix_fallocate(self._file, 0, size)  # a hole that cannot be filled would end the process
                self._map = mmap.mmap(self._file, size)
            except BaseException:
                os.close(self._file)
                raise
        except OSError as error:
            raise StorageError(f"quotas cannot be counted: {error.strerror}", where=str(path)) from error

    def close(self) -> None:
        """Let go of the file."""
        self._map.close()
        os.close(self._file)

    def take(self, who: bytes, slot: int, quota: Quota, least: int = 1) -> tuple[int, int, str, float]:
        """Take some out, as many as are worth a lock, but ``least`` or none.

        ``slot`` is where it was found last, -1 at first. Gives the slot and how many there are; if none, the window
        that is used up and the seconds until it is not.
        """
        with _Lock(self._file):  # the time as well: who waited for the lock would refill what was refilled already
            now, (day, month) = self.monotonic(), _numbers()
            slot = self._find(who, slot, month)
            tokens, today, this_month = self._read(slot, quota, now, day, month)
            left = {"rate": tokens, "day": _left(quota.day, today), "month": _left(quota.month, this_month)}
            window = min(left, key=left.__getitem__)
            count = 0
            if left[window] >= least:
                count = int(max(least, min(left[window] // _PART, _MOST)))
            self._write(slot, who, tokens - count, now, day, today + count, month, this_month + count)
        if count:
            return slot, count, "", 0.0
        wait = (least - tokens) / quota.rate if window == "rate" and quota.rate else _until_next(window)
        return slot, 0, window, wait

    def give_back(self, who: bytes, slot: int, quota: Quota, count: int) -> None:
        """Put back what was taken out and not granted. What was taken out on the day before stays counted there."""
        with _Lock(self._file):
            now, (day, month) = self.monotonic(), _numbers()
            slot = self._find(who, slot, month)
            tokens, today, this_month = self._read(slot, quota, now, day, month)
            tokens = min(_burst(quota), tokens + count)
            self._write(slot, who, tokens, now, day, max(0, today - count), month, max(0, this_month - count))

    def used(self) -> Iterator[tuple[bytes, Used]]:
        """What was granted in this day and month, by principal as :func:`name` names them."""
        day, month = _numbers()
        for start in range(0, SLOTS * _SLOT.size, _SLOT.size):
            who, _, _, its_day, today, its_month, this_month = _SLOT.unpack_from(self._map, start)
            if who != _EMPTY:
                yield who, Used(today if its_day >= day else 0, this_month if its_month >= month else 0)

    def _find(self, who: bytes, slot: int, month: int) -> int:
        """Where a principal is counted; a slot is made for one that has none."""
        if slot >= 0 and self._map[slot : slot + 16] == who:
            return slot
        stale = -1
        first = int.from_bytes(who[:4], "little") % SLOTS
        for number in range(first, first + SLOTS):
            start = number % SLOTS * _SLOT.size
            there, _, _, _, _, its_month, _ = _SLOT.unpack_from(self._map, start)
            if there == who:
                return start
            if there == _EMPTY:
                return start if stale < 0 else self._clear(stale)
            if stale < 0 and its_month < month:
                stale = start
        if stale < 0:
            raise UnavailableError("there is no room to count quotas", fix="ask the operator of the endpoint")
        return self._clear(stale)

    def _clear(self, start: int) -> int:
        self._map[start : start + _SLOT.size] = bytes(_SLOT.size)
        return start

    def _read(self, slot: int, quota: Quota, now: float, day: int, month: int) -> tuple[float, int, int]:
        """Tokens now, and what was granted in this day and month. A clock that is set back resets nothing."""
        who, tokens, stamp, its_day, today, its_month, this_month = _SLOT.unpack_from(self._map, slot)
        if who == _EMPTY or quota.rate is None:
            tokens = _burst(quota)
        else:
            tokens = min(_burst(quota), tokens + max(0.0, now - stamp) * quota.rate)
        return tokens, today if its_day >= day else 0, this_month if its_month >= month else 0

    def _write(
        self, slot: int, who: bytes, tokens: float, now: float, day: int, today: int, month: int, this_month: int
    ) -> None:
        _, _, _, its_day, _, its_month, _ = _SLOT.unpack_from(self._map, slot)
        kept = 0.0 if math.isinf(tokens) else tokens
        _SLOT.pack_into(self._map, slot, who, kept, now, max(day, its_day), today, max(month, its_month), this_month)


class Meter:
    """What one principal may still ask, in ``unit``. :meth:`take` costs a comparison, and a lock now and then."""

    __slots__ = (
        "_closed_for",
        "_closed_until",
        "_counts",
        "_held",
        "_refusal",
        "_slot",
        "_taken",
        "_who",
        "left",
        "name",
        "quota",
        "refused",
        "unit",
    )

    def __init__(
        self, principal: Principal, quota: Quota, counts: Counts, held: set["Meter"], unit: Unit = "requests"
    ) -> None:
        self.name, self.quota, self.unit = principal.name, quota, unit
        self.left = 0
        self.refused = dict.fromkeys(WINDOWS, 0)
        self._who, self._slot = name(principal.id), -1
        self._counts, self._held = counts, held
        self._closed_until, self._closed_for, self._refusal = 0.0, 1, ("", 0.0)
        self._taken = 0

    @property
    def granted(self) -> int:
        """What was granted here."""
        return self._taken - self.left

    def take(self, count: int = 1) -> None:
        """Grant one request, or so many more of what is counted.

        Raises:
            QuotaError: it is more than there is now.
            UnavailableError: it cannot be counted.
        """
        if self.left >= count:
            self.left -= count
            return
        now = self._counts.monotonic()
        if now < self._closed_until and count >= self._closed_for:  # whoever goes on asking costs no lock
            self._refuse(self._refusal[0], self._closed_until - now)
        self._slot, taken, window, wait = self._counts.take(self._who, self._slot, self.quota, count - self.left)
        if not taken:
            self._closed_until, self._closed_for, self._refusal = now + min(wait, 1.0), count, (window, wait)
            self._refuse(window, wait)
        self._taken += taken
        self.left += taken - count
        if self.left:
            self._held.add(self)

    def charge(self, count: int) -> None:
        """Grant the rest of a request that holds ``count`` of what is counted; one was granted when it was let in.

        Raises:
            InputError: it is more than is ever granted at once.
            QuotaError, UnavailableError: as :meth:`take`.
        """
        quota = self.quota
        most = min(_burst(quota), *(math.inf if part is None else part for part in (quota.day, quota.month)))
        if count > most:
            raise InputError(
                f"{count:,} {self.unit} in one request are more than the quota of {self.name} grants at once",
                fix=f"send {most:,.0f} at most",
            )
        if count > 1:
            self.take(count - 1)

    def follow(self, quota: Quota) -> None:
        """Go by another quota from the next request on."""
        if quota != self.quota:
            self.give_back()
            self.quota, self._closed_until = quota, 0.0

    def give_back(self) -> None:
        """Let other replicas have what was not asked for here."""
        if self.left:
            self._counts.give_back(self._who, self._slot, self.quota, self.left)
            self._taken -= self.left
            self.left = 0

    def _refuse(self, window: str, wait: float) -> None:
        self.refused[window] += 1
        quota = self.quota
        most, seconds, words = int(min(_burst(quota), sys.maxsize)), 1, f"{quota.rate or 0:g} {self.unit} a second"
        if window != "rate":
            most = (quota.day if window == "day" else quota.month) or 0
            seconds, words = _SECONDS[window], f"{most:,} {self.unit} a {window}"
            wait = _until_next(window)
        raise QuotaError(
            f"{self.name} asks for more than {words}",
            fix=f"ask again in {math.ceil(wait)} s",
            window=window,
            quota=most,
            seconds=seconds,
            retry=wait,
        )


class Meters:
    """The meters of one endpoint in one replica. ``default`` is the quota of its file, for whom no other one is given.

    All count ``unit``. The file is made when the first principal with a quota comes: an endpoint without quotas has
    none.
    """

    def __init__(self, path: Path, default: Quota, unit: Unit = "requests") -> None:
        self._path, self._default, self.unit = path, default, unit
        self._quotas = Quotas()
        self._counts: Counts | None = None
        self._meters: dict[str, Meter] = {}
        self._held: set[Meter] = set()

    def follow(self, quotas: Quotas) -> None:
        """Take other quotas into force; what was asked so far stays counted."""
        self._quotas = quotas

    def of(self, principal: Principal) -> Meter | None:
        """The meter of a principal; None if nothing bounds it.

        Raises:
            UnavailableError: it cannot be counted.
        """
        quota = of(principal, self._quotas, self._default)
        meter = self._meters.get(principal.id)
        if quota == Quota():
            return None
        if meter is None:
            if self._counts is None:
                try:
                    self._counts = Counts(self._path)
                except StorageError as error:
                    raise UnavailableError(error.message, where=error.where, fix="ask the operator") from error
            meter = self._meters[principal.id] = Meter(principal, quota, self._counts, self._held, self.unit)
        meter.follow(quota)
        return meter

    def granted(self) -> Iterator[tuple[str, int]]:
        """Principal, and how many of its requests were granted here."""
        for meter in self._meters.values():
            yield meter.name, meter.granted

    def refused(self) -> Iterator[tuple[str, str, int]]:
        """Principal, window, and how often it was used up here."""
        for meter in self._meters.values():
            for window, count in meter.refused.items():
                if count:
                    yield meter.name, window, count

    def tick(self) -> None:
        """Give back what was not asked for since the last time; to be called a few times a second."""
        while self._held:
            self._held.pop().give_back()

    def close(self) -> None:
        """Give everything back."""
        self.tick()
        if self._counts is not None:
            self._counts.close()
            self._counts = None
            self._meters.clear()


def of(principal: Principal, quotas: Quotas, default: Quota) -> Quota:
    """The quota of a principal: its own, else the most that one of its groups has, else that of the file."""
    own = quotas.principals.get(principal.id)
    if own is not None:
        return own
    groups = [quotas.groups[group] for group in principal.groups if group in quotas.groups]
    if not groups:
        return default
    return Quota(
        rate=_most([quota.rate for quota in groups]),
        burst=_most([None if math.isinf(burst := _burst(quota)) else int(burst) for quota in groups]),
        day=_most([quota.day for quota in groups]),
        month=_most([quota.month for quota in groups]),
    )


def name(principal: str) -> bytes:
    """The name under which a principal's id is counted."""
    return hashlib.blake2b(principal.encode(), digest_size=16).digest()


def _most(values: Sequence[N | None]) -> N | None:
    given = [value for value in values if value is not None]
    return max(given) if len(given) == len(values) else None


def _burst(quota: Quota) -> float:
    if quota.rate is None:
        return math.inf
    return float(quota.burst if quota.burst is not None else max(1, math.ceil(quota.rate)))


def _left(quota: int | None, used: int) -> float:
    return math.inf if quota is None else quota - used


def _numbers() -> tuple[int, int]:
    """The number of this day and of this month of UTC."""
    now = clock.now()
    return now.toordinal(), 12 * now.year + now.month


def _until_next(window: str) -> float:
    now = clock.now()
    start = now.replace(hour=0, minute=0, second=0, microsecond=0)
    next_day = start + datetime.timedelta(days=1)
    if window == "month":
        next_day = (start.replace(day=1) + datetime.timedelta(days=32)).replace(day=1)
    return (next_day - now).total_seconds()


class _Lock:
    """The file, for this process alone; held for some microseconds."""

    __slots__ = ("_file",)

    def __init__(self, file: int) -> None:
        self._file = file

    def __enter__(self) -> None:
        fcntl.flock(self._file, fcntl.LOCK_EX)

    def __exit__(self, *error: object) -> None:
        fcntl.flock(self._file, fcntl.LOCK_UN)
