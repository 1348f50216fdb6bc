"""The classes of bottlenecks, from signals alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedplate.plan import bottlenecks
from bedplate.plan.bottlenecks import Remedy, Signals

PLANTED = {
    "data-loader": Signals(seconds=1, loader=0.5, serialization=0.5),
    "interpreter-lock": Signals(seconds=1, loader=0.1, runnable=3.0, held=1.0, asleep=0.6),
    "serialization": Signals(seconds=1, serialization=0.3, communication=0.9),
    "launch": Signals(seconds=1, launch=0.4, flat=1.0, kernel_us=5),
    "communication": Signals(seconds=1, communication=0.3, transfer=0.3),
    "transfer": Signals(seconds=1, transfer=0.3, compute=0.9),
    "memory-bandwidth": Signals(seconds=1, bandwidth=0.8, intensity=1, ridge=10, compute=0.1),
    "compute": Signals(seconds=1, bandwidth=0.8, intensity=100, ridge=10, compute=0.8),
    "capacity": Signals(seconds=1, compute=0.2, memory=0.95),
    "queue": Signals(seconds=1, wait=0.03, service=0.01),
    "mixed": Signals(seconds=1, loader=0.1, launch=0.3, flat=1.9, wait=0.001, service=0.01),
}


@pytest.mark.parametrize("kind", PLANTED)
def test_each_class_is_told_by_its_signals(kind: str) -> None:
    found = bottlenecks.find([PLANTED[kind]] * 3)
    assert (found.kind, found.stable) == (kind, True)
    assert found.evidence
    assert kind == "mixed" or (found.remedies and found.share.value > found.threshold)


def test_one_thread_that_holds_its_lock_alone_and_threads_that_have_cores_of_their_own_are_no_lock() -> None:
    for runnable, held, asleep in ((1.0, 1.0, 0.5), (3.0, 2.8, 0.1), (3.0, 1.0, 0.05)):
        signals = Signals(seconds=1, runnable=runnable, held=held, asleep=asleep)
        assert bottlenecks.find([signals]).kind == "mixed"


def test_windows_that_disagree_are_told() -> None:
    loud = bottlenecks.find([PLANTED["data-loader"], PLANTED["data-loader"], PLANTED["mixed"]])
    assert (loud.kind, loud.stable) == ("data-loader", False)
    assert (loud.share.low, loud.share.high) == (0.1, 0.5)


def test_a_remedy_that_was_tried_comes_first() -> None:
    tried = Remedy(what="64 rows a call", gain=3.0, why="measured")
    assert bottlenecks.find([PLANTED["launch"]], [tried]).remedies[0] == tried


def test_nothing_measured_is_told_as_such_and_no_window_is_an_error() -> None:
    assert "could be measured" in bottlenecks.find([Signals(seconds=1)]).evidence[0]
    with pytest.raises(ValueError, match="no window"):
        bottlenecks.find([])


@given(st.floats(0, 1), st.floats(1, 100))
def test_amdahl_never_promises_more_than_the_share_or_the_speed(share: float, faster: float) -> None:
    gain = bottlenecks.amdahl(share, faster)
    assert 1 - 1e-9 <= gain <= faster + 1e-9
    assert bottlenecks.amdahl(share) >= gain - 1e-9
