"""What plans learn from what happened: laws of the correction."""

import itertools
import math
import random

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from bedplate.plan.experience import Case, Experience, Learned, corrected, learn
from bedplate.records import Estimate

FIGURE, KIND, HERE = "one training", "tabular", "a processor"
ratios = st.lists(st.floats(0.2, 5.0), min_size=1, max_size=12)


def cases(*off: float) -> list[Case]:
    days = [(f"2026-01-{day:02}", 10.0 * each) for day, each in enumerate(off, 1)]
    return [Case(figure=FIGURE, kind=KIND, hardware=HERE, when=at, predicted=10.0, measured=m) for at, m in days]


def known(found: Experience, hardware: str = HERE) -> Learned:
    item = found.of(FIGURE, KIND, hardware)
    assert item is not None
    return item


@given(ratios, st.randoms(use_true_random=False))
def test_the_order_of_cases_does_not_matter_and_it_survives_json(off: list[float], shuffling: random.Random) -> None:
    some = cases(*off)
    shuffled = some[:]
    shuffling.shuffle(shuffled)
    found = learn(some)
    assert found == learn(shuffled)
    assert msgspec.json.decode(msgspec.json.encode(found), type=Experience) == found
    assert found.digest == learn(shuffled).digest


@given(ratios)
def test_a_correction_lies_between_none_and_what_was_seen(off: list[float]) -> None:
    factor = known(learn(cases(*off))).factor
    mean = math.exp(sum(map(math.log, off)) / len(off))
    low, high = sorted((1.0, mean))
    assert low - 1e-9 <= factor.value <= high + 1e-9
    assert factor.low < factor.value < factor.high


@given(st.floats(0.2, 5.0))
def test_more_of_the_same_corrects_more_and_is_surer(off: float) -> None:
    factors = [known(learn(cases(*[off] * n))).factor for n in (1, 3, 9, 27)]
    errors = [abs(math.log(factor.value / off)) for factor in factors]
    widths = [math.log(factor.high / factor.low) for factor in factors]
    assert all(a >= b - 1e-9 for a, b in itertools.pairwise(errors))
    assert all(a >= b - 1e-9 for a, b in itertools.pairwise(widths))
    assert errors[-1] < 0.05


def test_another_hardware_learns_less_than_the_one_that_was_seen() -> None:
    found = learn(cases(*[2.0] * 10))
    here, elsewhere = known(found), known(found, "another processor")
    assert here.factor.value > elsewhere.factor.value > 1.2
    assert elsewhere.cases == 0
    assert elsewhere.others == 10
    assert elsewhere.factor.high / elsewhere.factor.low > here.factor.high / here.factor.low
    assert found.of(FIGURE, "recommender", HERE) is None


@given(st.floats(0.3, 3.0), st.floats(1.1, 4.0))
def test_a_corrected_prediction_is_never_less_sure(off: float, spread: float) -> None:
    plain = Estimate(value=8.0, low=8.0 / spread, high=8.0 * spread, level=0.9, method="counted")
    found = corrected(plain, known(learn(cases(*[off] * 6))))
    assert found.low <= found.value <= found.high
    assert found.high / found.low <= plain.high / plain.low + 1e-9
    assert corrected(plain, None) == plain


def test_an_error_that_moves_is_told_and_one_that_stays_is_not() -> None:
    steady = [1.1, 1.15, 1.05, 1.12, 1.08, 1.1, 1.13]
    assert known(learn(cases(*steady, *steady[:5]))).moved == ""
    moved = known(learn(cases(*steady, *[2.0, 2.1, 1.9, 2.05, 2.0]))).moved
    assert moved == "since 2026-01-08 it is 2.01 times what was predicted; before, 1.10 times"
    assert known(learn(cases(*steady[:3], 2.0, 2.0))).moved == "", "too few to tell"
