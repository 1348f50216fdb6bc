"""The law of how many replicas there are: on loads, on the clock, and on days when nothing happens."""

import itertools
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedplate.serve.scaling import DOWN_SECONDS, Load, Meter, Scale, Scaler, Shift

NOON = datetime(2026, 3, 4, 12, tzinfo=UTC)  # a Wednesday
TICK = 0.2


class World:
    """Replicas that share what work there is, each ready ``start`` seconds after it was wanted."""

    def __init__(self, scale: Scale, start: float = 0.8) -> None:
        self.scale, self.start, self.now = scale, start, 0.0
        self.scaler = Scaler()
        self.ready_at = [0.0] * max(1, scale.min)
        self.used = 0.0
        self.history: list[int] = []

    def run(self, seconds: float, work: float) -> int:
        """Offer ``work`` seconds of processor time per second; the replicas wanted at the end."""
        for _ in range(round(seconds / TICK)):
            self.now += TICK
            ready = [at for at in self.ready_at if at <= self.now]
            share = min(1.0, work / len(ready)) if ready else 0.0
            full = share == 1.0
            loads = [Load(in_flight=40.0 if full else share, busy=share, waited=0.2 if full else 0.0, predictions=0)]
            if work:
                self.used = self.now
                if not self.ready_at:  # somebody knocked
                    self.ready_at = [self.now + self.start]
            moment = NOON + timedelta(seconds=self.now)
            idle = self.now - self.used
            wanted = self.scaler.wanted(
                self.scale, self.now, moment, len(self.ready_at), loads * len(ready), idle
            )  # fmt: skip
            self.ready_at = self.ready_at[:wanted] + [self.now + self.start] * (wanted - len(self.ready_at))
            self.history.append(wanted)
        return len(self.ready_at)

    def turns(self) -> int:
        """How often it changed its mind: a step up after one down, or the other way round."""
        steps = [b - a for a, b in zip(self.history, self.history[1:], strict=False) if b != a]
        return sum((a > 0) != (b > 0) for a, b in itertools.pairwise(steps))


@given(work=st.floats(0.01, 12.0), high=st.integers(1, 8), start=st.floats(0.2, 3.0))
def test_a_steady_load_gets_what_it_needs_and_then_nothing_changes(work: float, high: int, start: float) -> None:
    world = World(Scale(min=1, max=high), start)
    world.run(30, work)
    settled = world.run(2 * DOWN_SECONDS, work)
    world.history.clear()
    assert world.run(3 * DOWN_SECONDS, work) == settled
    assert set(world.history) == {settled}
    assert settled == high or work / settled <= 0.7
    assert settled == 1 or work / (settled - 1) > 0.5  # one less would have had too much


@given(st.lists(st.tuples(st.floats(0.0, 3.0), st.floats(0.5, 20.0)), max_size=30), st.integers(0, 2))
def test_any_load_stays_within_the_limits_and_takes_away_slowly(parts: list[tuple[float, float]], low: int) -> None:
    world = World(Scale(min=low, max=4, idle=1000.0))
    for work, seconds in parts:
        world.run(seconds, work)
    assert all(max(1, low) <= wanted <= 4 for wanted in world.history)
    assert world.turns() <= 2 * (world.now / (DOWN_SECONDS * 0.9) + 1)  # each way down was watched for a minute


def test_a_burst_is_met_within_seconds_and_kept_for_a_minute() -> None:
    world = World(Scale(min=1, max=4))
    assert world.run(10, 0.2) == 1
    assert world.run(6, 3.5) == 4
    assert world.run(DOWN_SECONDS * 0.8, 0.2) == 4
    assert world.run(DOWN_SECONDS, 0.2) == 1


def test_one_that_waits_for_its_loop_gets_help_though_its_processor_time_says_no() -> None:
    scaler, scale = Scaler(), Scale(min=1, max=3)
    late = Load(in_flight=1.0, busy=0.6, waited=0.2, predictions=1)
    asked = [scaler.wanted(scale, t * TICK, NOON, 1, [late], 0.0) for t in range(10)]
    assert asked[0] == 1
    assert 2 in asked


def test_nothing_is_left_after_idle_time_and_only_where_the_file_lets_it() -> None:
    world = World(Scale(min=0, max=2, idle=30.0))
    assert world.run(10, 0.1) == 1
    assert world.run(29, 0.0) == 1
    assert world.run(2, 0.0) == 0
    assert world.run(600, 0.0) == 0
    assert world.run(1, 0.1) == 1
    kept = World(Scale(min=1, max=2, idle=30.0))
    assert kept.run(600, 0.0) == 1


@pytest.mark.parametrize(
    ("moment", "least"),
    [
        ("2026-03-04T07:59:00+01:00", 0),
        ("2026-03-04T08:00:00+01:00", 2),
        ("2026-03-04T17:59:59+01:00", 2),
        ("2026-03-04T18:00:00+01:00", 0),
        ("2026-03-07T12:00:00+01:00", 0),  # a Saturday
        ("2026-03-06T23:00:00+01:00", 3),  # the night of Friday
        ("2026-03-07T03:59:00+01:00", 3),
        ("2026-03-07T04:00:00+01:00", 0),
        ("2026-03-08T01:00:00+01:00", 0),  # the night of Saturday
        ("2026-07-01T08:00:00+02:00", 2),  # summer time
    ],
)
def test_the_schedule_is_read_on_its_own_clock(moment: str, least: int) -> None:
    week = ("mon", "tue", "wed", "thu", "fri")
    scale = Scale(
        min=0,
        max=3,
        zone="Europe/Berlin",
        schedule=(
            Shift(start="08:00", end="18:00", min=2, days=week),
            Shift(start="22:00", end="04:00", min=9, days=("fri",)),
        ),
    )
    assert scale.least(datetime.fromisoformat(moment)) == least


def test_a_schedule_wakes_what_nobody_asks() -> None:
    scale = Scale(min=0, max=2, schedule=(Shift(start="13:00", end="14:00", min=2),))
    scaler = Scaler()
    assert scaler.wanted(scale, 0.0, NOON, 0, [], 1e6) == 0
    assert scaler.wanted(scale, 1.0, NOON + timedelta(hours=1), 0, [], 1e6) == 2
    assert scaler.wanted(scale, 2.0, NOON + timedelta(hours=2), 2, [], 1e6) == 0


def test_a_meter_tells_the_share_of_processor_time() -> None:
    meter = Meter()
    end = datetime.now(UTC) + timedelta(seconds=0.3)
    while datetime.now(UTC) < end:
        pass
    load = meter.read(10, 0.0, 7)
    assert 0.05 < load.busy < 1.6
    assert load.predictions == 7
    assert 0 < load.in_flight < 10
    assert meter.read(10, 0.0, 7).in_flight > load.in_flight
