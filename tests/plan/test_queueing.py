import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedplate.plan import queueing as q


def test_erlang_c_of_one_server_is_its_utilisation() -> None:
    assert q.erlang_c(1, 0.6) == pytest.approx(0.6)


def test_erlang_c_of_two_servers() -> None:
    # closed form: a^2 / (a^2 + (2 - a)(1 + a) ... ) with a = 1: 1/3
    assert q.erlang_c(2, 1.0) == pytest.approx(1 / 3)


def test_mean_wait_is_pollaczek_khinchine_for_one_server() -> None:
    rate, s, cs2 = 0.7, 1.0, 0.4
    assert q.mean_wait(1, rate, s, cs2) == pytest.approx(rate * s**2 * (1 + cs2) / (2 * (1 - rate * s)))


@pytest.mark.parametrize(("c", "rho"), [(1, 0.5), (2, 0.7), (4, 0.8), (8, 0.6)])
def test_the_simulator_agrees_with_the_closed_forms_of_mmc(c: int, rho: float) -> None:
    sojourns = q.simulate(c, rho * c, 1.0, 1.0, customers=200_000)
    assert np.mean(sojourns) == pytest.approx(1 + q.mean_wait(c, rho * c, 1.0, 1.0), rel=0.05)
    if c == 1:  # the sojourn time of M/M/1 is exponential with rate mu - lambda
        assert np.quantile(sojourns, 0.99) == pytest.approx(math.log(100) / (1 - rho), rel=0.06)
        assert q.sojourn(0.99, 1, rho, 1.0, 1.0).value == pytest.approx(math.log(100) / (1 - rho), rel=0.01)


@pytest.mark.parametrize(
    ("c", "rho", "cs2", "simulated"),  # p99 of two million simulated customers, in mean services
    [
        (1, 0.7, 0.0, 7.43), (1, 0.5, 0.5, 6.81), (1, 0.95, 1.0, 92.4), (2, 0.3, 0.25, 2.76), (2, 0.8, 0.1, 6.73),
        (2, 0.5, 1.0, 5.57), (4, 0.3, 0.0, 1.33), (4, 0.7, 0.5, 4.08), (4, 0.9, 0.25, 7.67), (8, 0.8, 0.25, 2.96),
        (8, 0.95, 0.5, 9.75), (32, 0.7, 0.1, 1.89), (32, 0.95, 0.0, 2.30), (32, 0.95, 1.0, 5.34),
    ],
)  # fmt: skip
def test_the_formula_is_within_a_tenth_of_the_simulator(c: int, rho: float, cs2: float, simulated: float) -> None:
    predicted = q.sojourn(0.99, c, rho * c, 1.0, cs2)
    assert predicted.method.startswith("M/G/c")
    assert predicted.value == pytest.approx(simulated, rel=0.1)


def test_the_simulator_decides_where_the_formula_is_poor() -> None:
    found = q.sojourn(0.99, 2, 1.0, 1.0, 2.0)
    assert found.method.startswith("simulated")
    assert found.value > 1.2 * q.sojourn(0.99, 2, 1.0, 1.0, 1.0).value


def test_a_queue_that_grows_has_no_percentile() -> None:
    assert q.sojourn(0.99, 2, 2.0, 1.0, 0.5).value == math.inf
    assert q.mean_wait(2, 2.0, 1.0, 0.5) == math.inf


@given(st.integers(1, 30), st.floats(0.05, 0.97), st.floats(0.0, 1.0), st.floats(1e-4, 10))
def test_more_servers_never_wait_longer_and_time_scales(c: int, rho: float, cs2: float, s: float) -> None:
    rate = rho * c / s
    now = q.sojourn(0.99, c, rate, s, cs2).value
    assert q.sojourn(0.99, c + 1, rate, s, cs2).value <= now * (1 + 1e-9)
    assert q.sojourn(0.99, c, rate / 2, s * 2, cs2).value == pytest.approx(2 * now)
    assert now >= s


@given(st.lists(st.floats(1e-3, 10), min_size=1, max_size=50), st.floats(0.05, 5))
def test_customers_at_even_distances_wait_for_those_before_them_and_no_longer(
    service: list[float], rate: float
) -> None:
    free, found = 0.0, []
    for number, took in enumerate(service, start=1):
        free = max(free, number / rate) + took
        found.append(free - number / rate)
    assert q.replay(rate, np.array(service)) == pytest.approx(found, abs=1e-9)


def test_those_who_wait_are_served_together_as_far_as_it_goes() -> None:
    """One comes each second; the first takes 3.5 s, all others 1 s, and two at once 1.5 times as long as one."""
    service = np.array([3.5, 1.0, 1.0, 1.0, 1.0, 1.0])
    alone = q.replay(1.0, service)
    assert alone == pytest.approx([3.5] * 6)
    assert q.replay(1.0, service, (1.0, 1.5)) == pytest.approx([3.5, 4.0, 3.0, 3.5, 2.5, 2.5])
    assert q.replay(1.0, service, (1.0, 2.0))[[2, 4, 5]] == pytest.approx(alone[[2, 4, 5]])  # nothing is saved
