"""What a load run measures, against a server that does what the test says."""

import asyncio
import itertools
import math
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedplate.app import load
from bedplate.errors import InputError, UnavailableError

Answer = Callable[[int], Awaitable[tuple[int, bool]]]
"""From the number of a request (0, 1, ...) to the status to answer with and whether to keep the connection."""


@contextmanager
def serving(answer: Answer) -> Iterator[tuple[str, list[bytes]]]:
    """A server on a free port in a thread of its own; gives its address and the requests it got."""
    got: list[bytes] = []
    numbers = itertools.count()
    loop = asyncio.new_event_loop()

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            keep = True
            while keep:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
                got.append(head + await reader.readexactly(length))
                status, keep = await answer(next(numbers))
                last = b"" if keep else b"Connection: close\r\n"
                writer.write(b"HTTP/1.1 %d X\r\nContent-Length: 2\r\n%b\r\nok" % (status, last))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = loop.run_until_complete(asyncio.start_server(connection, "127.0.0.1", 0))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", got
    finally:
        loop.call_soon_threadsafe(server.close)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0.01))
        loop.close()


async def _ok(number: int) -> tuple[int, bool]:
    await asyncio.sleep(0.002)
    return 200, True


def test_requests_are_sent_in_turn_with_key_and_body() -> None:
    with serving(_ok) as (url, got):
        result = load.run(url, "m", [{"id": "a"}, {"id": "b"}], seconds=0.2, connections=1, key="bp_k_s")

    assert result.failed == 0
    assert result.requests == len(got)
    assert got[0].startswith(b"POST /v2/models/m/infer HTTP/1.1\r\n")
    assert b"\r\nauthorization: Bearer bp_k_s\r\n" in got[0]
    assert [request[-10:] for request in got[:3]] == [b'{"id":"a"}', b'{"id":"b"}', b'{"id":"a"}']


def test_what_the_client_can_send_is_measured_with_a_server_that_does_nothing() -> None:
    assert load.ceiling("m", [{"id": "a" * 5000}], 4, seconds=0.2) > 50


def test_figures_agree_with_each_other() -> None:
    with serving(_ok) as (url, _):
        result = load.run(url, "m", [{}], seconds=0.5, connections=4, key="k", limit_p99_ms=10_000)

    assert result.connections == 4
    assert result.seconds >= 0.5
    assert result.rate == pytest.approx((result.requests - result.failed) / result.seconds)
    assert 2 <= result.p50_ms <= result.p90_ms <= result.p99.value
    assert result.p99.low <= result.p99.value <= result.p99.high
    assert result.met is (result.p99.high <= 10_000)


def test_a_slow_server_is_asked_until_enough_was_answered() -> None:
    """Without a rate: the seconds are a beginning, and the 99th percentile gets its upper end."""
    with serving(_ok) as (url, _):
        short = load.run(url, "m", [{}], seconds=0.05, connections=1, key="k")
        result = load.run(url, "m", [{}], seconds=0.05, connections=1, key="k", least=load.ENOUGH)

    assert (short.p99.high, short.met) == (math.inf, True)
    assert load.ENOUGH <= result.requests < load.ENOUGH + 5
    assert math.isfinite(result.p99.high)


def test_a_limit_that_lies_inside_the_interval_is_not_met() -> None:
    with serving(_ok) as (url, _):
        result = load.run(url, "m", [{}], seconds=0.2, connections=2, key="k", limit_p99_ms=1.0)

    assert not result.met


def test_an_open_loop_counts_from_when_a_request_was_due() -> None:
    """A server that stalls half a second is charged for every request that was due meanwhile."""

    async def stall(number: int) -> tuple[int, bool]:
        await asyncio.sleep(0.5 if number == 0 else 0)
        return 200, True

    with serving(stall) as (url, _):
        opened = load.run(url, "m", [{}], seconds=1.0, connections=1, rate=50.0, key="k")
    with serving(stall) as (url, _):
        closed = load.run(url, "m", [{}], seconds=1.0, connections=1, key="k")

    assert opened.requests + opened.unsent == 50
    assert opened.p90_ms > 200  # 25 of 50 waited, evenly between 0 and 500 ms
    assert closed.p90_ms < opened.p90_ms / 2  # one of thousands waited


def test_an_open_loop_counts_what_was_due_and_never_sent() -> None:
    """Every request that was due is answered, failed or unsent, whatever the server does."""

    async def stuck(number: int) -> tuple[int, bool]:
        await asyncio.sleep(0.002 if number < 5 else 0.7)
        return 200, True

    with serving(stuck) as (url, got):
        result = load.run(url, "m", [{}], seconds=1.1, connections=1, rate=50.0, key="k", limit_p99_ms=10_000)

    assert result.failed == 0
    assert result.unsent > 0
    assert result.requests == len(got)
    assert result.requests + result.unsent == 55
    assert not result.met


def test_an_open_loop_sends_in_time_and_all_of_it() -> None:
    with serving(_ok) as (url, _):
        for _attempt in range(5):  # a machine that stands still when the time is over leaves the last one unsent
            result = load.run(url, "m", [{}], seconds=1.1, connections=8, rate=20.0, key="k")
            if not result.unsent:
                break

    assert (result.requests, result.unsent) == (22, 0)
    assert result.lag_p99_ms is not None
    assert result.lag_p99_ms >= 0


def test_the_curve_and_the_parts_hold_every_answer() -> None:
    seen: list[tuple[float, int, int]] = []

    def look(*state: float) -> None:
        seen.append(state)  # type: ignore[arg-type]

    with serving(_ok) as (url, _):
        result = load.run(url, "m", [{}], seconds=2.2, connections=2, rate=50.0, key="k", on_look=look)
        closed = load.run(url, "m", [{}], seconds=0.1, connections=1, key="k")

    shares, latencies = zip(*result.percentiles, strict=True)
    assert shares[0] == 0.0
    assert shares[-1] == 1.0
    assert list(latencies) == sorted(latencies)
    assert dict(result.percentiles)[0.99] == result.p99.value
    assert sum(part.requests for part in result.over_time) == result.requests - result.failed
    assert [part.at for part in result.over_time] == sorted({part.at for part in result.over_time})
    assert len(seen) in (1, 2)
    assert closed.lag_p99_ms is None
    assert closed.unsent == 0


def test_answers_that_are_no_200_are_failures_and_not_latencies() -> None:
    async def every_third(number: int) -> tuple[int, bool]:
        await asyncio.sleep(0.002)
        return (503 if number % 3 == 2 else 200), True

    with serving(every_third) as (url, got):
        result = load.run(url, "m", [{}], seconds=0.3, connections=1, key="k", limit_p99_ms=10_000)

    assert result.requests == len(got)
    assert result.failed == len(got) // 3
    assert not result.met


def test_a_connection_that_ends_with_its_answer_is_opened_again() -> None:
    async def last(number: int) -> tuple[int, bool]:
        return 200, number % 2 == 0

    with serving(last) as (url, got):
        result = load.run(url, "m", [{}], seconds=0.1, connections=2, key="k", least=20)

    assert result.failed == 0
    assert result.requests == len(got) >= 20


def test_a_request_nobody_answers_fails_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "_PATIENCE", 0.5)

    async def second_never(number: int) -> tuple[int, bool]:
        await asyncio.sleep(0.002 if number != 1 else 60)
        return 200, True

    with serving(second_never) as (url, _):
        result = load.run(url, "m", [{}], seconds=0.1, connections=1, key="k", least=10)

    assert (result.failed, result.requests) == (1, 11)


def test_when_nothing_is_answered_there_is_no_figure() -> None:
    async def broken(number: int) -> tuple[int, bool]:
        await asyncio.sleep(0.002)
        return 500, True

    with serving(broken) as (url, _), pytest.raises(UnavailableError, match="none of"):
        load.run(url, "m", [{}], seconds=0.1, connections=1, key="k")
    with pytest.raises(UnavailableError, match="nothing listens"):
        load.run(url, "m", [{}], seconds=0.1, connections=1, key="k")


@pytest.mark.parametrize(
    "url", ["http://example.com:80", "https://127.0.0.1:80", "http://127.0.0.1", "http://127.0.0.1@example.com:80"]
)
def test_load_goes_to_this_machine_only(url: str) -> None:
    with pytest.raises(InputError, match="this machine"):
        load.run(url, "m", [{}], seconds=0.1, connections=1, key="k")


@pytest.mark.parametrize("wrong", [{"inputs": []}, {"seconds": 0.0}, {"connections": 0}, {"rate": 0.0}, {"rate": -1.0}])
def test_a_run_of_nothing_is_refused(wrong: dict[str, object]) -> None:
    arguments: dict[str, object] = {"inputs": [{}], "seconds": 0.1, "connections": 1, "key": "k", **wrong}
    with pytest.raises(InputError, match="needs"):
        load.run("http://127.0.0.1:1", "m", **arguments)  # type: ignore[arg-type]


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=2000).map(sorted))
def test_the_interval_holds_its_value(values: list[float]) -> None:
    found = load.interval(values)

    assert found.low <= found.value <= found.high
    assert found.n == len(values)
    assert found.value in values
    assert (found.high == math.inf) is (found.high not in values)


@pytest.mark.parametrize(("n", "bounded"), [(1, False), (300, False), (400, True), (10_000, True)])
def test_few_values_bound_no_p99(n: int, bounded: bool) -> None:
    assert math.isfinite(load.interval(list(range(n))).high) is bounded


def test_the_interval_covers_the_true_p99_as_often_as_it_says() -> None:
    """Order statistics depend on ranks alone, so uniform values stand for every continuous distribution."""
    samples = np.sort(np.random.default_rng(7).uniform(size=(2000, 1000)), axis=1)

    covered = np.mean([found.low <= 0.99 <= found.high for found in map(load.interval, samples.tolist())])

    assert 0.94 <= covered <= 0.98  # at least 0.95, and not much more than the steps of a binomial allow
