"""Waiting in line: M/G/c by Erlang C with the Allen-Cunneen correction, and a small event simulator as arbiter.

Service times are described by their mean ``s`` and squared coefficient of variation ``cs2``; arrivals are Poisson.
Sources: Erlang (1917) for C; Allen (1990), Probability, Statistics and Queueing Theory, for the correction. The
simulator draws gamma service times up to ``cs2`` of 1 and log-normal ones above, and decides where the formula is
known to be poor: ``cs2`` above 0.5 or utilisation above 0.85.
"""

import heapq
import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from scipy import special

CUSTOMERS = 60_000
"""Simulated customers; a tenth of them warm the queue up and is left out."""


class Sojourn(NamedTuple):
    """A percentile of waiting plus service, in the unit of ``s``, and how it was found. Infinite if the queue grows."""

    value: float
    utilisation: float
    method: str


def erlang_b(c: int, a: float) -> float:
    """Share of arrivals lost with ``c`` servers, no waiting room and ``a`` erlangs offered."""
    b = 1.0
    for k in range(1, c + 1):
        b = a * b / (k + a * b)
    return b


def erlang_c(c: int, a: float) -> float:
    """Share of arrivals that wait with ``c`` servers and ``a`` erlangs offered; 1 if ``a`` is ``c`` or more."""
    if a >= c:
        return 1.0
    b = erlang_b(c, a)
    return b / (1 - a / c * (1 - b))


def mean_wait(c: int, rate: float, s: float, cs2: float) -> float:
    """Mean wait in line of M/G/c: exact for M/M/c and M/G/1, Allen-Cunneen between. Infinite if the queue grows."""
    a = rate * s
    if a >= c:
        return math.inf
    return erlang_c(c, a) * s / (c - a) * (1 + cs2) / 2


def wait_quantile(p: float, c: int, rate: float, s: float, cs2: float) -> float:
    """The wait that a share ``p`` of arrivals does not exceed: zero with 1 - C, else exponential."""
    a = rate * s
    if a >= c:
        return math.inf
    waits = erlang_c(c, a)
    if waits <= 1 - p:
        return 0.0
    return mean_wait(c, rate, s, cs2) / waits * math.log(waits / (1 - p))


def sojourn(p: float, c: int, rate: float, s: float, cs2: float) -> Sojourn:
    """The ``p`` quantile of waiting plus service with ``c`` servers."""
    utilisation = rate * s / c
    if utilisation >= 1:
        return Sojourn(math.inf, utilisation, "the queue grows without end")
    if cs2 > 0.5 or utilisation > 0.85:
        # In units of s the answer depends on c, utilisation and cs2 only; rounding up lets neighbours share it.
        steps = min(0.995, math.ceil(utilisation * 100) / 100)
        return Sojourn(s * _simulated(p, c, steps, round(cs2, 2)), utilisation, f"simulated, {CUSTOMERS:,} requests")
    value = max(wait_quantile(p, c, rate, s, cs2) + s, s * service_quantile(p, cs2))
    return Sojourn(value, utilisation, "M/G/c, Allen-Cunneen")


def service_quantile(p: float, cs2: float) -> float:
    """The ``p`` quantile of a gamma service time of mean 1."""
    if cs2 <= 1e-9:
        return 1.0
    return float(special.gammaincinv(1 / cs2, p) * cs2)


def simulate(c: int, rate: float, s: float, cs2: float, *, customers: int = CUSTOMERS, seed: int = 1) -> np.ndarray:
    """Waiting plus service of each customer of a first-come-first-served M/G/c queue, after the warm-up."""
    random = np.random.default_rng(seed)
    arrivals = np.cumsum(random.exponential(1 / rate, customers))
    service = _service(random, s, cs2, customers)
    if c == 1:
        return _one_by_one(arrivals, service)[customers // 10 :]
    free = [0.0] * c
    sojourns = np.empty(customers)
    for i, (arrival, work) in enumerate(zip(arrivals.tolist(), service.tolist(), strict=True)):
        done = max(free[0], arrival) + work
        heapq.heapreplace(free, done)
        sojourns[i] = done - arrival
    return sojourns[customers // 10 :]


def replay(rate: float, service: np.ndarray) -> np.ndarray:
    """Waiting plus service of customers who come at even distances, as a load run sends them, to one server (D/G/1).

    Each takes as long as ``service`` says, which was measured: a distribution is not put in the place of what is known.
    """
    return _one_by_one(np.arange(1, len(service) + 1) / rate, service)


def _one_by_one(arrivals: np.ndarray, service: np.ndarray) -> np.ndarray:
    """Lindley's recursion, as a running maximum."""
    finished = np.cumsum(service)
    start = np.maximum.accumulate(arrivals - np.concatenate(([0.0], finished[:-1])))
    return np.asarray(start + finished - arrivals)


def _service(random: np.random.Generator, s: float, cs2: float, n: int) -> np.ndarray:
    if cs2 <= 1e-9:
        return np.full(n, s)
    if cs2 <= 1:
        return random.gamma(1 / cs2, s * cs2, n)
    sigma2 = math.log(1 + cs2)
    return random.lognormal(math.log(s) - sigma2 / 2, math.sqrt(sigma2), n)


@lru_cache(maxsize=4096)
def _simulated(p: float, c: int, utilisation: float, cs2: float) -> float:
    return float(np.quantile(simulate(c, utilisation * c, 1.0, cs2), p))
