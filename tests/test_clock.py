"""Time for what cannot be undone, under clocks that lie."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedplate import clock

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
HOUR = 3600.0


class Machine:
    """A machine: how long it ran, and what its clock says."""

    def __init__(self) -> None:
        self.ran = 5.0
        self.says = NOW
        with clock.frozen(NOW):
            self.reckoned = clock.Reckoned(6 * HOUR, lambda: self.ran)

    def after(self, seconds: float, step: timedelta = timedelta(0)) -> datetime:
        """What is reckoned once ``seconds`` have run and the clock was set ``step`` further."""
        self.ran += seconds
        self.says += timedelta(seconds=seconds) + step
        with clock.frozen(self.says):
            return self.reckoned.now()


def test_a_clock_that_nobody_sets_is_believed() -> None:
    machine = Machine()
    for _ in range(100):
        assert machine.after(HOUR) == machine.says
    for _ in range(1000):  # what clocks drift
        assert machine.says - machine.after(HOUR, timedelta(seconds=0.1)) < timedelta(minutes=2)


@pytest.mark.parametrize("step", [timedelta(hours=1), timedelta(days=30_000)])
def test_a_step_ahead_is_believed_once_it_has_held(step: timedelta) -> None:
    machine = Machine()
    assert machine.after(10, step) == NOW + timedelta(seconds=10)
    assert machine.after(5 * HOUR) == NOW + timedelta(seconds=10, hours=5)
    assert machine.after(HOUR) == machine.says
    assert machine.after(HOUR) == machine.says


def test_a_step_ahead_that_is_put_right_was_never_believed() -> None:
    machine = Machine()
    machine.after(10, timedelta(hours=1))
    assert machine.after(HOUR, timedelta(hours=-1)) == machine.says == NOW + timedelta(seconds=10 + HOUR)
    machine.after(HOUR, timedelta(hours=1))
    assert machine.after(5 * HOUR) == machine.says - timedelta(hours=1), "it has to hold anew"


def test_a_step_back_is_believed_at_once() -> None:
    machine = Machine()
    assert machine.after(10, timedelta(hours=-1)) == machine.says
    assert machine.after(10) == machine.says


def test_a_clock_that_runs_twice_as_fast_is_never_believed() -> None:
    machine = Machine()
    for minute in range(1, 3000):
        assert machine.after(60, timedelta(seconds=60)) <= NOW + timedelta(minutes=minute + 1)


@given(st.lists(st.tuples(st.floats(1, 4 * HOUR), st.timedeltas(timedelta(-9), timedelta(9))), max_size=30))
def test_it_never_says_more_than_the_clock(steps: list[tuple[float, timedelta]]) -> None:
    machine = Machine()
    for seconds, step in steps:
        assert machine.after(seconds, step) <= machine.says
