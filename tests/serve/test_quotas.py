"""Quotas: what one principal may ask, by all replicas together."""

import multiprocessing
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedplate import clock
from bedplate.errors import InputError, QuotaError
from bedplate.policy.values import Principal
from bedplate.records import Quota, Unit
from bedplate.serve import quotas
from bedplate.serve.quotas import Counts, Meter, Meters, Used
from bedplate.serve.snapshot import Quotas
from bedplate.serve.supervisor import Supervisor
from tests.serve.support import KEY, World, body, client, eventually

WHO = Principal(kind="Service", id="svc-0", name="svc-0", groups=("callers", "nightly"))
INFER = "/v2/models/linear/infer"


class Watch:
    """A clock that goes on when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def granted(meter: Meter, times: int) -> int:
    """How many of so many requests are granted."""
    count = 0
    for _ in range(times):
        try:
            meter.take()
            count += 1
        except QuotaError:
            pass
    return count


def meters(path: Path, quota: Quota, watch: Watch, replicas: int = 2) -> list[Meter]:
    """The same principal at several replicas: each has its own view of the file."""
    return [Meter(WHO, quota, Counts(path, watch), set()) for _ in range(replicas)]


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), st.integers(0, 2), st.integers(1, 60)),
        st.tuples(st.just("wait"), st.floats(0, 3), st.just(0)),
        st.tuples(st.just("tick"), st.integers(0, 2), st.just(0)),
    ),
    max_size=30,
)


@given(
    steps=STEPS,
    rate=st.floats(0.5, 200),
    burst=st.integers(1, 100),
    day=st.one_of(st.none(), st.integers(0, 150)),
)
def test_replicas_together_never_grant_more_than_the_quota(
    tmp_path_factory: pytest.TempPathFactory,
    steps: list[tuple[str, float, int]],
    rate: float,
    burst: int,
    day: int | None,
) -> None:
    path, watch = tmp_path_factory.mktemp("counts") / "c", Watch()
    with clock.frozen(datetime(2026, 3, 31, 12, tzinfo=UTC)):
        three = meters(path, Quota(rate=rate, burst=burst, day=day), watch, 3)
        count = 0
        for what, value, times in steps:
            if what == "wait":
                watch.now += value
            elif what == "tick":
                three[int(value)].give_back()
            else:
                count += granted(three[int(value)], times)
            assert count <= burst + rate * (watch.now - 1000) + 1e-6
            assert day is None or count <= day
        for meter in three:
            meter.give_back()
        ((_, used),) = list(three[0]._counts.used()) or [(b"", Used(0, 0))]
        assert used == Used(count, count)


def test_a_lone_replica_grants_all_that_there_is(tmp_path: Path) -> None:
    watch = Watch()
    (meter,) = meters(tmp_path / "c", Quota(rate=10.0, burst=25), watch, 1)

    assert granted(meter, 100) == 25
    watch.now += 0.5
    assert granted(meter, 100) == 5
    watch.now += 60
    assert granted(meter, 100) == 25


def test_what_one_replica_did_not_grant_is_there_for_the_others(tmp_path: Path) -> None:
    watch = Watch()
    one, other = meters(tmp_path / "c", Quota(rate=1.0, burst=80), watch)
    one.take()
    held = one.left
    assert held > 0
    assert granted(other, 100) == 80 - 1 - held
    one.give_back()
    watch.now += 0.9
    other.follow(Quota(rate=1.0, burst=81))  # forgets that it was refused just now
    assert granted(other, 100) == held


def test_a_day_and_a_month_end_and_a_clock_that_is_set_back_ends_neither(tmp_path: Path) -> None:
    noon = datetime(2026, 3, 31, 12, tzinfo=UTC)
    quota = Quota(day=3, month=5)

    def at(moment: datetime) -> int:
        with clock.frozen(moment):
            (meter,) = meters(tmp_path / "c", quota, Watch(), 1)
            return granted(meter, 10)

    assert at(noon) == 3
    assert at(noon + timedelta(hours=11)) == 0
    assert at(noon - timedelta(days=1)) == 0
    assert at(noon + timedelta(days=1)) == 3  # of April
    assert at(noon + timedelta(days=2)) == 2  # the month has no more
    with clock.frozen(noon + timedelta(days=2)), pytest.raises(QuotaError, match="5 requests a month") as refused:
        meters(tmp_path / "c", quota, Watch(), 1)[0].take()
    assert (refused.value.window, refused.value.retry) == ("month", 28.5 * 86_400)


def test_who_is_bounded_by_what() -> None:
    default = Quota(rate=1.0)
    groups = {"callers": Quota(rate=5.0, day=10), "nightly": Quota(rate=2.0, burst=50)}

    assert quotas.of(WHO, Quotas(), default) == default
    assert quotas.of(WHO, Quotas(groups={"others": Quota(day=1)}), default) == default
    assert quotas.of(WHO, Quotas(groups=groups), default) == Quota(rate=5.0, burst=50)
    assert quotas.of(WHO, Quotas(groups=groups, principals={"svc-0": Quota(day=7)}), default) == Quota(day=7)


def test_nobody_with_a_quota_makes_no_file(tmp_path: Path) -> None:
    found = Meters(tmp_path / "c", Quota())
    assert found.of(WHO) is None
    assert not (tmp_path / "c").exists()


def test_who_asked_for_nothing_this_month_makes_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quotas, "SLOTS", 4)
    march, april = datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 4, 1, tzinfo=UTC)

    def take(number: int, moment: datetime) -> None:
        with clock.frozen(moment):
            who = Principal(kind="User", id=f"u{number}", name=f"u{number}")
            Meter(who, Quota(day=1), Counts(tmp_path / "c"), set()).take()

    for number in range(4):
        take(number, march)
    with pytest.raises(Exception, match="no room"):
        take(9, march)
    take(9, april)
    with pytest.raises(QuotaError):
        take(9, april)


def _hammer(path: Path, seconds: float, together: Any, counted: Any) -> None:
    """One replica that is asked without end: what it granted, from when to when."""
    meter = Meter(WHO, Quota(rate=2000.0, burst=100), Counts(path), set())
    together.wait()
    start = now = time.monotonic()
    count, tick = 0, 0
    while now < start + seconds:
        count += granted(meter, 1)
        now = time.monotonic()
        if int((now - start) * 5) > tick:
            tick = int((now - start) * 5)
            meter.give_back()
    counted.put((count, start, now))


def test_processes_that_are_asked_at_once_hold_the_rate_in_total(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    counted, together = context.Queue(), context.Barrier(3)
    arguments = (tmp_path / "c", 1.0, together, counted)
    processes = [context.Process(target=_hammer, args=arguments) for _ in range(3)]
    for process in processes:
        process.start()
    found = [counted.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    counts, starts, ends = zip(*found, strict=True)
    assert 100 < sum(counts) <= 100 + 2000 * (max(ends) - min(starts))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("quotas"))


@pytest.fixture(scope="module")
def http(world: World) -> Iterator[httpx.Client]:
    with Supervisor(world.home) as supervisor, client(supervisor.start(world.spec(quota=Quota(month=1000)))) as http:
        yield http


def test_an_endpoint_refuses_what_is_too_much_and_takes_up_a_change(world: World, http: httpx.Client) -> None:
    eventually(lambda: http.post(INFER, json=body()).status_code == 200)  # once what others published is no more

    world.publish(quotas=Quotas(principals={"svc-0": Quota(rate=0.1, burst=2)}))
    refused = eventually(lambda: (a := http.post(INFER, json=body())).status_code == 429 and a)
    assert refused.headers["retry-after"] == refused.headers["ratelimit"].partition("t=")[2]
    assert 1 <= int(refused.headers["retry-after"]) <= 10
    assert refused.headers["ratelimit-policy"] == '"rate";q=2;w=1'
    assert "0.1 requests a second" in refused.json()["error"]

    world.publish(quotas=Quotas(groups={"callers": Quota(day=3)}))  # one was asked before, or more
    refused = eventually(lambda: (a := http.post(INFER, json=body())).status_code == 429 and "day" in a.text and a)
    assert refused.headers["ratelimit"].startswith('"day";r=0;t=')

    world.publish(policies=())
    eventually(lambda: http.post(INFER, json=body()).status_code == 200)
    assert http.get("/v2/models/linear").status_code == 200  # only predictions are counted


def test_refusals_are_counted(world: World, http: httpx.Client) -> None:
    world.keys[KEY] = ("callers", "administrators")
    world.publish(quotas=Quotas(principals={"svc-0": Quota(day=0)}))
    eventually(lambda: http.post(INFER, json=body()).status_code == 429)
    found = eventually(
        lambda: [
            line
            for line in http.get("/metrics").text.splitlines()
            if line.startswith("bedplate_quota_refusals_total{") and 'window="day"' in line
        ],
    )
    assert 'principal="svc-0"' in found[0]
    assert float(found[0].rpartition(" ")[2]) >= 1
    world.keys[KEY] = ("callers",)
    world.publish()


def test_a_request_is_charged_for_what_it_holds(tmp_path: Path) -> None:
    watch = Watch()
    meter = Meter(WHO, Quota(rate=10.0, burst=100), Counts(tmp_path / "c", watch), set(), "rows")
    meter.take()
    meter.charge(60)
    meter.take()
    with pytest.raises(QuotaError, match="10 rows a second") as refused:
        meter.charge(60)
    assert 1.9 <= refused.value.retry <= 2.1  # 20 are missing
    meter.charge(30)  # a smaller one is not kept waiting by that
    with pytest.raises(InputError, match="101 rows in one request"):
        meter.charge(101)
    watch.now += 10
    meter.take()
    meter.charge(100)
    assert meter.granted == 1 + 59 + 1 + 29 + 1 + 99


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(1, 50)), max_size=60))
def test_together_replicas_never_grant_more_rows_than_there_are(
    tmp_path_factory: pytest.TempPathFactory, asked: list[tuple[int, int]]
) -> None:
    quota, path = Quota(day=300), tmp_path_factory.mktemp("rows") / "c"
    both = [Meter(WHO, quota, Counts(path, Watch()), set(), "rows") for _ in range(2)]
    got = 0
    for which, count in asked:
        try:
            both[which].take(count)
            got += count
        except QuotaError:
            pass
    assert got <= 300
    assert got == sum(meter.granted for meter in both)


@pytest.mark.parametrize(("unit", "batching"), [("rows", True), ("elements", False)])
def test_an_endpoint_counts_rows_or_elements_where_its_file_says_so(tmp_path: Path, unit: Unit, batching: bool) -> None:
    world, of_row = World(tmp_path), 1 if unit == "rows" else 3
    spec = world.spec(quota=Quota(rate=0.001, burst=10 * of_row), unit=unit, batching=batching)
    with Supervisor(world.home) as supervisor, client(supervisor.start(spec)) as http:
        answers = [http.post(INFER, json=body([1.0] * 3 * rows)) for rows in (11, 6, 4, 4)]  # each refused is one less
        assert [answer.status_code for answer in answers] == [400, 200, 429, 429]
        assert f"send {10 * of_row} at most" in answers[0].json()["error"]
        assert f"0.001 {unit} a second" in answers[2].json()["error"]
