"""Too much at once: what would come too late is not computed, and whoever asks too much is told so at once."""

import asyncio
import collections
import math
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedplate.errors import DeadlineError, InputError
from bedplate.http.streams import NoRoomError, Room, whole
from bedplate.http.turns import Turns
from bedplate.serve import arrival, sockets
from bedplate.serve.batching import Batcher, Plan
from bedplate.serve.codecs import waits
from bedplate.serve.metrics import Metrics
from bedplate.serve.predictors import Answer
from bedplate.serve.pressure import OverloadedError, Pressure, Share
from bedplate.serve.supervisor import Supervisor
from tests.serve.support import KEY, World, body, client, eventually, network

pytestmark = pytest.mark.slow

INFER = "/v2/models/linear/infer"
ANY: Any = None
PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


class Slow:
    """An answer takes so many seconds, and comes when it is let."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.let = seconds, threading.Event()
        self.let.set()
        self.asked: list[float] = []

    def predict(self, inputs: dict[str, Any], features: Any) -> Answer:
        self.asked += inputs["x"].ravel().tolist()
        time.sleep(self.seconds)
        self.let.wait(60)
        return Answer(outputs={"y": inputs["x"]})

    async def begun(self, count: int) -> None:
        """Wait until it was asked for so many rows."""
        while len(self.asked) < count:
            await asyncio.sleep(0.01)


def test_what_waited_too_long_is_not_computed_and_its_neighbours_are() -> None:
    model = Slow(0.0)
    model.let.clear()

    async def run() -> list[Any]:
        batcher = Batcher(model, ANY, Plan(rows=4, reason="for the test"))
        asked = [asyncio.create_task(batcher.predict({"x": np.array([[1.0]])}))]
        await model.begun(1)
        now = time.perf_counter()
        for number, seconds in ((2.0, 0.1), (3.0, math.inf), (4.0, -1.0), (5.0, 60.0)):
            asked.append(asyncio.create_task(batcher.predict({"x": np.array([[number]])}, now + seconds)))
        await asyncio.sleep(0.15)
        model.let.set()
        found = await asyncio.gather(*asked, return_exceptions=True)
        with pytest.raises(DeadlineError):
            await Batcher(model, ANY, Plan(rows=1, reason="off")).predict({"x": np.array([[6.0]])}, now)
        assert batcher.wait() == 0
        batcher.close()
        return found

    found = asyncio.run(run())
    assert [isinstance(one, DeadlineError) for one in found] == [False, True, False, True, False]
    assert model.asked == [1.0, 3.0, 5.0]


def test_the_wait_is_what_the_batches_before_it_will_take() -> None:
    async def run() -> None:
        model = Slow(0.2)
        batcher = Batcher(model, ANY, Plan(rows=2, reason="for the test"))
        assert batcher.wait() == 0
        await batcher.predict({"x": np.ones((1, 1))})
        model.let.clear()
        asked = [asyncio.create_task(batcher.predict({"x": np.ones((1, 1))})) for _ in range(7)]
        await model.begun(3)
        wait, took = batcher.wait(), batcher._took  # one batch of two is computed, five requests wait
        assert took >= 0.2
        assert took * 2 <= wait <= took * 3
        model.let.set()
        await asyncio.gather(*asked)
        batcher.close()

    asyncio.run(run())


def test_a_replica_that_is_behind_lets_nobody_in_who_would_wait_too_long(tmp_path_factory: Any) -> None:
    spec = World(tmp_path_factory.mktemp("pressure")).spec(budget=0.02, max_in_flight=3)
    metrics = Metrics("m", "1")
    pressure = Pressure(spec, Batcher(Slow(0), ANY, Plan(rows=1, reason="off")), metrics, Turns())
    assert pressure.patience == 1.0
    pressure.admit(math.inf, "a")
    pressure._lag = 0.3
    pressure.admit(0.5, "a")
    with pytest.raises(OverloadedError) as refused:
        pressure.admit(0.2, "a")
    assert refused.value.retry == pytest.approx(0.3)
    pressure._lag = 1.1
    with pytest.raises(OverloadedError, match="too late"):
        pressure.admit(math.inf, "a")
    pressure._lag, metrics.in_flight = 0.0, 5
    with pytest.raises(OverloadedError, match="too many"):
        pressure.admit(math.inf, "a")
    pressure._stalled = 2  # of the five, whose bodies do not come: they are no work
    pressure.admit(math.inf, "a")
    for _ in range(3):
        pressure.answering.take("b")
    with pytest.raises(OverloadedError, match="too many"):
        pressure.admit(math.inf, "a")


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.booleans()), max_size=200), st.integers(1, 30))
def test_nobody_holds_all_places_and_who_holds_none_finds_one(steps: list[tuple[str, bool]], most: int) -> None:
    share, held = Share(most), collections.Counter[str]()
    for who, takes in steps:
        if takes and share.free(who):
            share.take(who)
            held[who] += 1
        elif not takes and held[who]:
            share.give(who)
            held[who] -= 1
        assert share.total == held.total() <= most
        others = most - held.total() + held[who]
        assert held[who] <= max(1, math.ceil(0.8 * others) + 1)
        assert share.free("new") == (share.total < most)


def test_who_asks_a_lot_leaves_room_to_others_who_do_not_wait_for_it(tmp_path_factory: Any) -> None:
    """By what the batcher holds of each: a thousand of one are not before the first of another."""
    spec = World(tmp_path_factory.mktemp("share")).spec(budget=0.02, max_in_flight=40)
    turns = Turns()

    async def run() -> None:
        batcher = Batcher(Slow(0.1), ANY, Plan(rows=2, reason="for the test"))
        metrics = Metrics("m", "1")
        pressure = Pressure(spec, batcher, metrics, turns)
        batcher._took, asked = 0.1, []
        for _ in range(100):
            metrics.in_flight += 1
            try:
                pressure.admit(math.inf, "much")
            except OverloadedError:
                metrics.in_flight -= 1
                continue
            pressure.answering.take("much")
            asked.append(asyncio.create_task(batcher.predict({"x": np.ones((1, 1))}, who="much")))
            await asyncio.sleep(0)
        assert 5 <= len(asked) < 40
        metrics.in_flight += 1
        assert pressure.wait("much") > 2 * pressure.wait("little")
        pressure.admit(0.5, "little")
        for task in asked:
            task.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
        batcher.close()

    asyncio.run(run())


def test_the_lag_of_a_loop_that_is_held_up_is_seen(tmp_path_factory: Any) -> None:
    spec = World(tmp_path_factory.mktemp("lag")).spec()
    pressure = Pressure(spec, Batcher(Slow(0), ANY, Plan(rows=1, reason="off")), Metrics("m", "1"), Turns())

    async def run() -> float:
        watching = asyncio.create_task(pressure.watch())
        await asyncio.sleep(0)
        pressure.arriving["slow"] = time.perf_counter() - 1
        time.sleep(0.25)
        seen = 0.0
        for _ in range(100):
            await asyncio.sleep(0.001)
            seen = max(seen, pressure.wait())
        watching.cancel()
        return seen

    assert asyncio.run(run()) > 0.1
    assert pressure._stalled == 1


@pytest.mark.parametrize("value", ["0", "-1", "nan", "x", "", "1" * 21])
def test_a_timeout_that_is_none_is_refused(value: str) -> None:
    with pytest.raises(InputError):
        arrival.of(0.0, {arrival.TIMEOUT: value})


@pytest.mark.parametrize("value", [0, -1, True, "100", math.nan])
def test_a_timeout_in_the_body_that_is_none_is_refused(value: Any) -> None:
    with pytest.raises(InputError):
        waits({"timeout": value})


def test_what_comes_with_a_request() -> None:
    assert arrival.of(1.0, {}) == arrival.Arrival(1.0)
    assert arrival.of(1.0, {arrival.TIMEOUT: "250"}).seconds == 0.25
    found = arrival.of(1.0, {"traceparent": PARENT, "tracestate": "a=1"})
    assert (found.traceparent, found.tracestate, found.seconds) == (PARENT, "a=1", math.inf)
    assert arrival.of(1.0, {"traceparent": f"01{PARENT[2:]}-more"}).traceparent == f"01{PARENT[2:]}"
    assert arrival.of(1.0, {"traceparent": PARENT, "tracestate": "a" * 513}).tracestate == ""


@given(st.text(max_size=80))
def test_a_trace_that_is_not_well_formed_is_passed_over(text: str) -> None:
    found = arrival.of(1.0, {"traceparent": text}).traceparent
    assert found in ("", text[:55])


@pytest.mark.parametrize(
    "wrong", [PARENT.upper(), PARENT[:-1], "ff" + PARENT[2:], PARENT.replace("00f067aa0ba902b7", "0" * 16)]
)
def test_these_traces_are_not_well_formed(wrong: str) -> None:
    assert arrival.of(1.0, {"traceparent": wrong}).traceparent == ""


def test_bodies_that_arrive_together_have_one_room() -> None:
    class Protocol:
        def here(self) -> None:
            """Nothing has come with the head."""

        async def __call__(self) -> bytes:
            await asyncio.sleep(0.2)
            return b"x" * 60

    async def run() -> None:
        room = Room(100)
        one = asyncio.create_task(whole(Protocol(), 80, 5, 60, room))
        await asyncio.sleep(0)
        for expected in (60, None):
            with pytest.raises(NoRoomError):
                await whole(Protocol(), 80, 5, expected, room)
        assert await one == b"x" * 60
        assert (room.left, room.refused) == (100, 2)

    asyncio.run(run())


def test_a_replica_asks_for_as_many_files_as_it_may_have(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = {"now": (256, 20_000)}
    monkeypatch.setattr(sockets.resource, "getrlimit", lambda what: limits["now"])
    monkeypatch.setattr(sockets.resource, "setrlimit", lambda what, wanted: limits.update(now=wanted))
    assert sockets.connections() == 20_000 - 1024
    assert limits["now"] == (20_000, 20_000)
    limits["now"] = (1000, 1000)
    assert sockets.connections() == 500


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("overload"), keys={KEY: ("callers", "administrators")})


@pytest.fixture(scope="module")
def url(world: World) -> Iterator[str]:
    """A model that needs milliseconds for a row, and so is asked beside the loop."""
    with Supervisor(world.home) as supervisor:
        yield supervisor.start(world.spec(world.bundle(network()), budget=0.5, max_arriving=5_000_000))


def dropped(http: httpx.Client, reason: str) -> float:
    lines = [line for line in http.get("/metrics").text.splitlines() if f'reason="{reason}"' in line]
    return float(lines[0].rpartition(" ")[2]) if lines else 0.0


def test_deadlines_and_callers_that_leave(url: str) -> None:
    many = body(np.ones(3 * 1500))
    with client(url) as http, client(url) as other:
        answers: list[int] = []
        enough = threading.Event()

        def keep_busy() -> None:
            while not enough.is_set():
                answers.append(other.post(INFER, json=many, timeout=60).status_code)

        busy = [threading.Thread(target=keep_busy) for _ in range(3)]
        for thread in busy:
            thread.start()
        eventually(lambda: "requests_in_flight" in http.get("/metrics").text and _busy(http))
        by_header = http.post(INFER, json=body(), headers={arrival.TIMEOUT: "60"})
        by_body = http.post(INFER, json=body() | {"parameters": {"timeout": 60_000}})
        with pytest.raises(httpx.ReadTimeout), client(url) as leaver:
            leaver.post(INFER, json=body(), timeout=0.05)
        enough.set()
        for thread in busy:
            thread.join()
        assert 200 in answers
        for answer in (by_header, by_body):  # too late; or refused, where a slow machine knows that it would be
            assert (answer.status_code, "retry-after" in answer.headers) in ((504, False), (503, True)), answer.text
        # With nobody in the way there is no wait to know of: what is too late then is too late, and nothing else.
        for asked in ({"headers": {arrival.TIMEOUT: "0.001"}}, {"json": body() | {"parameters": {"timeout": 1}}}):
            counted = dropped(http, "deadline")
            answer = eventually(lambda asked=asked: _admitted(http.post(INFER, **{"json": body()} | asked)))
            assert (answer.status_code, "retry-after" in answer.headers) == (504, False), answer.text
            assert dropped(http, "deadline") == counted + 1
        assert http.post(INFER, json=body(), headers={arrival.TIMEOUT: "60000"}).status_code == 200
        # Of those that keep it busy, some may wait too long as well.
        assert dropped(http, "deadline") + dropped(http, "wait") >= 2
        assert eventually(lambda: dropped(http, "left") == 1)
        assert http.post(INFER, json=body(), headers={arrival.TIMEOUT: "soon"}).status_code == 400


def test_every_edge_waits_for_a_model_that_is_asked_beside_the_loop(url: str) -> None:
    """A route has a deadline of its own, and waiting for the model another one within it."""
    with client(url) as http:
        for path, asked in (
            (f"{INFER.removesuffix('/infer')}/versions/1/infer", body()),
            ("/predict", {"X": [1.0, 2.0, 3.0]}),
            ("/invocations", {"inputs": {"X": [[1.0, 2.0, 3.0]]}}),
        ):
            answer = http.post(path, json=asked)
            assert answer.status_code == 200, (path, answer.text)


def _admitted(answer: httpx.Response) -> httpx.Response | None:
    return None if answer.status_code == 503 else answer


def _busy(http: httpx.Client) -> bool:
    """Whether somebody else is being answered as well."""
    (line,) = [one for one in http.get("/metrics").text.splitlines() if one.startswith("bedplate_requests_in_flight{")]
    return float(line.rpartition(" ")[2]) >= 2


def test_slow_bodies_have_no_more_room_than_there_is(url: str) -> None:
    host, port = url.removeprefix("http://").split(":")
    start = (
        f"POST {INFER} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {KEY}\r\ncontent-length: 4000000\r\n\r\n{{"
    )
    with socket.create_connection((host, int(port)), 10) as slow, client(url) as http:
        slow.sendall(start.encode())

        def refused() -> bool:
            with socket.create_connection((host, int(port)), 10) as next_one:
                next_one.sendall(start.encode())
                next_one.settimeout(0.5)
                try:
                    return next_one.recv(4096).startswith(b"HTTP/1.1 503")
                except TimeoutError:  # it came before the first one
                    return False

        eventually(refused)
        assert http.post(INFER, json=body()).status_code == 200
        assert dropped(http, "room") >= 1
