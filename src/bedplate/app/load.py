"""A load run against an endpoint of this machine: what its clients would see, with an interval on the p99.

Closed loop (no ``rate``): each connection sends the next request when the last was answered. Open loop (``rate`` per
second): requests are due at fixed times, and latency counts from when a request was *due*, so a server that stalls is
not spared the requests that would have come meanwhile; those that found no free connection before the end are
counted too. Requests are framed before the clock starts, and connections speak HTTP/1.1 over plain asyncio streams:
the client costs about a tenth of a millisecond a request.
"""

import asyncio
import math
import subprocess
import sys
from array import array
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby, takewhile
from typing import Any
from urllib.parse import urlsplit

import msgspec
from scipy import stats

from bedplate import clock
from bedplate.app import load_null
from bedplate.errors import InputError, UnavailableError
from bedplate.records import Estimate, LoadMoment, LoadTest

_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_LEVEL = 0.95
_PATIENCE = 10.0
"""Seconds after which an unanswered request counts as failed."""
_SPIN = 0.0015
"""The last seconds before a request is due are not slept but looked at: timers are late by a millisecond."""
_LONGEST = 60.0
ENOUGH = 400
"""Answers from which on the 99th percentile has an upper end, with some to spare (:func:`interval`)."""
_PARTS = 60
"""The most parts that ``over_time`` has."""
_SHARES = (0.0, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.995, 0.999, 0.9999, 1.0)
_ASKED_FOR = (0.5, 0.9, 0.99, 0.999)

OnLook = Callable[[float, int, int], None]
"""Called each second with the seconds gone, the requests answered and those failed."""


def run(
    url: str,
    model: str,
    inputs: Sequence[dict[str, Any]],
    *,
    seconds: float,
    connections: int,
    rate: float | None = None,
    key: str,
    limit_p99_ms: float = math.inf,
    least: int = 0,
    on_look: OnLook | None = None,
) -> LoadTest:
    """Send the infer requests ``inputs`` (Open Inference Protocol bodies, taken in turn) for ``seconds``.

    Where no rate is given it goes on until ``least`` were answered, for a minute at most: a slow model has to show
    enough as well. ``limit_p99_ms`` is met when the whole interval of the p99 lies at or below it, and every request
    that was due was sent and answered.

    Raises:
        InputError: ``url`` is not on this machine, or there is nothing to send.
        UnavailableError: nothing listens there, or no request was answered.
    """
    parts = urlsplit(url)
    if parts.scheme != "http" or parts.hostname not in _LOOPBACK or parts.port is None:
        raise InputError(
            "a load run goes to an address of this machine only", where=url, fix="use http://127.0.0.1:port"
        )
    if not inputs or connections < 1 or seconds <= 0 or (rate is not None and rate <= 0):
        raise InputError("a load run needs requests, connections and time", fix="give at least one of each")
    requests = [_frame(parts.netloc, model, key, body) for body in inputs]
    session = _Session(parts.hostname, parts.port, requests, seconds, rate, least)
    elapsed = asyncio.run(session.run(connections, on_look))
    return _result(session, elapsed, connections, limit_p99_ms)


def _frame(host: str, model: str, key: str, body: dict[str, Any]) -> bytes:
    data = msgspec.json.encode(body)
    head = (
        f"POST /v2/models/{model}/infer HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {key}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(data)}\r\n\r\n"
    )
    return head.encode() + data


class _Session:
    """One load run. Times in seconds; ``starts`` holds when each answered request began to count, from the start on.

    Every latency is kept as it is: 16 bytes an answer, and percentiles without the error of a histogram.
    """

    def __init__(
        self, host: str, port: int, requests: list[bytes], seconds: float, rate: float | None, least: int
    ) -> None:
        self._host, self._port, self._requests = host, port, requests
        self._seconds, self._rate, self._least = seconds, rate, least
        self.latencies, self.starts, self.lags = array("d"), array("d"), array("d")
        self.failed = self.unsent = 0
        self._start = 0.0
        self._turn = self._turns()

    def _turns(self) -> Iterator[tuple[float, bytes]]:
        """When each request is due (0: as soon as a connection is free), and what it is."""
        number = 0
        while True:
            due = self._start + number / self._rate if self._rate else 0.0
            yield due, self._requests[number % len(self._requests)]
            number += 1

    @property
    def open(self) -> bool:
        """Whether requests are due at fixed times."""
        return self._rate is not None

    async def run(self, connections: int, on_look: OnLook | None = None) -> float:
        try:
            streams = [await asyncio.open_connection(self._host, self._port) for _ in range(connections)]
        except OSError as error:
            raise UnavailableError("nothing listens there", where=f"{self._host}:{self._port}") from error
        self._start = clock.monotonic()
        looking = asyncio.create_task(self._look(on_look)) if on_look is not None else None
        try:
            await asyncio.gather(*(self._connection(*pair) for pair in streams))
        finally:
            if looking is not None:
                looking.cancel()
        elapsed = clock.monotonic() - self._start
        if self.open:  # what was due and no connection ever came to
            self.unsent += sum(1 for _ in takewhile(lambda turn: turn[0] < self._start + self._seconds, self._turn))
        return elapsed

    async def _look(self, on_look: OnLook) -> None:
        while True:
            await asyncio.sleep(1.0)
            on_look(clock.monotonic() - self._start, len(self.latencies), self.failed)

    async def _until(self, due: float) -> None:
        """Wait until ``due``, and note how late that became."""
        while (left := due - clock.monotonic()) > 0:
            await asyncio.sleep(max(0.0, left - _SPIN))
        self.lags.append(-left)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        end, last = self._start + self._seconds, self._start + max(self._seconds, _LONGEST)
        while True:
            due, request = next(self._turn)
            now = clock.monotonic()
            if max(due, now) >= (end if self.open or len(self.latencies) >= self._least else last):
                self.unsent += 0 < due < end
                break
            if due > now:
                await self._until(due)
            sent = due or clock.monotonic()
            try:
                writer.write(request)
                status, open_still = await asyncio.wait_for(_answer(reader), _PATIENCE)
            except (OSError, asyncio.IncompleteReadError, ValueError, TimeoutError):
                status, open_still = 0, False
            if status == 200:
                self.latencies.append(clock.monotonic() - sent)
                self.starts.append(sent - self._start)
            else:
                self.failed += 1
            if not open_still:
                writer.close()
                try:
                    reader, writer = await asyncio.open_connection(self._host, self._port)
                except OSError:
                    return
        writer.close()


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bool]:
    """The status of the next answer, and whether the connection stays open."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = head.partition(b"content-length:")[2].partition(b"\r\n")[0]
    await reader.readexactly(int(length))
    return int(head[9:12]), b"connection: close" not in head


def _result(session: _Session, elapsed: float, connections: int, limit: float) -> LoadTest:
    values = sorted(session.latencies)
    if not values and not session.failed:
        raise UnavailableError(
            f"this machine was too busy to send anything in {elapsed:.1f} s",
            fix="run it when less else runs, or longer",
        )
    if not values:
        raise UnavailableError(f"none of {session.failed} requests was answered", fix="see the replica's log file")
    p99 = interval(in_ms := [1000 * value for value in values])
    lags = sorted(session.lags) if session.open else []
    return LoadTest(
        requests=len(values) + session.failed,
        failed=session.failed,
        seconds=elapsed,
        rate=len(values) / elapsed,
        connections=connections,
        p50_ms=1000 * _share(values, 0.5),
        p90_ms=1000 * _share(values, 0.9),
        p99=p99,
        limit_p99_ms=limit,
        met=session.failed == 0 and session.unsent == 0 and p99.high <= limit,
        unsent=session.unsent,
        lag_p99_ms=1000 * _share(lags, 0.99) if lags else None,
        percentiles=tuple((share, 1000 * _share(values, share)) for share in _SHARES),
        intervals=tuple((share, interval(in_ms, share)) for share in _ASKED_FOR),
        over_time=tuple(_moments(session, elapsed)),
    )


def _share(ordered: Sequence[float], share: float) -> float:
    """The least of ``ordered`` values that this share of them does not exceed."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def _moments(session: _Session, elapsed: float) -> Iterator[LoadMoment]:
    """The run in parts of a second, or longer ones if they would be too many; parts without an answer are left out."""
    part = max(1.0, elapsed / _PARTS)
    pairs = sorted((int(start / part), took) for start, took in zip(session.starts, session.latencies, strict=True))
    for number, group in groupby(pairs, key=lambda pair: pair[0]):
        took = [value for _, value in group]
        yield LoadMoment(
            at=number * part, requests=len(took), p50_ms=1000 * _share(took, 0.5), p99_ms=1000 * _share(took, 0.99)
        )


def interval(ordered: Sequence[float], share: float = 0.99) -> Estimate:
    """A percentile of ``ordered`` values with its order-statistic interval.

    The number of values below the true percentile is binomial, so the interval runs between two order statistics and
    assumes no shape (David & Nagaraja, *Order Statistics*, 3rd ed., 7.1). With too few values (some 370 for the 99th)
    no order statistic lies surely above the percentile: the upper end is then infinite, not the largest value seen.
    """
    n = len(ordered)
    tail = (1 - _LEVEL) / 2
    low = int(stats.binom.ppf(tail, n, share))  # P(fewer than `low` values lie below) <= tail
    high = int(stats.binom.ppf(1 - tail, n, share)) + 1
    return Estimate(
        value=_share(ordered, share),
        low=ordered[max(0, low - 1)],
        high=ordered[high - 1] if high <= n else math.inf,
        level=_LEVEL,
        n=n,
        method="order statistics",
    )


def ceiling(model: str, inputs: Sequence[dict[str, Any]], connections: int, seconds: float = 0.5) -> float:
    """How many of these requests a second this client sends at most: to a server that does nothing.

    Raises:
        UnavailableError: no process can be started for it.
    """
    try:
        server = subprocess.Popen(
            [sys.executable, load_null.__file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={"PATH": ""}
        )
    except OSError as error:
        raise UnavailableError(f"the client cannot be measured: {error.strerror}") from error
    with server:
        assert server.stdin is not None
        assert server.stdout is not None
        try:
            url = f"http://127.0.0.1:{int(server.stdout.readline())}"
            return run(url, model, inputs, seconds=seconds, connections=connections, key="none", least=1).rate
        except ValueError as error:
            raise UnavailableError("the client cannot be measured: its server did not start") from error
        finally:
            server.stdin.close()
