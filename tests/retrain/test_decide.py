import pytest

from bedplate.errors import InputError
from bedplate.records import Estimate
from bedplate.retrain import Signals, decide, parse, parse_worth
from bedplate.usecase.types import Retrain

FILE = Retrain(when=("drift", "new_rows >= 200000", "every 7 d"))


def gain(low: float, value: float, high: float) -> Estimate:
    return Estimate(value=value, low=low, high=high)


@pytest.mark.parametrize(
    ("text", "signal", "threshold"),
    [("drift", "drift", 0), ("new_rows >= 200000", "new_rows", 200_000), ("every 7 d", "age", 604_800)],
)
def test_conditions_of_the_file_are_read(text: str, signal: str, threshold: float) -> None:
    condition = parse(text)
    assert (condition.signal, condition.threshold) == (signal, threshold)


@pytest.mark.parametrize("text", ["drfit", "new_rows = 3", "every 7", "__import__('os')", "", "every 0 d"])
def test_anything_else_is_refused_with_what_is_allowed(text: str) -> None:
    with pytest.raises(InputError) as error:
        parse(text)
    assert error.value.fix


def test_worth_is_a_comparison_or_always() -> None:
    assert parse_worth("expected_gain > 2 * cost").factor == 2
    assert parse_worth("always").factor is None
    with pytest.raises(InputError):
        parse_worth("expected_gain > 0 or True")


def test_nothing_fired_nothing_done_and_every_signal_is_listed() -> None:
    decision = decide(FILE, Signals(drift_alarm=False, new_rows=10, age=60.0, cost=5.0))
    assert not decision.retrain
    assert [signal.fired for signal in decision.signals] == [False, False, False]
    assert all(signal.why for signal in decision.signals)


@pytest.mark.parametrize(
    ("signals", "retrain", "says"),
    [
        (Signals(new_rows=300_000, cost=5.0, replayed=True), False, "No effect claim is possible"),
        (Signals(new_rows=300_000, cost=5.0, gain=gain(6, 9, 12)), True, "worth it"),
        (Signals(new_rows=300_000, cost=5.0, gain=gain(1, 9, 12)), False, "not shown"),
        (Signals(drift_alarm=True, drifted=("spend",), cost=5.0, replayed=True), True, "promises of the file"),
        (Signals(drift_alarm=True, cost=5.0, gain=gain(0, 1, 2)), False, "not shown"),
        (Signals(age=8 * 86400.0, cost=5.0, gain=gain(1, 9, 12)), True, "promises to act"),
        (Signals(age=8 * 86400.0, cost=50.0, budget=40.0), False, "above its budget"),
        (Signals(age=8 * 86400.0), False, "not known"),
    ],
)
def test_the_rule(signals: Signals, retrain: bool, says: str) -> None:
    decision = decide(FILE, signals)
    assert decision.retrain is retrain
    assert says in decision.reason
